"""A PyTorch multilayer perceptron that is a scikit-learn classifier."""

from importlib import import_module
from importlib.metadata import version

_MODULES = {
    "LossCurveDisplay": "._display",
    "MLPDiskClassifier": "._classifier",
    "MLPDiskEnsemble": "._ensemble",
    "make_disk": "._disk",
}

__all__ = [
    "LossCurveDisplay",
    "MLPDiskClassifier",
    "MLPDiskEnsemble",
    "__version__",
    "make_disk",
]
__version__ = version("skdisk")


def __getattr__(name):
    # Importing torch takes 1.5 s, which a program that only wants `make_disk` need not wait for.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name], __name__), name)


def __dir__():
    return __all__
