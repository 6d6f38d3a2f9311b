"""
A pipeline as ONNX
==================

A file in the ONNX format takes a pipeline to other languages and small machines. Does it compute
the same there?
"""

# %%
# skl2onnx converts the scaler, skdisk the network. The row that is passed along shows the type of
# the rows to come, float32.
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np
import onnxruntime
import pandas as pd
from skl2onnx import to_onnx
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skdisk.onnx
from skdisk import MLPDiskClassifier

data = load_breast_cancer()
X, y = data.data.astype(np.float32), data.target_names[data.target]
X_train, X_test, y_train, _ = train_test_split(X, y, stratify=y, random_state=0)
pipeline = make_pipeline(StandardScaler(), MLPDiskClassifier(random_state=0))
pipeline.fit(X_train, y_train)

skdisk.onnx.register()
model = to_onnx(pipeline, X_train[:1], options={"zipmap": False})
folder = TemporaryDirectory()
path = Path(folder.name, "pipeline.onnx")
path.write_bytes(model.SerializeToString())
print(f"{path.name}: {path.stat().st_size // 1000} kB")

# %%
# This needs neither scikit-learn nor torch, until the results are compared.
session = onnxruntime.InferenceSession(path)
labels, proba = session.run(["label", "probabilities"], {"X": X_test})
folder.cleanup()
table = pd.DataFrame(proba, columns=pipeline.classes_).assign(label=labels)
print(table.head(3).round(3).to_string(), end="\n\n")
expected = pipeline.predict_proba(X_test)
print("labels equal:", np.array_equal(labels, pipeline.predict(X_test)))
print("probabilities within 1e-6:", np.allclose(proba, expected, rtol=0, atol=1e-6))

# %%
# Equal to the last digits of float32, in which the scores of both are computed.
_, axes = plt.subplots(layout="constrained")
axes.plot(expected[:, 1], proba[:, 1] - expected[:, 1], ".")
axes.set_xlabel(f"probability of {pipeline.classes_[1]}")
_ = axes.set_ylabel("ONNX, less the pipeline's own")
