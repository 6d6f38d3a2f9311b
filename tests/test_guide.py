"""Whoever comes from another library finds each of its names, and the new names are there."""

import importlib
import inspect
import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
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


@pytest.mark.parametrize("library", ["skops.io", "joblib"])
def test_a_pipeline_is_kept_with_its_scaler_as_the_guide_says(library, tmp_path, monkeypatch):
    X, y = IRIS
    pipeline = make_pipeline(StandardScaler(), MLPDiskClassifier(random_state=0)).fit(X, y)
    monkeypatch.chdir(tmp_path)
    pipeline[-1].save("last_step")
    alone = MLPDiskClassifier.load("last_step")
    _, rest = (GUIDE / "files.md").read_text().split("\n## Pipelines\n")
    blocks = re.findall("```python\n(.*?)```", rest.split("\n## ")[0], re.DOTALL)
    [code] = [block for block in blocks if block.startswith(f"import {library}")]
    names = {"pipeline": pipeline}
    exec(code, names)
    assert names["pipeline"] is not pipeline
    expected = pipeline.predict_proba(X)
    np.testing.assert_array_equal(names["pipeline"].predict_proba(X), expected)
    assert np.abs(alone.predict_proba(X.to_numpy()) - expected).max() > 0.5


@pytest.fixture
def figures(monkeypatch):
    """Import what makes the figures of the guide, as the build of the site does."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.syspath_prepend(ROOT / "docs")
    return importlib.import_module("figures")


def test_the_pages_show_all_figures_that_are_computed_and_no_others(figures):
    pages = "".join(path.read_text() for path in GUIDE.glob("*.md"))
    assert set(re.findall(r"{{ (\w+) }}", pages)) == figures.compute().keys()


def test_the_picture_of_the_wings_shows_what_there_is(figures):
    layout, picture = map(importlib.import_module, ("test_layout", "wings"))
    known = {folder: set(packages.split()) for folder, _, _, packages in picture.WINGS}
    assert [*known] == layout.WINGS[::-1]
    assert {folder: known[folder] for folder in layout.KNOWN} == layout.KNOWN
    assert all(path.name in picture.draw_wings() for path in layout.PACKAGE.rglob("[a-z]*.py"))


def test_the_ranges_to_search_are_those_that_were_measured(figures):
    page = (GUIDE / "parameters.md").read_text()
    [code] = re.findall(r"```python\n(>>> from scipy.+?)\n\n```", page, re.DOTALL)
    names = {}
    exec(re.sub(r"^(>>>|\.\.\.) ", "", code, flags=re.MULTILINE), names)
    ranges = importlib.import_module("tuning").RANGES
    given, measured = (
        {name: getattr(values, "args", values) for name, values in space.items()}
        for space in (names["space"], ranges)
    )
    assert given == measured


def test_the_advice_on_what_to_tune_is_what_was_measured(figures):
    page, (_, rows) = figures.tuning_page, figures.read("tuning")

    def find_gain(part, n=None):
        of_part = figures.select(rows, part)
        _, nats = page.choose_and_score(of_part, page.list_candidates(of_part)[:n])
        return -nats.mean()

    gains = {part: find_gain(part) for part in page.list_parameters(rows)}
    assert max(gains, key=gains.get) == "weight_decay"
    assert min(gains, key=gains.get) == "lr_schedule"
    others = {"lr": "lr=0.005", "hidden_layer_sizes": "hidden_layer_sizes=(16,)"}
    texts = figures.compute_tuning()
    for part, setting in others.items():
        losses = figures.make_grid(figures.select(rows, part), "log_loss")
        for table, loss in losses[setting].items():
            if f"*{table}*" in texts["decay_helps"]:
                assert loss < losses["defaults"][table]
            if f"*{table}*" in texts["decay_hurts"]:
                assert loss > losses["defaults"][table]
    searches = [find_gain(page.SEARCH, n + 1) for n in page.N_CANDIDATES]
    assert max(searches) < gains["weight_decay"] + 0.005


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
