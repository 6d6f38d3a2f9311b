"""The example scripts run, and print what they promise."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
PROMISES = {
    "analysis.py": ["Five folds:", "test_roc_auc", "hidden_layer_sizes", "train_loss"],
    "ensemble.py": ["the best network", "ten of the best", "ten chosen", "hidden_layer_sizes"],
    "export.py": ["breast_cancer.onnx", "labels equal: True", "within 1e-6: True", "malignant"],
    "from_mlpclassifier.py": ["the same penalty", "unseen rows", "coefs_: (4, 16)", "betas"],
    "partitions.py": ["all in memory", "peak_MB", "equal, bit by bit: True"],
    "search.py": ["mean_fit_time", "best_params_", "mean_test_score", "no network has seen"],
    "plot_imbalance.py": ["as it comes", "balanced", "tuned threshold", "recall"],
    "plot_validation.py": ["The epoch that is kept", "Accuracy on the last rows"],
    "plot_training.py": ["balanced_accuracy", "as it comes", "AdamW, early stopping"],
}


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_example_runs(name, tmp_path):
    result = subprocess.run(
        [sys.executable, EXAMPLES / name],
        cwd=tmp_path,
        env={**os.environ, "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stderr) == (0, "")
    for promise in PROMISES[name]:
        assert promise in result.stdout
