"""The examples run, and print and draw what they promise; those of the gallery are short."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
NAMES = sorted(path.name for path in EXAMPLES.glob("*.py"))
RECIPES = [name for name in NAMES if name.startswith("plot_")]
PROMISES = {
    "ensemble.py": ["the best network", "ten of the best", "ten chosen", "hidden_layer_sizes"],
    "search.py": ["mean_fit_time", "best_params_", "mean_test_score", "no network has seen"],
    "plot_explaining.py": ["growth of the log loss", "proline", "probability of class 0"],
    "plot_hidden.py": ["pixels", "hidden layer", "labels", "accuracy on other rows"],
    "plot_imbalance.py": ["as it comes", "balanced", "tuned threshold", "recall"],
    "plot_keep.py": ["['skdisk._classifier.MLPDiskClassifier']", "equal: True", "rows scaled"],
    "plot_lbfgs.py": ["MLPClassifier", "the same penalty", "other rows", "log loss of other rows"],
    "plot_onnx.py": ["malignant", "labels equal: True", "within 1e-6: True", "ONNX, less"],
    "plot_optuna.py": ["COMPLETE", "PRUNED", "Accuracy of the best", "pruned", "complete"],
    "plot_partitions.py": ["load all", "map the file", "part by part", "NumPy's arrays"],
    "plot_validation.py": ["The epoch that is kept", "Accuracy on the last rows"],
    "plot_training.py": ["balanced_accuracy", "as it comes", "AdamW, early stopping"],
}
# Runs a script, then prints what is written in its pictures, where a reader sees it.
READ_PICTURES = """
import runpy, sys

runpy.run_path(sys.argv[1], run_name="__main__")
pyplot = sys.modules.get("matplotlib.pyplot")
for number in pyplot.get_fignums() if pyplot else []:
    figure = pyplot.figure(number)
    figure.canvas.draw()
    print(*(text.get_text() for text in figure.findobj(lambda part: hasattr(part, "get_text"))))
"""


@pytest.mark.parametrize("name", NAMES)
def test_example_runs(name, tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", READ_PICTURES, EXAMPLES / name],
        cwd=tmp_path,
        env={**os.environ, "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stderr) == (0, "")
    for promise in PROMISES[name]:
        assert promise in result.stdout


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_is_short(name):
    assert len((EXAMPLES / name).read_text().splitlines()) < 60
