"""Looking at a fit: `LossCurveDisplay`."""

import sys
import warnings

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import EpochScoring, LRScheduler

from skdisk import LossCurveDisplay

plt = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(autouse=True)
def close_figures():
    plt.switch_backend("Agg")
    yield
    plt.close("all")


@pytest.fixture
def clf(make_clf, disk):
    return make_clf().fit(*disk)


@pytest.fixture
def validated(make_clf, disk):
    """Fit a classifier with validation, the loss of which is lowest in the first epoch."""
    X, y = disk
    return make_clf().fit(X, y, X_val=X, y_val=1 - y)


def read_legend(display):
    return [text.get_text() for text in display.ax_.get_legend().get_texts()]


def find_names(estimators):
    return LossCurveDisplay.from_estimator(estimators).name


def test_the_training_loss_is_drawn(clf):
    display = LossCurveDisplay.from_estimator(clf)
    (line,) = display.lines_
    np.testing.assert_array_equal(line.get_xdata(), clf.history_["epoch"])
    np.testing.assert_array_equal(line.get_ydata(), clf.history_["train_loss"])
    assert display.ax_.get_xlabel() == "epoch"
    assert display.ax_.get_ylabel() == "mean loss (nats)"
    assert display.figure_ is display.ax_.figure
    assert display.markers_ == []
    assert read_legend(display) == ["training"]


def test_the_validation_loss_is_dashed_and_its_best_epoch_marked(validated):
    display = LossCurveDisplay.from_estimator(validated)
    train, valid = display.lines_
    np.testing.assert_array_equal(valid.get_xdata(), validated.history_["epoch"])
    np.testing.assert_array_equal(valid.get_ydata(), validated.history_["valid_loss"])
    assert (train.get_linestyle(), valid.get_linestyle()) == ("-", "--")
    assert train.get_color() == valid.get_color()
    (marker,) = display.markers_
    assert marker.get_xydata().tolist() == [[validated.best_epoch_, validated.best_loss_]]
    assert read_legend(display) == ["training", "validation", "best epoch"]


def test_losses_may_be_columns_of_the_history(validated):
    history = validated.history_.set_index("epoch")
    losses = {name: [history[name]] for name in ("train_loss", "valid_loss")}
    (marker,) = LossCurveDisplay(**losses, best_epoch=[validated.best_epoch_]).plot().markers_
    assert marker.get_xydata().tolist() == [[validated.best_epoch_, validated.best_loss_]]


@pytest.mark.parametrize(
    ("lists", "match"),
    [
        ({"best_epoch": [3]}, "best_epoch must have an epoch from 1 to 2, or None.* Got 3"),
        ({"best_epoch": [0]}, "best_epoch must have .* Got 0"),
        ({"best_epoch": [1.0]}, "best_epoch must have .* Got 1.0"),
        ({"valid_loss": [[0.6]]}, r"valid_loss must have a curve .* \(1,\) beside 2 epochs"),
        ({"valid_loss": [0.6]}, r"valid_loss must have a curve .* Got one of shape \(\)"),
    ],
)
def test_epochs_that_are_not_there_are_refused(lists, match):
    lists = {"train_loss": [[0.7, 0.5]], "valid_loss": [[0.7, 0.6]]} | lists
    with pytest.raises(ValueError, match=match):
        LossCurveDisplay(**lists).plot()


def test_no_epoch_is_marked_where_the_last_training_had_no_validation(validated, disk):
    display = LossCurveDisplay.from_estimator(validated.partial_fit(*disk), name="both")
    assert [len(line.get_xdata()) for line in display.lines_] == [4, 4]
    assert display.markers_ == []
    assert read_legend(display) == ["both", "training", "validation"]


def test_several_fits_share_a_picture(make_clf, disk, validated):
    slow = make_clf(lr=0.01, max_epochs=5).fit(*disk)
    display = LossCurveDisplay.from_estimator([slow, validated])
    assert [len(line.get_xdata()) for line in display.lines_] == [5, 3, 3]
    colors = [line.get_color() for line in display.lines_]
    assert colors[0] != colors[1] == colors[2]
    assert display.name == ["lr=0.01, max_epochs=5", "lr=0.1, max_epochs=3"]
    assert read_legend(display) == [*display.name, "training", "validation", "best epoch"]


@pytest.mark.parametrize("n_fits", [2, 10, 11, 30])
def test_every_fit_has_a_colour_of_its_own(n_fits):
    display = LossCurveDisplay(train_loss=[[0.7, 0.5]] * n_fits).plot()
    assert (
        len({plt.matplotlib.colors.to_hex(line.get_color()) for line in display.lines_}) == n_fits
    )


def test_the_legend_of_many_fits_covers_no_curve():
    names = [f"hidden_layer_sizes=({n}, {n}), lr=0.001" for n in range(40)]
    display = LossCurveDisplay(train_loss=[[0.7, 0.5]] * 40, name=names).plot()
    display.figure_.draw_without_rendering()
    legend = display.ax_.get_legend().get_window_extent()
    assert display.ax_.get_window_extent().x1 <= legend.x0
    assert display.figure_.bbox.x1 >= legend.x1
    assert legend.y0 >= 0


