"""Several labels a row: a sigmoid for each, from a matrix of 0 and 1 to predictions and files."""

import copy
import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import skops.io as sio
import torch
from scipy import sparse
from scipy.special import expit, log_expit
from sklearn.base import clone
from sklearn.datasets import make_multilabel_classification
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale
from skorch.callbacks import BatchScoring, Callback, EpochScoring
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from skdisk import MLPDiskClassifier, MLPDiskEnsemble
from skdisk._network.mlp import ACTIVATIONS, OUTPUTS
from skdisk._training.net import DiskNet, MultilabelLoss

X, Y = make_multilabel_classification(150, 5, n_classes=4, random_state=0)
X = scale(X)
X.flags.writeable = Y.flags.writeable = False
WEIGHTS = np.random.RandomState(0).exponential(size=150)


def compute_losses(y, log_odds):
    """Compute the loss of each row: the sum over its labels of binary cross-entropies."""
    return -log_expit(np.where(y, log_odds, -log_odds)).sum(axis=1)


def test_weights_are_those_of_a_plain_autograd_loop(make_clf, get_weights, train_by_hand, fused):
    targets = torch.tensor(Y, dtype=torch.float32)
    weights = torch.tensor(WEIGHTS / WEIGHTS.mean(), dtype=torch.float32)

    def compute_loss(scores, rows):
        losses = binary_cross_entropy_with_logits(scores, targets[rows], reduction="none")
        return (weights[rows] * losses.sum(dim=1)).mean()

    module, losses = train_by_hand([5, 16, 8, 4], X, compute_loss, momentum=0.9)
    params = {"activation": "tanh", "lr": 0.05, "momentum": 0.9, "max_epochs": 5, "fused": fused}
    clf = make_clf(hidden_layer_sizes=(16, 8), **params).fit(X, Y, WEIGHTS)
    assert clf.fused_ == fused
    for ours, theirs in zip(get_weights(clf), module.parameters(), strict=True):
        np.testing.assert_allclose(ours, theirs.detach(), atol=1e-4)
    np.testing.assert_allclose(clf.loss_curve_, losses, atol=1e-5)


@pytest.mark.needs_kernel
@pytest.mark.parametrize("seed", range(12))
@pytest.mark.filterwarnings("ignore:max_epochs=5 ended")
def test_both_ways_give_the_same_for_drawn_settings(make_clf, get_weights, seed):
    rng = np.random.RandomState(seed)
    optimizer, lr, momentum = [("sgd", 0.05, 0.9), ("adam", 0.01, 0), ("adamw", 0.01, 0)][seed % 3]
    params = {
        "optimizer": optimizer,
        "lr": lr,
        "momentum": momentum,
        "activation": rng.choice(sorted(ACTIVATIONS)),
        "hidden_layer_sizes": rng.randint(1, 30, rng.randint(4)).tolist(),
        "batch_size": int(rng.choice([7, 32, 100])),
        "dropout": float(rng.choice([0, 0.3])),
        "weight_decay": float(rng.choice([0, 0.01])),
        "clip_grad_norm": [None, 0.5][rng.randint(2)],
        "early_stopping": bool(rng.randint(2)),
        "max_epochs": 5,
    }
    y, weights = Y[:, : rng.randint(2, 5)], WEIGHTS if rng.randint(2) else None
    ours, theirs = (make_clf(fused=fused, **params).fit(X, y, weights) for fused in (True, False))
    for own, expected in zip(get_weights(ours), get_weights(theirs), strict=True):
        np.testing.assert_allclose(own, expected, atol=1e-4)
    columns = [name for name in ours.history_ if name != "seconds"]
    pd.testing.assert_frame_equal(ours.history_[columns], theirs.history_[columns], atol=1e-4)


