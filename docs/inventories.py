"""The names of other projects that the pages link to, and the inventories that Sphinx reads.

A name that is not here and is referred to ends the build: add it. Each line is the name, its role
and its page; `$` in a page stands for the name.
"""

import zlib

ADDRESSES = {
    "python": "https://docs.python.org/3/",
    "numpy": "https://numpy.org/doc/stable/",
    "sklearn": "https://scikit-learn.org/stable/",
    "skorch": "https://skorch.readthedocs.io/en/stable/",
    "torch": "https://docs.pytorch.org/docs/stable/",
}

NAMES = {
    "python": """
        KeyboardInterrupt py:exception library/exceptions.html#$
        ValueError py:exception library/exceptions.html#$
    """,
    "numpy": """
        numpy.ndarray py:class reference/generated/$.html#$
    """,
    "sklearn": """
        meta-estimator std:term glossary.html#term-$
        metadata_routing std:label metadata_routing.html
        sklearn.datasets.make_circles py:function modules/generated/$.html
        sklearn.model_selection.LearningCurveDisplay py:class modules/generated/$.html
        sklearn.neural_network.MLPClassifier py:class modules/generated/$.html
        sklearn.pipeline.Pipeline py:class modules/generated/$.html
        sklearn.set_config py:function modules/generated/$.html
        sklearn.utils.metadata_routing.MetadataRequest py:class modules/generated/$.html
    """,
    "skorch": """
        skorch.NeuralNetClassifier py:class classifier.html#skorch.classifier.NeuralNetClassifier
        skorch.callbacks.LRScheduler py:class callbacks.html#$
    """,
    "torch": """
        torch.nn.Module py:class generated/$.html
        torch.nn.Sequential py:class generated/$.html
    """,
}


def _encode(project, lines):
    """Encode an inventory in the second version of Sphinx's format."""
    head = f"# Sphinx inventory version 2\n# Project: {project}\n# Version: \n"
    head += "# The remainder of this file is compressed using zlib.\n"
    body = ""
    for line in lines.split("\n"):
        if line.strip():
            name, role, page = line.split()
            body += f"{name} {role} 1 {page.replace('$', name)} -\n"
    return head.encode() + zlib.compress(body.encode())


def write_inventories(folder):
    """Write a file for each project into a folder, and list the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for project in ADDRESSES:
        paths.append(folder / f"{project}.inv")
        paths[-1].write_bytes(_encode(project, NAMES[project]))
    return paths
