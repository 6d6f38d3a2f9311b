"""The recipes of the gallery are short, run, and print and draw what they promise."""

import runpy
import warnings
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pytest
import sklearn

EXAMPLES = Path(__file__).parent.parent / "examples"
NAMES = sorted(path.name for path in EXAMPLES.glob("*.py"))
# What is printed, or written in a picture.
PROMISES = {
    "plot_calibration.py": ["mean confidence", "log loss", "with a temperature", "share of class"],
    "plot_ensemble.py": ["weight_decay", "count", "seeds of the best", "chosen by from_search"],
    "plot_explaining.py": ["growth of the log loss", "proline", "probability of class 0"],
    "plot_frame.py": ["rows with holes", "test_roc_auc", "ensemble", "less that of logistic"],
    "plot_hidden.py": ["pixels", "hidden layer", "labels", "accuracy on other rows"],
    "plot_imbalance.py": ["as it comes", "balanced", "tuned threshold", "recall"],
    "plot_keep.py": ["['skdisk._classifier.MLPDiskClassifier']", "equal: True", "rows scaled"],
    "plot_lbfgs.py": ["MLPClassifier", "the same penalty", "other rows", "log loss of other rows"],
    "plot_onnx.py": ["malignant", "labels equal: True", "within 1e-6: True", "ONNX, less"],
    "plot_optuna.py": ["COMPLETE", "PRUNED", "Accuracy of the best", "pruned", "complete"],
    "plot_partitions.py": ["load all", "map the file", "part by part", "NumPy's arrays"],
    "plot_search.py": ["200 networks:", "skorch", "learning rate", "batch size", "log loss"],
    "plot_training.py": ["balanced_accuracy", "as it comes", "AdamW, early stopping"],
    "plot_validation.py": ["The epoch that is kept", "Accuracy on the last rows"],
}


@pytest.mark.parametrize("name", NAMES)
def test_recipe_runs(name, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    # One process runs them all, as when the site is built: PyTorch is imported once.
    with sklearn.config_context(), matplotlib.rc_context(), warnings.catch_warnings():
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    texts = []
    for figure in map(plt.figure, plt.get_fignums()):
        figure.canvas.draw()
        texts += [text.get_text() for text in figure.findobj(matplotlib.text.Text)]
    plt.close("all")
    output = capfd.readouterr()
    assert output.err == ""
    for promise in PROMISES[name]:
        assert promise in "\n".join([output.out, *texts])


@pytest.mark.parametrize("name", NAMES)
def test_recipe_is_short(name):
    assert len((EXAMPLES / name).read_text().splitlines()) < 60
