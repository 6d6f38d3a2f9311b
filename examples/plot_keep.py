"""
Keep a pipeline
===============

Tomorrow, in another process: which file gives back what has been trained?
"""

# %%
# A file of skops holds all of the pipeline. It runs no code when it is loaded, and names the types
# that are to be trusted: look at the list, here it is one.
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import skops.io
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdisk import MLPDiskClassifier

X, y = load_breast_cancer(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
pipeline = make_pipeline(StandardScaler(), MLPDiskClassifier(random_state=0))
pipeline.fit(X_train, y_train)
folder = TemporaryDirectory()
path = Path(folder.name, "pipeline.skops")
skops.io.dump(pipeline, path)
trusted = skops.io.get_untrusted_types(file=path)
print(trusted)
loaded = skops.io.load(path, trusted=trusted)
print("equal:", np.array_equal(loaded.predict_proba(X_test), pipeline.predict_proba(X_test)))

# %%
# ``save`` writes the network alone, in a file that later versions of skdisk read, too. Its scaler
# is not in it. Without one the network takes any rows, and predicts nonsense.
path = Path(folder.name, "network.safetensors")
pipeline[-1].save(path)
clf = MLPDiskClassifier.load(path)
folder.cleanup()
scores = {
    "pipeline": loaded.score(X_test, y_test),
    "network,\nrows scaled": clf.score(pipeline[0].transform(X_test), y_test),
    "network,\nrows as they are": clf.score(X_test, y_test),
}
axes = pd.Series(scores).plot.bar(rot=0, ylim=(0, 1), ylabel="accuracy of what was loaded")

# %%
# MLflow keeps the pipeline by skops. This block is not run with the page, because mlflow is large:
#
# .. code-block:: python
#
#     how = {"serialization_format": "skops", "skops_trusted_types": trusted}
#     info = mlflow.sklearn.log_model(pipeline, name="pipeline", **how)
#     pipeline = mlflow.sklearn.load_model(info.model_uri)
