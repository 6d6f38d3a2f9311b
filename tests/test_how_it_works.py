"""The page on how it works names what there is: functions, and all that the kernel cannot take."""

import ast
import importlib
import re
from functools import reduce
from pathlib import Path

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback, EpochScoring, Freezer, GradientNormClipping, LRScheduler
from torch.nn.modules import module as modules
from torch.optim import optimizer as optimizers

import skdisk
from skdisk import MLPDiskClassifier, make_disk
from skdisk._training import eligibility
from skdisk._training.batches import TensorBatches

PACKAGE = Path(skdisk.__file__).parent
PAGE = (PACKAGE.parent / "docs" / "guide" / "how_it_works.md").read_text()
NAMES = re.findall(r"`([\w/]+\.(?:py|c)):([\w.]+)`", PAGE)
REASONS = re.findall(r"^\| `(.+?)` \|", PAGE, re.MULTILINE)[1:]
X, Y = make_disk(300, random_state=0)


@pytest.mark.parametrize(("path", "name"), NAMES, ids=[":".join(pair) for pair in NAMES])
def test_a_name_of_the_page_is_there(path, name):
    if path.endswith(".c"):
        assert re.search(rf"^[\w *]+\b{name}\(", (PACKAGE / path).read_text(), re.MULTILINE)
    else:
        module = importlib.import_module("skdisk." + path.removesuffix(".py").replace("/", "."))
        assert callable(reduce(getattr, name.split("."), module))


def test_the_page_leads_through_all_wings():
    assert {path.rpartition("/")[0] for path, _ in NAMES} == {
        *("", "_inputs", "_training", "_network", "_kernel")
    }


def find_patterns():
    """Find all reasons that the source gives, as patterns: what is filled in may be anything."""
    tree = ast.parse(Path(eligibility.__file__).read_text())
    functions = [
        node for node in tree.body if getattr(node, "name", "").startswith(("_find", "find"))
    ]
    patterns = set()
    for function in functions:
        for statement in function.body:
            if not isinstance(statement, ast.Expr):
                patterns |= set(write_patterns(statement))
    # Other texts are names.
    return [pattern for pattern in patterns if re.search(r"\\ |=", pattern)]


def write_patterns(node):
    """Write all texts below a node of the source as patterns."""
    if isinstance(node, ast.JoinedStr):
        yield "".join(
            ".+" if isinstance(part, ast.FormattedValue) else re.escape(part.value)
            for part in node.values
        )
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield re.escape(node.value)
    else:
        for child in ast.iter_child_nodes(node):
            yield from write_patterns(child)


def test_the_page_has_all_reasons_and_no_others():
    patterns = find_patterns()
    for pattern in patterns:
        assert any(re.fullmatch(pattern, reason) for reason in REASONS), pattern
    for reason in REASONS:
        assert any(re.fullmatch(pattern, reason) for pattern in patterns), reason


class Do(Callback):
    """Does something with a net before its training."""

    def __init__(self, function):
        self.function = function

    def on_train_begin(self, net, **kwargs):
        self.function(net)


def fit(params=None, function=None):
    if function is not None:
        params = {"callbacks": [Do(function)]}
    defaults = {"hidden_layer_sizes": (8,), "max_epochs": 1, "random_state": 0}
    return MLPDiskClassifier(**defaults | (params or {})).fit(X, Y)


def change_a_layer(net):
    net.module_.layers[1] = torch.nn.Hardtanh()


def hook_the_module(net):
    net.module_.register_forward_hook(lambda *args: None)


def change_the_loss(net):
    class MSELoss(torch.nn.NLLLoss):
        pass

    net.criterion_ = MSELoss()


def weigh_the_loss(net):
    net.criterion_ = torch.nn.NLLLoss(weight=torch.ones(2))


def hook_the_optimizer(net):
    net.optimizer_.register_step_pre_hook(lambda *args: None)


def add_a_group(net):
    net.optimizer_.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))]})


def forget_a_parameter(net):
    net.optimizer_.param_groups[0]["params"].pop()


def set_a_method(net):
    net.train_step = net.train_step