@pytest.mark.parametrize(
    ("params", "names"),
    [
        ([{"lr": 0.1}, {"lr": 0.2}], ["lr=0.1", "lr=0.2"]),
        (
            [{"activation": "tanh"}, {"hidden_layer_sizes": (4, 4)}],
            [
                "activation=tanh, hidden_layer_sizes=(8,)",
                "activation=relu, hidden_layer_sizes=(4, 4)",
            ],
        ),
        ([{}, {}], ["fit 1", "fit 2"]),
        ([{}, {}, {"lr": 0.2}], ["fit 1, lr=0.1", "fit 2, lr=0.1", "fit 3, lr=0.2"]),
        (
            [{}, {"lr_schedule": LRScheduler("StepLR", step_size=1)}],
            ["lr_schedule=constant", "lr_schedule=LRScheduler"],
        ),
        ([{}, {"optimizer": torch.optim.Adagrad}], ["optimizer=sgd", "optimizer=Adagrad"]),
        ([{"callbacks": [EpochScoring("accuracy")]} for _ in range(2)], ["fit 1", "fit 2"]),
    ],
    ids=["a number", "two parameters", "nothing", "not all", "an object", "a class", "callbacks"],
)
def test_fits_are_named_by_what_differs(make_clf, disk, params, names):
    assert find_names([make_clf(**own).fit(*disk) for own in params]) == names


def test_long_names_are_cut(make_clf, disk):
    many = {"activation": "tanh", "batch_size": 16, "max_epochs": 2, "momentum": 0.9}
    names = find_names([make_clf(**own).fit(*disk) for own in (many, {})])
    assert names[0] == "activation=tanh, batch_size=16, max_epochs=2, ..."


def test_given_names_are_used(clf, validated):
    display = LossCurveDisplay.from_estimator([clf, validated], name=["one", "two"])
    assert read_legend(display)[:2] == ["one", "two"]
    assert read_legend(LossCurveDisplay.from_estimator(clf, name="one")) == ["one", "training"]


def test_pipelines_and_searches_are_looked_into(make_clf, disk):
    pipeline = make_pipeline(StandardScaler(), make_clf()).fit(*disk)
    grid = {"mlpdiskclassifier__lr": [1e-6, 0.3]}
    search = GridSearchCV(pipeline, grid, scoring="neg_log_loss", cv=2).fit(*disk)
    display = LossCurveDisplay.from_estimator([pipeline, search])
    curves = [line.get_ydata().tolist() for line in display.lines_]
    assert curves == [pipeline[-1].loss_curve_, search.best_estimator_[-1].loss_curve_]
    assert display.name == ["lr=0.1", "lr=0.3"]


def test_the_folds_of_a_cross_validation_are_numbered(make_clf, disk):
    folds = cross_validate(make_clf(), *disk, cv=3, return_estimator=True)["estimator"]
    assert find_names(folds) == ["fit 1", "fit 2", "fit 3"]


def test_given_axes_are_drawn_on(clf, validated):
    figure, ax = plt.subplots()
    first = LossCurveDisplay.from_estimator(clf, ax=ax, name="one")
    second = LossCurveDisplay.from_estimator(validated, ax=ax, name="two")
    assert first.ax_ is second.ax_ is ax
    assert second.figure_ is figure
    assert plt.get_fignums() == [figure.number]
    assert first.lines_[0].get_color() != second.lines_[0].get_color()
    assert read_legend(second) == ["one", "two", "training", "validation", "best epoch"]


def test_the_scale_of_the_loss_is_chosen(clf):
    display = LossCurveDisplay.from_estimator(clf, log=True)
    assert display.ax_.get_yscale() == "log"
    display.figure_.draw_without_rendering()
    labels = [float(label.get_text()) for label in display.ax_.get_yticklabels(which="both")]
    low, high = display.ax_.get_ylim()
    assert sum(low <= label <= high for label in labels) >= 2
    assert LossCurveDisplay.from_estimator(clf).ax_.get_yscale() == "linear"


def test_curve_kwargs_style_the_lines_of_a_fit(clf, validated):
    display = LossCurveDisplay.from_estimator(
        [clf, validated], curve_kwargs=[{}, {"c": "red", "lw": 3}]
    )
    looks = [(line.get_color(), line.get_linewidth()) for line in display.lines_]
    assert looks[1:] == [("red", 3), ("red", 3)]
    assert looks[0] != looks[1]
    assert display.lines_[2].get_linestyle() == "--"
    display.plot(curve_kwargs={"alpha": 0.5})
    assert [line.get_alpha() for line in display.lines_] == [0.5] * 3


def test_a_single_epoch_can_be_seen(make_clf, disk):
    display = LossCurveDisplay.from_estimator(make_clf(max_epochs=1).fit(*disk))
    assert display.lines_[0].get_marker() == "."
    low, high = display.ax_.get_xlim()
    assert [tick for tick in display.ax_.get_xticks() if low <= tick <= high] == [1]


