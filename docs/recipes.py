"""The order of the recipes in the gallery: from data to models, searches, and what comes after."""

ORDER = [
    *("frame", "imbalance", "calibration", "validation", "training"),
    *("search", "optuna", "ensemble", "lbfgs"),
    *("hidden", "explaining", "partitions", "keep", "onnx"),
]


class ReadingOrder:
    """Sort the files of the gallery; a file that is not in the list stops the build."""

    def __init__(self, folder):
        """Take what sphinx-gallery gives: it has only one folder."""

    def __call__(self, name):
        """Tell at which place a recipe stands."""
        return ORDER.index(name.removeprefix("plot_").removesuffix(".py"))