def set_a_rate(net):
    net.optimizer_.param_groups[0]["lr"] = -0.1


def set_batches(net):
    net.iterator_train = lambda *args, **kwargs: list(TensorBatches(*args, **kwargs))


# What brings a reason of the page about, without the machine's part in it.
CAUSES = {
    "fused=False": {"params": {"fused": False}},
    "the optimizer is RMSprop": {"params": {"optimizer": "rmsprop"}},
    "the optimizer has the option": {
        "params": {"optimizer": "adam", "optimizer_params": {"amsgrad": True}}
    },
    "the callback": {"params": {"callbacks": [GradientNormClipping(1)]}},
    "some parameters": {"params": {"callbacks": [Freezer("layers.0.*")]}},
    "the module is not": {"function": change_a_layer},
    "the module has hooks": {"function": hook_the_module},
    "the criterion is": {"function": change_the_loss},
    "the criterion has weights": {"function": weigh_the_loss},
    "the optimizer has hooks": {"function": hook_the_optimizer},
    "the learning rate is": {"function": set_a_rate},
    "the optimizer has more": {"function": add_a_group},
    "the optimizer has other": {"function": forget_a_parameter},
    "the net has a method": {"function": set_a_method},
    "the net makes batches": {"function": set_batches},
}


@pytest.mark.needs_kernel
@pytest.mark.parametrize("start", CAUSES)
def test_a_reason_of_the_page_comes_about_as_the_page_says(start):
    [reason] = [reason for reason in REASONS if reason.startswith(start)]
    assert fit(**CAUSES[start]).fused_reason_ == reason


@pytest.mark.needs_kernel
def test_one_batch_of_few_rows_is_a_reason():
    [reason] = [reason for reason in REASONS if reason.startswith("all rows")]
    clf = MLPDiskClassifier((8,), batch_size=256, max_epochs=1).fit(X[:256], Y[:256])
    assert clf.fused_reason_ == reason


@pytest.mark.needs_kernel
@pytest.mark.parametrize(("holder", "of"), [(modules, "modules"), (optimizers, "optimizers")])
def test_hooks_of_all_are_a_reason(holder, of, monkeypatch):
    name = {"modules": "_global_forward_hooks", "optimizers": "_global_optimizer_pre_hooks"}[of]
    monkeypatch.setitem(getattr(holder, name), 1, lambda *args: None)
    assert fit().fused_reason_ == f"there are hooks of all {of} of torch"


@pytest.mark.needs_kernel
def test_reduced_precision_is_a_reason():
    [reason] = [reason for reason in REASONS if reason.startswith("torch.autocast")]
    with torch.autocast("cpu", torch.bfloat16):
        assert fit().fused_reason_ == reason


NOT_IN_THE_WAY = {
    "no hidden layer": {"hidden_layer_sizes": ()},
    "many layers": {"hidden_layer_sizes": (3, 4, 5, 6)},
    "dropout": {"dropout": 0.2},
    "clipping": {"clip_grad_norm": 1.0},
    "class weights": {"class_weight": "balanced"},
    "early stopping": {"early_stopping": True, "n_iter_no_change": 20},
    "adamw": {"optimizer": "adamw"},
    "a warm start": {"warm_start": True},
    "a callback of epochs": {
        "callbacks": [EpochScoring("roc_auc", lower_is_better=False, use_caching=False)]
    },
    "skorch's schedule": {"lr_schedule": LRScheduler("StepLR", step_size=1)},
    **{name: {"lr_schedule": name} for name in ("constant", "one_cycle", "plateau")},
    **{
        name: {"activation": name}
        for name in sorted(MLPDiskClassifier._parameter_constraints["activation"][0].options)
    },
}


@pytest.mark.needs_kernel
@pytest.mark.parametrize("params", NOT_IN_THE_WAY.values(), ids=NOT_IN_THE_WAY)
def test_what_the_page_says_is_not_in_the_way_is_not(params):
    clf = fit({"fused": True, **params})
    assert clf.fused_
    assert np.isfinite(clf.loss_)
