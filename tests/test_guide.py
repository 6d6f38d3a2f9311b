"""Whoever comes from another library finds each of its names, and the new names are there."""

import inspect
import re
from pathlib import Path

import pytest
from sklearn.datasets import load_iris
from sklearn.neural_network import MLPClassifier
from skorch import NeuralNetClassifier
from skorch.net import NeuralNet

from skdisk import MLPDiskClassifier, MLPDiskEnsemble
from skdisk._fitted import make_link_template

ROOT = Path(__file__).parent.parent
IRIS = load_iris(return_X_y=True, as_frame=True)
GUIDE = ROOT / "docs" / "guide"


def read_table(page):
    """Read the first two columns of all tables of a page."""
    lines = (GUIDE / page).read_text().splitlines()
    return [line.split("|")[1:3] for line in lines if line.startswith("| `")]


def list_parameters(*constructors):
    names = {name for made in constructors for name in inspect.signature(made).parameters}
    return names - {"self", "args", "kwargs"}


def list_names(cell):
    """List the names in a cell, without arguments and values."""
    codes = re.findall(r"`([^`]+)`", cell)
    return {re.match(r"[\w.]+", code)[0] for code in codes if code[0].isalpha()}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_every_name_of_mlpclassifier_is_in_the_table():
    old = MLPClassifier(max_iter=1, early_stopping=True).fit(*IRIS)
    fitted = {name for name in vars(old) if name.endswith("_") and not name.startswith("_")}
    listed = set().union(
        *(list_names(cell) for cell, _ in read_table("coming_from_mlpclassifier.md"))
    )
    assert list_parameters(MLPClassifier.__init__) | fitted <= listed


def test_every_parameter_of_skorch_is_in_the_table():
    listed = set().union(*(list_names(cell) for cell, _ in read_table("coming_from_skorch.md")))
    assert list_parameters(NeuralNet.__init__, NeuralNetClassifier.__init__) <= listed


@pytest.mark.parametrize("library", ["mlpclassifier", "skorch", "keras"])
def test_every_new_name_is_a_name_of_skdisk(library):
    clf = MLPDiskClassifier(random_state=0).fit(*IRIS)
    known = {*dir(clf), "EpochScoring", "max"}
    for old, new in read_table(f"coming_from_{library}.md"):
        names = list_names(old if new.strip() == "the same" else new)
        names = {re.split(r"__|\.", name)[0] for name in names}
        assert names <= known, f"{old}: {names - known}"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"])
def test_links_into_the_repository_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / page).read_text())
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("cls", [MLPDiskClassifier, MLPDiskEnsemble])
def test_the_html_representation_links_to_the_page_of_the_class(cls, monkeypatch):
    urls = ["Source, https://host/code", "Documentation, https://host/site/"]
    monkeypatch.setattr(cls, "_doc_link_template", make_link_template(urls))
    page = f"api/skdisk.{cls.__name__}"
    assert f"https://host/site/{page}.html" in cls()._repr_html_()
    assert (ROOT / "docs" / f"{page}.rst").exists()


def test_there_is_no_link_without_an_address():
    assert make_link_template(["Source, https://host/code"]) == ""
