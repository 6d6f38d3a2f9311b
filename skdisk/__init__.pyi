from ._classifier import MLPDiskClassifier as MLPDiskClassifier
from ._disk import make_disk as make_disk
from ._display import LossCurveDisplay as LossCurveDisplay
from ._ensemble import MLPDiskEnsemble as MLPDiskEnsemble

__all__ = [
    "LossCurveDisplay",
    "MLPDiskClassifier",
    "MLPDiskEnsemble",
    "__version__",
    "make_disk",
]
__version__: str