@pytest.mark.parametrize("hidden_layer_sizes", [(), (8,)])
def test_predictions_are_a_sigmoid_of_each_score(make_clf, hidden_layer_sizes):
    clf = make_clf(hidden_layer_sizes=hidden_layer_sizes).fit(X, Y)
    log_odds = clf.decision_function(X)
    with torch.no_grad():
        scores = clf.module_(torch.tensor(X, dtype=torch.float32))
    np.testing.assert_allclose(log_odds, scores, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(clf.predict_proba(X), expit(log_odds), rtol=1e-14)
    np.testing.assert_allclose(clf.predict_log_proba(X), log_expit(log_odds), rtol=1e-14)
    np.testing.assert_array_equal(clf.predict(X), log_odds > 0)
    assert {a.dtype for a in (log_odds, clf.predict_proba(X))} == {np.dtype(np.float64)}
    assert clf.predict(X).dtype == Y.dtype
    assert clf.predict(X[:1]).shape == (1, 4)
    for weights in (None, WEIGHTS):
        score = accuracy_score(Y, clf.predict(X), sample_weight=weights)
        assert clf.score(X, Y, weights) == pytest.approx(score)


def test_attributes_are_those_of_scikit_learns_own(make_clf):
    clf, own = make_clf().fit(X, Y), MLPClassifier((8,)).partial_fit(X, Y, classes=range(4))
    np.testing.assert_array_equal(clf.classes_, own.classes_, strict=True)
    assert clf.predict(X).dtype == own.predict(X).dtype
    assert clf.__sklearn_tags__().classifier_tags == own.__sklearn_tags__().classifier_tags


@pytest.mark.parametrize("fused", ["auto", False])
def test_losses_are_sums_over_labels_and_scores_count_rows_that_are_right(make_clf, fused):
    clf = make_clf(lr=1e-30, fused=fused).fit(X, Y, WEIGHTS, X_val=X[:40], y_val=Y[:40])
    losses = compute_losses(Y, clf.decision_function(X))
    assert clf.loss_curve_ == pytest.approx([np.average(losses, weights=WEIGHTS)] * 3, rel=1e-5)
    assert clf.validation_loss_curve_ == pytest.approx([losses[:40].mean()] * 3, rel=1e-5)
    assert clf.validation_score_curve_ == pytest.approx([clf.score(X[:40], Y[:40])] * 3)


@pytest.mark.parametrize("fused", ["auto", False])
@pytest.mark.parametrize(
    "make", [lambda clf: clf, lambda clf: MLPDiskEnsemble(clf, 2, random_state=0)]
)
def test_logarithms_and_log_odds_keep_their_digits_far_away(make_clf, make, fused):
    model = make(make_clf(fused=fused)).fit(X, Y)
    for factor in (1e3, 1e20, 1e37, 2e37):
        rows = X * factor
        log_odds, log_proba = model.decision_function(rows), model.predict_log_proba(rows)
        assert np.isfinite(log_odds).all()
        assert np.isfinite(log_proba).all()
        np.testing.assert_allclose(log_proba, log_expit(log_odds), rtol=1e-12, atol=1e-300)
        np.testing.assert_array_equal(model.predict(rows), log_odds > 0)
    rows = X * 200
    confident = model.predict_proba(rows) > 1 - 1e-10
    assert confident.any()
    np.testing.assert_allclose(
        model.predict_log_proba(rows)[confident],
        -np.exp(-model.decision_function(rows)[confident]),
        rtol=1e-9,
    )


FORMS = {
    "bools": Y.astype(bool),
    "bytes": Y.astype(np.uint8),
    "float32": Y.astype(np.float32),
    "longdouble": Y.astype(np.longdouble),
    "objects": Y.astype(object),
    "by columns": np.asfortranarray(Y),
    "big endian": Y.astype(">i4"),
    "lists": Y.tolist(),
    "list of arrays": list(Y),
    "frame": pd.DataFrame(Y, columns=[*"abcd"]),
    "frame of several dtypes": pd.DataFrame(Y).astype({0: bool, 1: float, 2: "Int8"}),
    "frame of nullable bools": pd.DataFrame(Y).astype("boolean"),
    "polars": pl.DataFrame(Y),
    "CSR": sparse.csr_matrix(Y),
    "CSC of bools": sparse.csc_array(Y.astype(bool)),
    "COO": sparse.coo_array(Y),
    "LIL": sparse.lil_matrix(Y),
    "tensor": torch.tensor(Y),
    "tensor of bfloat16": torch.tensor(Y).bfloat16(),
}


@pytest.mark.parametrize("y", FORMS.values(), ids=FORMS)
def test_labels_may_have_any_form(make_clf, get_weights, y):
    clf = make_clf(max_epochs=1)
    expected = get_weights(clf.fit(X, Y))
    score = clf.score(X, Y)
    assert all(map(np.array_equal, get_weights(clf.fit(X, y, X_val=X, y_val=y)), expected))
    assert clf.score(X, y) == score == clf.validation_score_curve_[0]
    assert type(clf.predict(X)) is np.ndarray


def test_lbfgs_finds_the_minimum_of_each_label(make_clf):
    """Without a hidden layer the labels have nothing in common."""
    clf = make_clf(hidden_layer_sizes=(), optimizer="lbfgs", weight_decay=0.01, max_epochs=30)
    together = clf.fit(X, Y).predict_proba(X)
    halves = [clf.fit(X, half).predict_proba(X) for half in (Y[:, :2], Y[:, 2:])]
    np.testing.assert_allclose(together, np.hstack(halves), atol=2e-3)


def test_hidden_activations_are_those_of_the_network(make_clf):
    clf = make_clf().fit(X, Y)
    hidden = clf.hidden_activations(X)
    log_odds = hidden @ clf.coefs_[1] + clf.intercepts_[1]
    np.testing.assert_allclose(log_odds, clf.decision_function(X), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("fused", ["auto", False])
def test_labels_that_all_rows_have_or_none_has(make_clf, fused):
    y = Y.copy()
    y[:, 0], y[:, 1] = 0, 1
    clf = make_clf(fused=fused, momentum=0.9, max_epochs=40).fit(X, y)
    assert clf.predict(X)[:, :2].tolist() == [[0, 1]] * 150
    for same in (np.zeros((150, 2)), np.ones((150, 3), dtype=bool)):
        clf.fit(X, same)
        np.testing.assert_array_equal(clf.predict(X), same)
        assert clf.score(X, same) == 1


def test_a_column_is_one_label_a_row(make_clf):
    with pytest.warns(UserWarning, match="A column-vector y was passed"):
        clf = make_clf().fit(X, Y[:, :1])
    assert clf.predict(X).shape == (150,)
    assert clf.predict_proba(X).shape == (150, 2)


OTHER_KINDS = {
    "fit goes on": (lambda clf: clf.set_params(warm_start=True).fit(X, Y[:, 0]), "earlier fit"),
    "partial_fit goes on": (lambda clf: clf.partial_fit(X, Y[:, 0]), "earlier fit"),
    "validation": (lambda clf: clf.fit(X, Y, X_val=X, y_val=Y[:, 0]), "y_val has one label"),
    "score": (lambda clf: clf.score(X, Y[:, 0]), "that of the fit had a matrix of 0 and 1"),
    "score of a column": (lambda clf: clf.score(X, Y[:, :1]), "that of the fit had a matrix"),
    "other columns in score": (lambda clf: clf.score(X, Y[:, :3]), r"y has 3 columns.*\[0, 1, 2"),
    "other columns": (lambda clf: clf.partial_fit(X, Y[:, :3]), "y has 3 columns, one for each"),
    "other columns to validate on": (
        lambda clf: clf.fit(X, Y, X_val=X, y_val=Y[:, :2]),
        r"y_val has 2 columns, .* here np\.arange\(2\)",
    ),
    "columns where there were none": (
        lambda clf: clf.fit(X, Y[:, 0]).partial_fit(X, Y[:, :2]),
        "y has a matrix of 0 and 1 for several labels a row; that of the earlier fit had one lab",
    ),
    "columns to score where there were none": (
        lambda clf: clf.fit(X, Y[:, 0]).score(X, Y),
        "y has a matrix .* had one label for each row. Give the same",
    ),
    "columns to validate on": (
        lambda clf: clf.fit(X, Y[:, 0], X_val=X, y_val=Y),
        "y_val has a matrix .* y has one label for each row",
    ),
    "rows": (lambda clf: clf.fit(X, Y[:-1]), r"inconsistent numbers of samples: \[150, 149\]"),
    "classes": (
        lambda clf: clone(clf).partial_fit(X, Y, classes=[0, 1]),
        r"y has 4 columns, .*the classes are \[0, 1\]. .* here np\.arange\(4\)",
    ),
    "no classes": (lambda clf: clone(clf).partial_fit(X, Y), "classes must be passed on the fir"),
    "classes of rows": (
        lambda clf: clone(clf).partial_fit(X, Y, classes=Y),
        "classes must be a list of all labels",
    ),
    "class_weight": (
        lambda clf: clf.set_params(class_weight="balanced").fit(X, Y),
        "class_weight='balanced' is for rows of one label each.*MultiOutputClassifier",
    ),
    "weights of classes": (
        lambda clf: clf.set_params(class_weight={0: 1, 1: 2, 2: 1, 3: 1}).partial_fit(X, Y),
        "class_weight={0: 1, 1: 2, 2: 1, 3: 1} is for rows of one label each",
    ),
}


@pytest.mark.parametrize(("call", "match"), OTHER_KINDS.values(), ids=OTHER_KINDS)
def test_what_does_not_fit_is_refused_in_words(make_clf, call, match):
    with pytest.raises(ValueError, match=match):
        call(make_clf().fit(X, Y))


@pytest.mark.parametrize("fused", ["auto", False])
def test_early_stopping_holds_out_a_share_of_all_rows(make_clf, get_weights, fused):
    """Rare labels are not looked for, as in scikit-learn's own."""
    params = {"early_stopping": True, "validation_fraction": 0.2, "n_iter_no_change": 50}
    clf = make_clf(fused=fused, max_epochs=6, **params)
    clf.fit(X, Y)
    assert clf.net_.history[-1]["train_batch_count"] == -(-120 // 32)
    assert clf.best_epoch_ == np.argmin(clf.validation_loss_curve_) + 1
    again = make_clf(fused=fused, max_epochs=6, **params).fit(X, Y)
    assert all(map(np.array_equal, get_weights(clf), get_weights(again)))


def test_whole_weights_are_repetitions(make_clf, get_weights):
    weights = np.arange(150) % 3
    repeated = np.repeat(np.arange(150), weights)
    params = {"batch_size": 200, "dropout": 0.2, "early_stopping": True, "n_iter_no_change": 50}
    weighted = make_clf(**params).fit(X, Y, weights)
    plain = make_clf(**params).fit(X[repeated], Y[repeated])
    for ours, theirs in zip(get_weights(weighted), get_weights(plain), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_training_goes_on(make_clf, get_weights, fused):
    whole = make_clf(fused=fused, momentum=0.9, max_epochs=6).fit(X, Y)
    parts = make_clf(fused=fused, momentum=0.9, warm_start=True).fit(X, Y).fit(X, Y)
    calls = make_clf(fused=fused, momentum=0.9)
    for number in range(6):
        calls.partial_fit(X, Y, classes=np.arange(4) if number % 2 == 0 else None)
    for clf in (parts, calls):
        assert all(map(np.array_equal, get_weights(clf), get_weights(whole)))
    # Labels that no row has this time are still there.
    assert calls.partial_fit(X[:50], np.zeros((50, 4))).n_iter_ == 7


KEPT = {
    "pickle": lambda clf, path: pickle.loads(pickle.dumps(clf)),
    "copy": lambda clf, path: copy.deepcopy(clf),
    "skops": lambda clf, path: sio.loads(sio.dumps(clf), ["skdisk._classifier.MLPDiskClassifier"]),
    "file": lambda clf, path: (clf.save(path), MLPDiskClassifier.load(path))[1],
}


@pytest.mark.parametrize("has_net", [False, True])
@pytest.mark.parametrize("keep", KEPT.values(), ids=KEPT)
def test_what_is_kept_comes_back_and_goes_on(make_clf, get_weights, tmp_path, keep, has_net):
    clf = make_clf(momentum=0.9).fit(X, Y)
    assert not has_net or isinstance(clf.net_, DiskNet)
    kept = keep(clf, tmp_path / "clf.safetensors")
    np.testing.assert_array_equal(kept.predict_log_proba(X), clf.predict_log_proba(X))
    np.testing.assert_array_equal(kept.classes_, clf.classes_, strict=True)
    for each in (clf, kept):
        each.partial_fit(X, Y)
    assert all(map(np.array_equal, get_weights(kept), get_weights(clf)))


def test_a_plain_network_of_torch_ends_in_a_sigmoid(make_clf):
    clf = make_clf().fit(X, Y)
    for network in (clf.to_torch(), clf.net_ and clf.to_torch()):
        assert type(network[-1]) is nn.Sigmoid
        proba = network(torch.tensor(X, dtype=torch.float32))
        np.testing.assert_allclose(proba, clf.predict_proba(X), atol=1e-6)


@pytest.mark.parametrize("output", OUTPUTS)
def test_the_net_of_skorch_knows_what_a_row_is(make_clf, output):
    y = Y if output == "sigmoid" else Y[:, 0]
    clf = make_clf().fit(X, y)
    net, rows = clf.net_, X.astype("f4")
    np.testing.assert_array_equal(net.predict(rows), clf.predict(X))
    np.testing.assert_allclose(net.predict_proba(rows), clf.predict_proba(X), atol=1e-6)
    assert net.score(rows, y) == clf.score(X, y)
    targets = y.astype("f4" if output == "sigmoid" else int)
    for batch in (targets, targets.astype(int)):
        loss = net.get_loss(net.forward(rows), torch.tensor(batch))
        log_odds = clf.decision_function(X)
        expected = compute_losses(y.reshape(150, -1), log_odds.reshape(150, -1)).mean()
        assert loss.item() == pytest.approx(expected, rel=1e-5)
    n_epochs = len(net.history)
    assert len(net.partial_fit(rows, targets).history) > n_epochs


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_the_loss_is_that_of_torch_summed_up_over_labels(reduction):
    z, y = torch.tensor(X[:, :4], requires_grad=True), torch.tensor(Y)
    options = {"weight": torch.rand(4), "pos_weight": torch.rand(4)}
    losses = nn.BCEWithLogitsLoss(reduction="none", **options)(z, y.double()).sum(dim=1)
    expected = {"mean": losses.mean(), "sum": losses.sum(), "none": losses}[reduction]
    loss = MultilabelLoss(reduction=reduction, **options)(z, y)
    torch.testing.assert_close(loss, expected)


@pytest.mark.needs_kernel
def test_another_loss_is_a_reason_for_skorchs_loop(make_clf):
    class WeighLabels(Callback):
        def on_train_begin(self, net, **kwargs):
            net.criterion_.pos_weight = torch.tensor([9.0] * 4)

    clf = make_clf(callbacks=[WeighLabels()], max_epochs=30)
    plain = make_clf(max_epochs=30).fit(X, Y)
    for weights in (None, WEIGHTS):
        clf.fit(X, Y, weights)
        assert clf.fused_reason_.startswith("the criterion has weights or a reduction")
        assert clf.predict(X).mean() > plain.predict(X).mean() + 0.1

    class OtherLoss(Callback):
        def on_train_begin(self, net, **kwargs):
            net.criterion_ = nn.NLLLoss()

    with pytest.raises(ValueError, match="criterion is NLLLoss, not skdisk's own MultilabelLoss"):
        make_clf(callbacks=[OtherLoss()], fused=True).fit(X, Y)


@pytest.mark.parametrize("use_caching", [True, False])
def test_callbacks_see_a_matrix(make_clf, use_caching):
    options = {"use_caching": use_caching, "on_train": True}
    callbacks = [
        EpochScoring("accuracy", name="exact", **options),
        EpochScoring("f1_samples", name="f1", **options),
        BatchScoring("accuracy", name="of_batch", on_train=True),
    ]
    y = np.c_[Y, np.ones(150)]
    clf = make_clf(callbacks=callbacks).fit(X, y)
    assert clf.history_["f1"].between(0, 1).all()
    assert clf.history_["of_batch"].between(0, 1).all()
    if not use_caching:
        assert clf.history_["exact"].iloc[-1] == clf.score(X, y)


def test_a_module_that_somebody_looks_into_computes_itself(make_clf):
    clf = make_clf().fit(X, Y)
    expected = [clf.predict(X), clf.predict_log_proba(X), clf.decision_function(X)]
    clf.module_.layers[0].register_forward_hook(lambda *args: None)
    found = [clf.predict(X), clf.predict_log_proba(X), clf.decision_function(X)]
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_an_ensemble_averages_probabilities(make_clf):
    members = [make_clf(), make_pipeline(StandardScaler(), make_clf(max_epochs=5))]
    ensemble = MLPDiskEnsemble(members, 3, random_state=0).fit(X, Y)
    mean = np.mean([member.predict_proba(X) for member in ensemble.estimators_], axis=0)
    np.testing.assert_allclose(ensemble.predict_proba(X), mean, rtol=1e-12)
    np.testing.assert_allclose(ensemble.predict_log_proba(X), np.log(mean), rtol=1e-9)
    np.testing.assert_allclose(ensemble.decision_function(X), np.log(mean / (1 - mean)), 1e-9)
    np.testing.assert_array_equal(ensemble.predict(X), mean > 0.5)
    assert ensemble.score(X, Y) == accuracy_score(Y, mean > 0.5)
    assert ensemble.classes_.tolist() == [0, 1, 2, 3]


def test_an_ensemble_of_a_search_is_chosen_by_the_loss_of_rows(make_clf):
    grid = {"lr": [1e-4, 0.03, 0.1, 0.3]}
    search = GridSearchCV(make_clf(), grid, cv=3).fit(X, Y)
    held_out = [
        cross_val_predict(make_clf(lr=lr), X, Y, cv=3, method="predict_proba") for lr in grid["lr"]
    ]
    total, ensemble = 0, MLPDiskEnsemble.from_search(search, X, sparse.csr_array(Y), n_members=5)
    for n_chosen, member in enumerate(ensemble.estimator, start=1):
        means = [(total + proba) / n_chosen for proba in held_out]
        losses = [compute_losses(Y, np.log(mean / (1 - mean))).mean() for mean in means]
        assert losses[grid["lr"].index(member.lr)] == pytest.approx(min(losses))
        total = total + held_out[grid["lr"].index(member.lr)]
    assert ensemble.predict(X).shape == (150, 4)


def test_searches_and_pipelines_score_rows(make_clf):
    pipeline = make_pipeline(StandardScaler(), make_clf(max_epochs=20, momentum=0.9))
    grid = {"mlpdiskclassifier__lr": [1e-5, 0.1]}
    for scoring in (None, "f1_micro", "roc_auc", "average_precision"):
        search = GridSearchCV(pipeline, grid, scoring=scoring, cv=3).fit(X, Y)
        assert search.best_params_ == {"mlpdiskclassifier__lr": 0.1}


def test_labels_are_learned_as_the_classifier_comes():
    rows = np.random.RandomState(0).uniform(-1, 1, (2000, 2))
    y = np.c_[rows > 0, rows.prod(axis=1) > 0, (rows**2).sum(axis=1) < 0.6]
    for seed in range(3):
        clf = MLPDiskClassifier(random_state=seed).fit(rows[:1000], y[:1000])
        assert clf.score(rows[1000:], y[1000:]) > 0.85
