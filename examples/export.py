"""Write a pipeline as an ONNX file, and compute with it without scikit-learn and torch."""

from pathlib import Path

import numpy as np
import onnxruntime
from skl2onnx import to_onnx
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skdisk.onnx
from skdisk import MLPDiskClassifier


def main():
    """Train, convert, and compare."""
    data = load_breast_cancer()
    # skl2onnx asks for the type that rows will have.
    X, y = data.data.astype(np.float32), data.target_names[data.target]
    X_train, X_test, y_train, _ = train_test_split(X, y, stratify=y, random_state=0)
    pipeline = make_pipeline(StandardScaler(), MLPDiskClassifier(random_state=0))
    pipeline.fit(X_train, y_train)

    skdisk.onnx.register()
    model = to_onnx(pipeline, X_train[:1], options={"zipmap": False})
    path = Path("breast_cancer.onnx")
    path.write_bytes(model.SerializeToString())
    print(f"{path}: {path.stat().st_size / 1024:.0f} kB")

    session = onnxruntime.InferenceSession(path)
    label, proba = session.run(None, {"X": X_test})
    difference = np.abs(proba - pipeline.predict_proba(X_test)).max()
    print(f"labels equal: {(label == pipeline.predict(X_test)).all()}")
    print(f"probabilities within 1e-6: {difference < 1e-6}")

    # With zipmap, the default, probabilities come with their labels.
    session = onnxruntime.InferenceSession(to_onnx(pipeline, X_train[:1]).SerializeToString())
    print(f"first row: {session.run(None, {'X': X_test[:1]})[1][0]}")


if __name__ == "__main__":
    main()
