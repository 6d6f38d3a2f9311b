"""A PyTorch multilayer perceptron that is a scikit-learn classifier.

`MLPDiskClassifier` has `fit`, `predict` and `predict_proba`, takes arrays and data frames, and
works in scikit-learn's pipelines, searches and cross-validation. Put a `StandardScaler` before it.

>>> from sklearn.pipeline import make_pipeline
>>> from sklearn.preprocessing import StandardScaler
>>> from skdisk import MLPDiskClassifier, make_disk
>>> X, y = make_disk(1000, random_state=0)
>>> clf = make_pipeline(StandardScaler(), MLPDiskClassifier(random_state=0)).fit(X, y)
>>> clf.predict([[0.0, 0.1], [0.9, 0.9]])
array([1, 0])

- `MLPDiskClassifier`: the network. `clf.history_` has the losses, `clf.save(path)` keeps it,
  `clf.to_torch()` makes a plain network of torch.
- `MLPDiskEnsemble`: several of them, which vote.
- `LossCurveDisplay`: draws the losses of fits.
- `make_disk`: points inside and outside a disk, to try it on.

`help(skdisk.MLPDiskClassifier)` has all parameters. `python -m skdisk` trains a network and draws
what it learned; `python -m skdisk._kernel` says which instructions of the CPU are used.
"""

from importlib import import_module
from importlib.metadata import version

_MODULES = {
    "LossCurveDisplay": "._display",
    "MLPDiskClassifier": "._classifier",
    "MLPDiskEnsemble": "._ensemble",
    "make_disk": "._disk",
}

__all__ = sorted([*_MODULES, "__version__"])
__version__ = version("skdisk")


def __getattr__(name):
    # Importing torch takes 1.5 s, which a program that only wants `make_disk` need not wait for.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name], __name__), name)


def __dir__():
    return __all__