def test_a_fit_that_diverged_at_once_has_an_empty_curve(make_clf, disk):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        clf = make_clf(lr=1e38).fit(*disk)
    assert clf.n_iter_ == 0
    display = LossCurveDisplay.from_estimator(clf, log=True)
    display.figure_.draw_without_rendering()
    assert len(display.lines_[0].get_xdata()) == 0


@pytest.mark.parametrize(
    ("wrap", "match"),
    [
        (lambda clf: clf, "MLPDiskClassifier instance is not fitted"),
        (lambda clf: make_pipeline(StandardScaler(), clf), "instance is not fitted"),
        (
            lambda clf: GridSearchCV(clf, {}),
            "This GridSearchCV has no best_estimator_. Call 'fit'",
        ),
    ],
    ids=["classifier", "pipeline", "search"],
)
def test_what_is_not_fitted_is_refused(make_clf, wrap, match):
    with pytest.raises(NotFittedError, match=match):
        LossCurveDisplay.from_estimator(wrap(make_clf()))


def test_a_search_without_refit_is_refused(make_clf, disk):
    search = GridSearchCV(make_clf(), {}, cv=2, refit=False).fit(*disk)
    with pytest.raises(NotFittedError, match="with refit=True"):
        LossCurveDisplay.from_estimator(search)


@pytest.mark.parametrize(
    ("other", "got"),
    [
        (LogisticRegression(), r"LogisticRegression\(\)"),
        (make_pipeline(StandardScaler(), "passthrough"), r"Pipeline\("),
        (Pipeline([]), r"Pipeline\(steps=\[\]\)"),
        ("clf", "'clf'"),
    ],
    ids=["another classifier", "a pipeline of others", "a pipeline of nothing", "a string"],
)
def test_what_has_no_loss_curve_is_refused(clf, other, got):
    expected = f"must be a fitted MLPDiskClassifier, a pipeline that ends in one, .* Got {got}"
    for estimator in (other, [clf, other]):
        with pytest.raises(TypeError, match=f"(?s){expected}"):
            LossCurveDisplay.from_estimator(estimator)


def test_an_empty_list_is_refused():
    with pytest.raises(ValueError, match="Got an empty list"):
        LossCurveDisplay.from_estimator([])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"name": ["one"]}, r"name must be a list .* of which there are 2. Got \['one'\]"),
        ({"name": "one"}, "name must be a list with one item for each fit"),
        ({"curve_kwargs": [{}] * 3}, "curve_kwargs must be a list with one item for each fit"),
    ],
    ids=["too few names", "one name", "too many styles"],
)
def test_lists_have_an_item_for_each_fit(clf, options, match):
    with pytest.raises(ValueError, match=match):
        LossCurveDisplay.from_estimator([clf, clf], **options)
    assert plt.get_fignums() == []


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"ax": "ax"}, TypeError, "ax must be matplotlib Axes or None. Got 'ax'"),
        ({"ax": Figure()}, TypeError, "ax must be matplotlib Axes or None. Got <Figure"),
        ({"log": np.array([1, 2])}, TypeError, r"log must be a bool. Got array\(\[1, 2\]\)"),
        ({"log": "no"}, TypeError, "log must be a bool. Got 'no'"),
        ({"name": 3}, ValueError, "name must be a list with one item for each fit.* Got 3"),
        ({"name": np.array(0.5)}, ValueError, "name must be a list with one item"),
        ({"name": [3]}, TypeError, r"name must have a str or None for each fit. Got \[3\]"),
        ({"curve_kwargs": 3}, ValueError, "curve_kwargs must be a list with one item"),
        ({"curve_kwargs": [None]}, TypeError, "curve_kwargs must have a dict for each fit"),
        ({"curve_kwargs": {1: 2}}, ValueError, "curve_kwargs must be what matplotlib's plot"),
        ({"curve_kwargs": {"x": 2}}, ValueError, r"curve_kwargs must .* Got {'x': 2}: .*'x'"),
        ({"curve_kwargs": {"alpha": 3}}, ValueError, "curve_kwargs must be what .* outside 0-1"),
    ],
    ids=str,
)
def test_what_matplotlib_cannot_draw_is_refused_by_name(clf, options, error, match):
    ax = Figure().add_subplot()
    with pytest.raises(error, match=match):
        LossCurveDisplay.from_estimator(clf, **{"ax": ax} | options)


def test_a_curve_that_is_not_in_a_list_is_refused():
    with pytest.raises(
        ValueError, match=r"train_loss must be a list of curves.* Got \[0.7, 0.5\]"
    ):
        LossCurveDisplay(train_loss=[0.7, 0.5]).plot()


@pytest.mark.parametrize("module", ["matplotlib", "matplotlib.pyplot"])
def test_without_matplotlib_it_says_what_to_install(clf, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"pip install 'skdisk\[plot\]'"):
        LossCurveDisplay.from_estimator(clf)
