"""
Keep a pipeline, and ship it
============================

Tomorrow, in another process, on a machine without Python: which file is for what?
"""

# %%
# The scaler belongs to the network. A file of skops holds both, runs no code when it is loaded,
# and names the types that are to be trusted: look at the list, here it is one.
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime
import pandas as pd
import skops.io
from skl2onnx import to_onnx
from sklearn.datasets import load_breast_cancer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skdisk.onnx
from skdisk import MLPDiskClassifier

X, y = load_breast_cancer(return_X_y=True)
X, folder = X.astype(np.float32), TemporaryDirectory()
pipeline = make_pipeline(StandardScaler(), MLPDiskClassifier(random_state=0)).fit(X, y)
paths = [Path(folder.name, name) for name in ("model.skops", "model.safetensors", "model.onnx")]
skops.io.dump(pipeline, paths[0])
trusted = skops.io.get_untrusted_types(file=paths[0])
print(trusted)
loaded = skops.io.load(paths[0], trusted=trusted)

# %%
# ``save`` writes the network alone, for later versions of skdisk too. ONNX has what it takes to
# predict, for programs in many languages.
pipeline[-1].save(paths[1])
clf = MLPDiskClassifier.load(paths[1])
skdisk.onnx.register()
paths[2].write_bytes(to_onnx(pipeline, X[:1], options={"zipmap": False}).SerializeToString())
_, onnx_proba = onnxruntime.InferenceSession(paths[2]).run(None, {"X": X})
proba, scaled = pipeline.predict_proba(X), pipeline[0].transform(X)
others = [loaded.predict_proba(X), clf.predict_proba(scaled), onnx_proba]
table = pd.DataFrame(index=[path.name for path in paths])
table["holds"] = ["the pipeline", "the network", "what predicts"]
table["equal"] = [np.array_equal(other, proba) for other in others]
table["within 1e-6"] = [np.allclose(other, proba, rtol=0, atol=1e-6) for other in others]
print(table.to_string())
folder.cleanup()

# %%
# MLflow keeps the pipeline by skops, too. This block is not run with the page: mlflow is large.
#
# .. code-block:: python
#
#     how = {"serialization_format": "skops", "skops_trusted_types": trusted}
#     info = mlflow.sklearn.log_model(pipeline, name="model", **how)
#     pipeline = mlflow.sklearn.load_model(info.model_uri)
