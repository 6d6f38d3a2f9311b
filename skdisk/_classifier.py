"""`MLPDiskClassifier`, the scikit-learn face of the network.

Here data and parameters are checked, a training is planned and run, and what comes of it is kept.
What a fitted classifier is asked for is in `_fitted.py`. There is no tensor arithmetic.
"""

import copy
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted
from skorch.callbacks import Callback, LRScheduler
from torch import nn

from ._compat import (
    CallbackSupportMixin,
    Interval,
    StrOptions,
    with_callbacks,
)
from ._fitted import FittedNetwork, ProbabilisticClassifier
from ._inputs.arrays import check_classes, check_kind, check_labels, encode_labels, find_classes
from ._inputs.choices import LearningRates, Plateau, resolve_device, resolve_optimizer
from ._inputs.parameters import (
    Labels,
    Lent,
    RandomState,
    Rows,
    as_number,
    check_memory,
    check_params,
    leave_numpy_as_found,
    make_rng,
)
from ._inputs.rows import check_rows, check_rows_to_predict, warn_of_other_scale, warn_of_scales
from ._inputs.weights import (
    check_class_weight,
    check_sample_weight,
    compute_class_weights,
    hold_out,
    leave_out_weightless,
    multiply_weights,
    scale_to_mean_one,
)
from ._network.mlp import ACTIVATIONS, MLP, as_probabilities, as_sizes, make_sequential
from ._network.prediction import compute_proba, compute_proba_of_arrays, make_module
from ._network.surroundings import explain_want_of_memory, leave_as_found
from ._persistence import FITTED, from_plain, load, save, to_plain
from ._training.batches import WeightedDataset, as_rows
from ._training.callbacks import BestEpoch, FitTasks, PrintTenLines, ShowProgress
from ._training.loop import Ending, Plan, Result, train
from ._training.optimizers import Convergence, FullBatchLBFGS
from ._training.state import Settings, begin, go_on

# For type checkers, which cannot read `ACTIVATIONS`.
Activation = Literal[
    "relu", "tanh", "logistic", "identity", "leaky_relu", "elu", "selu", "gelu", "silu"
]
Schedule = Literal["constant", "cosine", "one_cycle", "plateau"]

# What max_epochs="auto" stands for: so many epochs, and at least so many steps. Measured in
# benchmarks/results/accuracy.md.
AUTO_EPOCHS = 30
AUTO_STEPS = 300
# With L-BFGS, of at most so many epochs, the median of four data sets needed 5 to 14.
AUTO_EPOCHS_LBFGS = 100

# Before the names of entries of `optimizer_params`, as scikit-learn names the parts of a whole.
OF_OPTIMIZER = "optimizer_params__"

# In training at least: the weight, its gradient, the copy that is gone back to, all in float32.
BYTES_PER_WEIGHT = 12


def _find_callback_class(item):
    """Find the class of an item of `callbacks`: a callback, its class, or a pair with a name."""
    callback = item[1] if isinstance(item, tuple) and len(item) == 2 else item
    return callback if isinstance(callback, type) else type(callback)


def _have_scheduler(callbacks):
    """Tell whether one of the callbacks sets the learning rate."""
    return any(issubclass(_find_callback_class(item), LRScheduler) for item in callbacks)


class MLPDiskClassifier(CallbackSupportMixin, FittedNetwork, ProbabilisticClassifier):
    """A multilayer perceptron that trains with PyTorch and behaves like scikit-learn.

    It minimises the mean negative log-likelihood (cross-entropy) of the classes by stochastic
    gradient descent. It takes arrays and data frames, any labels, one or several a row, and works
    in pipelines, cross-validation and searches like every classifier of scikit-learn.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int, default=(64, 64)
        Number of units of each hidden layer. `()` is a single layer: logistic regression, or, for
        two classes, a single neuron.
    activation : {"relu", "tanh", "logistic", "identity", "leaky_relu", "elu", "selu", "gelu", \
            "silu"}, default="relu"
        The function after each hidden layer, with PyTorch's defaults. "logistic" is the sigmoid.
    dropout : float in [0, 1) or sequence of such, default=0.0
        Probability that a hidden unit is set to 0 for a row in training: the same for all hidden
        layers, or one for each. What is kept grows by `1 / (1 - dropout)`.
    lr : float in (0, inf) or "auto", default="auto"
        Learning rate: the step per unit of the gradient of a batch's mean loss. "auto" is 0.04
        with "sgd", and with others the default of torch: 0.001 with "adam" and "adamw".
    momentum : float in [0, 1), default=0.9
        Momentum of the gradient descent, as in `torch.optim.SGD`. Of "sgd" only; other optimisers
        ignore it.
    nesterov : bool, default=True
        Whether the momentum is Nesterov's. Of "sgd" only, and ignored where `momentum` is 0.
    weight_decay : float in [0, inf) or "auto", default="auto"
        L2 penalty: the gradient of each weight, bias included, grows by `weight_decay` times the
        weight, as in `torch.optim.SGD` and `Adam`. With "adamw" each step makes the weights
        smaller instead, by the factor `1 - lr * weight_decay`. "auto" is, in `fit` with "sgd" and
        "lbfgs", 6 over the number of rows to train on, at most 0.01: the more rows, the less they
        need it. In `partial_fit`, and with other optimisers, it is 0.
    optimizer : str or class of torch.optim, default="sgd"
        Which optimiser of `torch.optim`: a class, or its name in lower case, such as "adam",
        "adamw", "nadam", "radam", "rmsprop", "rprop" or "adagrad". The kernel knows "sgd", "adam"
        and "adamw"; others are used in skorch's loop. "lbfgs" is L-BFGS for small data, as
        described in the Notes; the class `torch.optim.LBFGS` is torch's as it comes.
    optimizer_params : dict, default=None
        What the optimiser takes besides the parameters above, such as `{"betas": (0.9, 0.99)}` for
        "adam". `set_params` and searches also reach each entry: `optimizer_params__betas`.
    lr_schedule : {"cosine", "constant", "one_cycle", "plateau"} or skorch LRScheduler, \
            default="cosine"
        How the learning rate changes from epoch to epoch of `fit`. "cosine" falls from `lr`
        towards 0 (`CosineAnnealingLR`); "one_cycle" rises to `lr` and falls again (`OneCycleLR`);
        both over `max_epochs` epochs. "plateau" halves the rate at each fourth epoch in a row in
        which the loss has not fallen by `tol` below the last that had (`ReduceLROnPlateau`): the
        validation loss, without validation the training loss. For others, give a
        `skorch.callbacks.LRScheduler`; one among the `callbacks` takes the place of this
        parameter. `partial_fit` takes `lr` as it is, call after call.
    clip_grad_norm : float in (0, inf), default=None
        The largest Euclidean norm of the gradient of all weights; a longer one is scaled down
        to it. None does not clip. Not with "lbfgs", which compares gradients with losses.
    max_epochs : int or "auto", default="auto"
        Number of passes over the training data. "auto" is 30, and for few rows as many as make at
        least 300 steps: 300 epochs of 20 rows, 75 of 100 rows, 30 from 320 rows on, in batches of
        32. With "lbfgs" it is 100.
    batch_size : int, default=32
        Number of rows of a training step. The last batch of an epoch may be smaller. Ignored with
        "lbfgs", whose steps are of all rows.
    shuffle : bool, default=True
        Whether each epoch goes through the rows in a new random order.
    class_weight : dict or "balanced", default=None
        How much the rows of each class count, by label; classes that are not in the dict have 1.
        Keys are labels, or equal to one (`True` is 1); others are allowed only beside all labels.
        "balanced" gives every class the same weight in sum: `n_samples / (n_classes * count)`, in
        `partial_fit` for the rows of the call. Multiplied with `sample_weight`. Not for several
        labels a row.
    early_stopping : bool, default=False
        Whether to stop when the validation loss has not fallen for `n_iter_no_change` epochs, and
        to keep the weights of the epoch in which it was lowest. Of `fit`, not `partial_fit`.
    validation_fraction : float in (0, 1), default=0.1
        How much of each class `early_stopping` holds out to validate on, at least one row; the
        only row of a class stays in training. Of several labels a row, how much of all rows. Not
        used where `fit` is given `X_val`.
    n_iter_no_change : int, default=10
        How many epochs in a row `early_stopping` waits for progress.
    tol : float in [0, inf), default=1e-4
        By how many nats the loss that `early_stopping` watches must fall below its lowest for that
        to be progress; the one that "plateau" watches, below the last that was progress.
    callbacks : list of skorch callbacks, default=None
        Callbacks, or pairs `(name, callback)`, as for `skorch.NeuralNet`. They see the labels as
        positions in `classes_`, several labels a row as a matrix of 0.0 and 1.0.
    fused : {"auto", True, False}, default="auto"
        Whether to train with the compiled kernel, which fuses the operations of a step and gives
        the same result many times faster than skorch's loop: "auto" uses it unless something is
        in its way (a callback that looks at every batch, another optimiser or device, no
        compiler), True raises a ValueError that names what is, False never uses it.
    warm_start : bool, default=False
        Whether `fit` goes on from where the earlier fit ended, for another `max_epochs`. `y` must
        then have all classes of the earlier fit, and no others, as in scikit-learn's estimators;
        `partial_fit` takes rows of some of the classes.
    random_state : int, RandomState instance or None, default=None
        The one source of randomness: initial weights, order of the rows, dropout and which rows
        are held out. With the same int, two fits on one machine give equal weights, bit by bit.
        None draws a new seed from the operating system. The global generators of NumPy and torch
        are neither used nor changed.
    device : str or torch.device, default="cpu"
        Where to train: "cpu", "cuda", "cuda:0", "mps", or "auto" for an accelerator if one can be
        used. A tensor that lies there is not copied.
    verbose : int, default=0
        0 prints nothing; 1 prints columns of `history_` for about ten epochs, and which epoch
        `early_stopping` keeps; 2 shows a progress bar with the current loss, on a terminal or in a
        notebook. In threads and worker processes, as in a search with `n_jobs`, each line of 1
        begins with the number of its fit, and the first one says what is fitted.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels, sorted, of the dtype that they came in. Of several labels a row, the numbers of
        the columns of `y`, as in `MLPClassifier`.
    n_features_in_ : int
        Number of features seen during fit.
    feature_names_in_ : ndarray of shape (`n_features_in_`,), dtype=object
        Names of the features, if `X` had column names that are all strings.
    n_iter_ : int
        Number of epochs that the network has been trained for, those before a warm start included.
    loss_curve_ : list of float
        Mean loss of each epoch, in nats, weighted as the rows are and without the L2 penalty: of
        each batch before its step.
    loss_ : float or None
        The last of them. None if the training diverged in its first epoch.
    validation_loss_curve_ : list of float or None
        Mean loss on the validation data after each epoch, in nats. None without validation.
    validation_score_curve_ : list of float or None
        Accuracy, as `score` has it, on the validation data after each epoch, weighted as the loss
        is. None without.
    best_loss_ : float or None
        The lowest mean loss of an epoch of the last training: on the validation data, without
        validation on the training data. None if the training diverged in its first epoch.
    best_epoch_ : int or None
        The number of that epoch, counted from 1. With `early_stopping` the weights are those after
        this epoch, otherwise those after the last one.
    coefs_ : list of ndarray of shape (n_in, n_out), dtype=float32
        A copy of the weights of each layer, as scikit-learn's networks have them.
    intercepts_ : list of ndarray of shape (n_out,), dtype=float32
        A copy of the biases of each layer.
    n_layers_ : int
        Number of layers, those of the features and of the outputs included.
    n_outputs_ : int
        Number of outputs: one for each class or label. Two classes have two, and not, as in
        `MLPClassifier`, one.
    out_activation_ : str
        The function after the last layer: "softmax", or "logistic" for labels of which a row may
        have several.
    history_ : DataFrame of shape (`n_iter_`, n_columns)
        One row an epoch: `epoch`, `train_loss`, `valid_loss` and `valid_score` (missing without
        validation), `lr`, `seconds`, and what callbacks recorded.
    fused_ : bool
        Whether the compiled kernel trained all of the last training.
    fused_reason_ : str or None
        In words, why it did not.
    net_ : skorch.NeuralNetClassifier
        The trained skorch net. It knows the labels as positions in `classes_`.
    module_ : torch.nn.Module
        The trained network: float32 rows in, log-probabilities out; of several labels a row, their
        log-odds.

    See Also
    --------
    make_disk : The data set of the examples.
    sklearn.neural_network.MLPClassifier : scikit-learn's own, on the CPU, without PyTorch.

    Notes
    -----
    Input is converted to float32; sparse rows are made dense batch by batch. The loss of a batch
    of `b` rows is `-sum_i w_i log softmax(z_i)[y_i] / b`, where `z_i` are the outputs of the last
    layer for row `i`, `y_i` is the position of its label in `classes_`, and `w_i` is its weight.
    Where `y` is a matrix of 0 and 1, a column for each label, of which a row may have any number,
    the loss of a row is the sum over its labels of `-log sigmoid(z)` where it has one and
    `-log(1 - sigmoid(z))` where not, as in `MLPClassifier`.

    Weights are frequencies: a row that weighs twice as much as another counts as if it were there
    twice, except that "auto" (`max_epochs`, `weight_decay`) goes by the number of rows. They are
    `sample_weight` times the class's weight, divided by their mean over the rows of a call, so
    that their scale means nothing. Rows of weight 0 are left out. Weights that are whole numbers
    are repetitions of rows, for dropout and for the rows that `early_stopping` holds out as well:
    both are drawn from the rows' values. Where all weights are equal they are as good as none.

    Gradient descent needs features of similar scale, around 0 and not far from 1 in size: put a
    `StandardScaler` before it. A fit warns of features whose standard deviations are more than a
    thousandfold apart, of a feature whose root mean square is above 20, of rows that are shorter
    than 0.1, and of an `X_val` that is on another scale than `X`.

    With "lbfgs" an epoch is a step on all rows: up to 20 iterations (`max_iter` in
    `optimizer_params`), each with a line search for the strong Wolfe conditions. `lr` is the
    length that a search tries first, "auto" is 1; `lr_schedule` is ignored unless it is an
    `LRScheduler`. The training ends when an iteration changes the loss by less than 1e-6 nats
    (`tolerance_change`) or no gradient is above 1e-7 (`tolerance_grad`); if `max_epochs`, "auto"
    is 100, end before, a ConvergenceWarning says so; with `dropout` they do, because each epoch
    drops others. `weight_decay` is part of what is minimised.
    `MLPClassifier(solver="lbfgs")` has hardly any, `alpha / n_samples`: on rows that it has not
    seen, iris for example, its log loss is ten times that of "auto". With `weight_decay=0` the
    loss of the training rows goes as low as its own.

    A loss or weight that is not finite ends the training with a ConvergenceWarning, at the last
    epoch in which all was finite.

    `set_callbacks` takes the callbacks of scikit-learn (`sklearn.callback`, from its version 1.9
    on), for which an epoch is a task.

    Ctrl-C during `fit` raises KeyboardInterrupt and leaves the estimator fitted as it was after
    the last whole epoch (or untouched, if there was none). So does what a handler of SIGTERM
    raises, such as SystemExit. Either is raised within a second, also in the middle of an epoch,
    unless a single step takes longer. Signals reach fits in the main thread only.

    A call leaves torch's modes and number of threads, warning filters and global generators as it
    found them, whatever ends it. One that fails also gives `callbacks`, an LRScheduler and a
    RandomState back as they were; one that succeeds has advanced the RandomState and left fitted
    attributes on the callbacks, as skorch does. In a forked process, where the threads of the
    parent are missing, torch computes on one thread.

    Examples
    --------
    >>> from sklearn.model_selection import train_test_split
    >>> from skdisk import MLPDiskClassifier, make_disk
    >>> X, y = make_disk(2000, random_state=0)
    >>> X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
    >>> clf = MLPDiskClassifier(random_state=0)
    >>> clf.fit(X_train, y_train)
    MLPDiskClassifier(random_state=0)
    >>> clf.score(X_test, y_test) > 0.95
    True
    >>> clf.predict([[0.0, 0.1], [0.9, 0.9]])
    array([1, 0])
    """

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's own form
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "dropout": ["array-like", Interval(Real, 0, 1, closed="left")],
        "lr": [Interval(Real, 0, np.inf, closed="neither"), StrOptions({"auto"})],
        "momentum": [Interval(Real, 0, 1, closed="left")],
        "nesterov": ["boolean"],
        "weight_decay": [Interval(Real, 0, np.inf, closed="left"), StrOptions({"auto"})],
        "optimizer": [str, type],
        "optimizer_params": [dict, None],
        "lr_schedule": [StrOptions(set(get_args(Schedule))), LRScheduler],
        "clip_grad_norm": [Interval(Real, 0, np.inf, closed="neither"), None],
        "max_epochs": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "shuffle": ["boolean"],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, np.inf, closed="left")],
        "callbacks": [list, tuple, None],
        "fused": ["boolean", StrOptions({"auto"})],
        "warm_start": ["boolean"],
        "random_state": ["random_state"],
        "device": [str, torch.device],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        hidden_layer_sizes: int | Sequence[int] | np.ndarray = (64, 64),
        *,
        activation: Activation = "relu",
        dropout: float | Sequence[float] | np.ndarray = 0.0,
        lr: float | Literal["auto"] = "auto",
        momentum: float = 0.9,
        nesterov: bool = True,
        weight_decay: float | Literal["auto"] = "auto",
        optimizer: str | type[torch.optim.Optimizer] = "sgd",
        optimizer_params: dict[str, Any] | None = None,
        lr_schedule: Schedule | LRScheduler = "cosine",
        clip_grad_norm: float | None = None,
        max_epochs: int | Literal["auto"] = "auto",
        batch_size: int = 32,
        shuffle: bool = True,
        class_weight: dict[Any, Any] | Literal["balanced"] | None = None,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        tol: float = 1e-4,
        callbacks: Sequence[Any] | None = None,
        fused: bool | Literal["auto"] = "auto",
        warm_start: bool = False,
        random_state: RandomState = None,
        device: str | torch.device = "cpu",
        verbose: int = 0,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.dropout = dropout
        self.lr = lr
        self.momentum = momentum
        self.nesterov = nesterov
        self.weight_decay = weight_decay
        self.optimizer = optimizer
        self.optimizer_params = optimizer_params
        self.lr_schedule = lr_schedule
        self.clip_grad_norm = clip_grad_norm
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.class_weight = class_weight
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.callbacks = callbacks
        self.fused = fused
        self.warm_start = warm_start
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Get the parameters.

        Parameters
        ----------
        deep : bool, default=True
            Whether to include the entries of `optimizer_params` by names of their own, such as
            `optimizer_params__betas`.

        Returns
        -------
        params : dict
            Values by name.
        """
        params = super().get_params(deep)
        if deep and isinstance(self.optimizer_params, dict):
            params |= {OF_OPTIMIZER + str(k): v for k, v in self.optimizer_params.items()}
        return params

    def set_params(self, **params: Any) -> Self:
        """Set parameters, and entries of `optimizer_params`, which the next fit checks.

        Parameters
        ----------
        **params
            Values by name. `optimizer_params__betas=(0.9, 0.99)` sets one entry; the others stay.

        Returns
        -------
        self : MLPDiskClassifier
            The estimator.

        Raises
        ------
        ValueError
            If there is no parameter of that name.
        TypeError
            If an entry of `optimizer_params` is to be set, and it is no dict.
        """
        entries = {name: params.pop(name) for name in [*params] if name.startswith(OF_OPTIMIZER)}
        earlier = params.get("optimizer_params", self.optimizer_params)
        if entries and not isinstance(earlier, Mapping | None):
            raise TypeError(
                f"optimizer_params must be a dict or None for {next(iter(entries))} to be set in "
                f"it. Got {earlier!r}."
            )
        super().set_params(**params)
        if entries:
            # A new dict: the old one is the user's.
            own = {name.removeprefix(OF_OPTIMIZER): value for name, value in entries.items()}
            self.optimizer_params = {**(earlier or {}), **own}
        return self

    @leave_as_found
    def fit(
        self,
        X: Rows,
        y: Labels,
        sample_weight: ArrayLike | None = None,
        *,
        X_val: Rows | None = None,
        y_val: Labels | None = None,
    ) -> Self:
        """Train the network for `max_epochs` epochs, or until `early_stopping` ends it.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Training data: numbers, finite in float32.
        y : array-like of shape (n_samples,), or array-like or sparse matrix of shape \
                (n_samples, n_labels)
            Labels: strings, ints, bools, whole floats or dates, all of one kind. Or, for several
            labels a row, numbers or bools that are 0 and 1, in a column for each label.
        sample_weight : array-like of shape (n_samples,), default=None
            How much each row counts, at least 0. None stands for 1.
        X_val : array-like or sparse matrix of shape (n_val, n_features), default=None
            Data to validate on after each epoch, whether or not `early_stopping` uses it.
        y_val : array-like of shape (n_val,) or (n_val, n_labels), default=None
            Their labels, each of them one that `y` has.

        Returns
        -------
        self : MLPDiskClassifier
            The fitted estimator. It changes only when the training has ended: a fit that fails
            leaves it as it was.

        Raises
        ------
        ValueError, TypeError
            If a parameter or the data are not as described.
        MemoryError
            If there is too little memory, with what was asked for.
        KeyboardInterrupt
            After Ctrl-C; the estimator then has the epochs that were completed.
        """
        self._check_params()
        resume = self.warm_start and hasattr(self, "_state")
        classes = self.classes_ if resume else None
        if (X_val is None) != (y_val is None):
            given, missing = ("X_val", "y_val") if y_val is None else ("y_val", "X_val")
            raise ValueError(f"{given} was passed without {missing}. Pass both, or neither.")
        validation = None if X_val is None else (X_val, y_val)
        return self._train(X, y, sample_weight, classes, validation=validation, resume=resume)

    @leave_as_found
    def partial_fit(
        self,
        X: Rows,
        y: Labels,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Train the network for one epoch, on from where it stands, with `lr` as it is.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Training data: numbers, finite in float32.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Labels, each of them one of `classes`.
        classes : array-like of shape (n_classes,), default=None
            All labels that will ever occur; of several labels a row, `np.arange(n_labels)`. Needed
            on the first call, may be left out later.
        sample_weight : array-like of shape (n_samples,), default=None
            How much each row counts, at least 0. None stands for 1.

        Returns
        -------
        self : MLPDiskClassifier
            The fitted estimator. A call that fails leaves it as it was.

        Raises
        ------
        ValueError, TypeError
            If a parameter or the data are not as described.
        KeyboardInterrupt
            After Ctrl-C; the estimator is then as it was before the call.
        """
        self._check_params()
        resume = hasattr(self, "_state")
        if classes is not None:
            classes = check_classes(classes)
        elif not resume:
            raise ValueError(
                "classes must be passed on the first call of partial_fit: all labels that will "
                "ever occur, in later calls too."
            )
        if resume:
            if classes is not None and not np.array_equal(classes, self.classes_):
                raise ValueError(
                    f"classes={classes.tolist()} are not those of the earlier fit, "
                    f"{self.classes_.tolist()}. Leave them out, or use a new estimator."
                )
            classes = self.classes_
        return self._train(X, y, sample_weight, classes, resume=resume, whole_fit=False)

    @leave_as_found
    def save(self, path: str | bytes | os.PathLike) -> None:
        """Write the fitted estimator to one safetensors file, from which no code is ever run.

        The file holds the whole state of the training: a loaded estimator predicts the same and
        goes on training the same, bit by bit. What no file can hold (callbacks, an LRScheduler, a
        RandomState, an optimiser that is not in torch.optim) is said in a UserWarning.

        The file holds this estimator alone, which cannot know whether it stands in a pipeline.
        Without the steps before it, it predicts nonsense: keep a whole pipeline with skops or
        joblib, as the page on files describes.

        Parameters
        ----------
        path : str, bytes or os.PathLike
            The file. An earlier one is replaced once the new one is complete, and keeps its mode.

        Raises
        ------
        NotFittedError
            If the estimator has not been fitted.
        TypeError, ValueError
            If `path` is no path, or a loaded estimator would not be this one: `classes_` are not
            strings, numbers or bools; there are attributes that are neither parameters nor set by
            `fit`; a parameter is not valid or cannot be written; or the network is not as `fit`
            makes it.
        OSError
            If the file cannot be written. An earlier one is then as it was.
        """
        save(self, path)

    @classmethod
    @leave_as_found
    def load(cls, path: str | bytes | os.PathLike) -> Self:
        """Make an estimator from a file that `save` wrote.

        Everything in the file is checked, so that the estimator can predict and go on training.
        Where the device of the file is not available, a UserWarning says so and the estimator has
        `device="cpu"`.

        Parameters
        ----------
        path : str, bytes or os.PathLike
            The file. That of a subclass with parameters of its own is loaded with the subclass.

        Returns
        -------
        estimator : MLPDiskClassifier
            The fitted estimator.

        Raises
        ------
        OSError
            If the file is not there or cannot be read.
        TypeError, ValueError
            If `path` is no path, `save` did not write the file, it is damaged, or it needs a newer
            skdisk.
        """
        return load(cls, path)

    @leave_as_found
    def to_torch(self) -> nn.Sequential:
        """Make a plain network of torch, which needs no skdisk and can be exported.

        Returns
        -------
        network : torch.nn.Sequential
            Float32 rows in, probabilities out, the columns in the order of `classes_`. It ends in
            a `Softmax`, or, for several labels a row, in a `Sigmoid`; it is in evaluation mode, on
            the CPU, with weights of its own, which ask for no gradients.

        Raises
        ------
        NotFittedError
            If the estimator has not been fitted.
        ValueError
            If a callback has put a module of its own into the net.
        """
        check_is_fitted(self)
        state = self._state
        if state.net is None:
            module = make_module(self._settings.network, state.arrays.parameters)
        else:
            module = state.net.module_
        if not isinstance(module, MLP):
            raise ValueError(
                f"The network of this {type(self).__name__} is a {type(module).__name__} that a "
                "callback has put there. Take clf.module_ itself."
            )
        return make_sequential(module)

    @explain_want_of_memory
    @leave_numpy_as_found
    def _predict(self, X, form):
        """Check rows, and compute what a form asks for."""
        state, rows = self._state, as_rows(check_rows_to_predict(self, X))
        if state.net is None:
            return compute_proba_of_arrays(
                self._settings.network, state.arrays.parameters, rows, form
            )
        return compute_proba(state.net.module_, self._output, rows, form)

    @leave_as_found
    def __getstate__(self):
        """Describe the estimator in arrays, numbers, text, lists and dicts where they can say it.

        Pickle, copy.deepcopy, joblib and skops ask for it. What users have put in, such as
        callbacks, is in it as it is.
        """
        return to_plain(super().__getstate__())

    @leave_as_found
    def __setstate__(self, state):
        """Make the estimator of its description."""
        super().__setstate__(from_plain(state))

    def __copy__(self):
        """Make an estimator that shares all that this one has."""
        copied = type(self).__new__(type(self))
        vars(copied).update(vars(self))
        return copied

    def _train(self, *args, **kwargs):
        """Train; a call that fails leaves this estimator and what it was lent as they were."""
        lent = Lent(self.random_state, self.callbacks or [])
        before = vars(self).get("_state")
        try:
            trained, plan, given = self._prepare(*args, **kwargs)
            self._run_and_keep(trained, plan, given)
        except BaseException:
            if vars(self).get("_state") is before:
                lent.put_back()
            raise
        # Last: where warnings are errors, the training is not lost.
        self._warn_of_convergence(plan)
        return self

    def _run_and_keep(self, trained, plan, given):
        """Run a training; keep the whole epochs of one that is interrupted, too."""
        try:
            interrupt = trained._run(plan, given)
        except KeyboardInterrupt:
            self._keep_epochs(trained)
            raise
        if interrupt is not None:
            self._keep_epochs(trained)
            try:
                raise interrupt
            finally:
                # A cycle through its traceback would hold the data.
                del interrupt
        if trained.n_iter_ == 0 and trained._result.ending is Ending.STOPPED:
            raise RuntimeError("A callback stopped the training before its first epoch had ended.")
        self._keep(trained)

    def _keep_epochs(self, trained):
        """Take over the whole epochs of a training that was interrupted, if there are any."""
        if trained._result and trained.n_iter_ > trained._result.first_epoch:
            self._keep(trained)

    def _keep(self, trained):
        """Take over all that a training leaves behind."""
        vars(self).update({name: value for name, value in vars(trained).items() if name in FITTED})
        if not hasattr(trained, "feature_names_in_"):
            vars(self).pop("feature_names_in_", None)

    def _prepare(
        self, X, y, sample_weight, classes=None, *, resume=False, validation=None, whole_fit=True
    ):
        """Check the data and plan the training.

        All is attached to a copy, whose results this estimator takes over at the end, so that a
        fit that fails anywhere leaves no trace.
        """
        trained = copy.copy(self)
        metadata = {} if sample_weight is None else {"sample_weight": sample_weight}
        given = {"X": X, "y": y, "metadata": metadata}
        X = check_rows(trained, X, reset=not resume)
        y = check_labels(y, X)
        if resume:
            check_kind(y, self._output == "sigmoid", "y", "that of the earlier fit had")
        sample_weight = check_sample_weight(sample_weight, X)
        trained.classes_ = find_classes(y) if classes is None else classes
        y = encode_labels(y, trained.classes_)
        if resume and whole_fit:
            self._check_warm_start(y)
        seed = self._settings.seed if resume else self._draw_seed()
        train, valid = trained._divide(X, y, sample_weight, validation, whole_fit, seed)
        if whole_fit or not resume:
            warn_of_scales(X)
        if validation is not None:
            warn_of_other_scale(X, valid.X)
        n_epochs = self._count_epochs(len(train)) if whole_fit else 1
        trained._result = None
        output = "sigmoid" if y.ndim == 2 else "softmax"
        trained._settings = settings = trained._make_settings(
            output, seed, n_epochs, len(train), whole_fit
        )
        if resume:
            trained._state = go_on(self._state, self._settings, settings)
        else:
            trained._state = begin(settings)
        rates = self._compute_learning_rates(settings, n_epochs, whole_fit)
        plan = Plan(
            settings,
            train,
            valid,
            n_epochs,
            rates,
            self.fused if isinstance(self.fused, str) else bool(self.fused),
            self._make_watchers(settings, rates, whole_fit),
        )
        return trained, plan, given

    def _check_warm_start(self, y):
        """Refuse, as scikit-learn's estimators do, to go on without some of the classes."""
        if y.ndim == 2:
            return
        missing = np.setdiff1d(np.arange(len(self.classes_)), y)
        if len(missing):
            raise ValueError(
                "warm_start=True goes on with the classes of the earlier fit, "
                f"{self.classes_.tolist()}, of which y has no {self.classes_[missing].tolist()}. "
                "Use partial_fit for rows of some of the classes, or warm_start=False to begin "
                "anew."
            )

    def _divide(self, X, y, sample_weight, validation, whole_fit, seed):
        """Make the weighted data sets to train and to validate on (None without validation)."""
        class_weights = compute_class_weights(self.class_weight, self.classes_, y, sample_weight)

        def weigh(X, y, weights):
            products = multiply_weights(weights, class_weights, y)
            return WeightedDataset(X, y, scale_to_mean_one(products))

        X, y, sample_weight = leave_out_weightless(X, y, sample_weight, class_weights)
        if validation is not None:
            X_val, y_val = validation
            X_val = check_rows(self, X_val, reset=False, name="X_val")
            y_val = check_labels(y_val, X_val, name="y_val")
            check_kind(y_val, y.ndim == 2, "y_val", "y has")
            y_val = encode_labels(y_val, self.classes_, name="y_val")
            validation = weigh(*leave_out_weightless(X_val, y_val, None, class_weights))
        elif self.early_stopping and whole_fit:
            parts = hold_out(X, y, sample_weight, self.validation_fraction, seed)
            return [weigh(X[rows], y[rows], weights) for rows, weights in parts]
        return weigh(X, y, sample_weight), validation

    def _count_epochs(self, n_rows):
        if self.max_epochs != "auto":
            return int(self.max_epochs)
        cls, _ = self._resolve_optimizer()
        if cls is FullBatchLBFGS:
            return AUTO_EPOCHS_LBFGS
        n_steps = math.ceil(n_rows / int(self.batch_size))
        return max(AUTO_EPOCHS, math.ceil(AUTO_STEPS / n_steps))

    @with_callbacks
    def _run(self, plan, given):
        """Train; tell the callbacks of scikit-learn, if there are any, of each epoch.

        Return the exception that is to be raised after an interrupt, or None.
        """
        if not getattr(self, "_skl_callbacks", None):
            self._result, interrupt = train(plan, self._state)
            return interrupt
        names = ("classes_", "n_features_in_", "feature_names_in_", "_settings")
        fitted = {name: getattr(self, name) for name in names if hasattr(self, name)}
        context = self._init_callback_context(max_subtasks=plan.n_epochs)
        context.call_on_fit_task_begin(estimator=self, **given)
        first_epoch = len(self._state.history)

        def make_attributes(state):
            # The training itself goes on: what a callback keeps must not go on with it.
            now = go_on(state, plan.settings, plan.settings)
            return {**fitted, "_state": now, "_result": Result(first_epoch)}

        tasks = FitTasks(self, context, given, make_attributes)
        plan = plan._replace(watchers=(tasks, *plan.watchers))
        self._result, interrupt = train(plan, self._state)
        if interrupt is None:
            context.call_on_fit_task_end(estimator=self, **given, reconstruction_attributes={})
        return interrupt

    def _warn_of_convergence(self, plan):
        result = self._result
        if result.diverged:
            message = (
                f"The training diverged {result.diverged}. The network is that of the epoch "
                "before. Use a smaller lr or clip_grad_norm, and put a StandardScaler before the "
                "classifier."
            )
        elif (
            any(isinstance(watcher, BestEpoch) for watcher in plan.watchers)
            and result.ending is Ending.COMPLETE
            # Where the patience is that long, the best of all epochs is what was asked for.
            and self.n_iter_no_change < plan.n_epochs
        ):
            message = (
                f"max_epochs={plan.n_epochs} ended while the validation loss was still falling: "
                f"its lowest is that of epoch {self.best_epoch_}. Try more max_epochs or a larger "
                "lr."
            )
        elif result.ending is Ending.COMPLETE and any(
            isinstance(watcher, Convergence) and not watcher.is_reached
            for watcher in plan.watchers
        ):
            message = (
                f"max_epochs={plan.n_epochs} ended before L-BFGS had found a minimum. Try more "
                "max_epochs or a larger weight_decay, and put a StandardScaler before the "
                "classifier."
            )
        else:
            return
        warnings.warn(message, ConvergenceWarning, stacklevel=5)

    def _check_params(self):
        params = {name: getattr(self, name) for name in self._parameter_constraints}
        check_params(type(self).__name__, params, self._parameter_constraints)
        for item in self.callbacks or []:
            if not issubclass(_find_callback_class(item), Callback):
                raise TypeError(
                    "callbacks must be skorch callbacks or pairs (name, callback). Got "
                    f"{item!r} among them. Callbacks of scikit-learn are set by set_callbacks."
                )
            if isinstance(item, tuple) and not isinstance(item[0], str):
                raise TypeError(
                    f"The name in a pair (name, callback) of callbacks must be a str. Got {item!r}"
                )
        check_class_weight(self.class_weight)
        resolve_device(self.device)
        cls, _ = self._resolve_optimizer()
        if cls is FullBatchLBFGS and self.clip_grad_norm is not None:
            raise ValueError(
                'clip_grad_norm is not possible with optimizer="lbfgs": its line search would '
                "compare a clipped gradient with the loss. Set clip_grad_norm=None."
            )

    def _resolve_optimizer(self, n_rows=None):
        names = ("lr", "momentum", "nesterov", "weight_decay")
        own = {name: as_number(getattr(self, name)) for name in names}
        return resolve_optimizer(self.optimizer, own, self.optimizer_params, n_rows)

    def _draw_seed(self):
        return int(make_rng(self.random_state).randint(np.iinfo(np.int32).max))

    def _make_watchers(self, settings, rates, whole_fit):
        watchers = (rates,) if isinstance(rates, Plateau) else ()
        if settings.optimizer is FullBatchLBFGS and whole_fit:
            watchers += (Convergence(),)
        if self.early_stopping and whole_fit:
            watchers += (BestEpoch(as_number(self.n_iter_no_change), as_number(self.tol)),)
        return watchers

    def _make_callbacks(self, n_epochs, whole_fit):
        """Make the list of the user's callbacks and those that the parameters ask for."""
        callbacks = list(self.callbacks or [])
        is_own = isinstance(self.lr_schedule, LRScheduler) and not _have_scheduler(callbacks)
        if is_own and whole_fit:
            # A copy: a schedule in use holds the optimiser, and a fit must change no parameter.
            callbacks.append(copy.deepcopy(self.lr_schedule))
        keeps_best = self.early_stopping and whole_fit
        if self.verbose == 1:
            title = " ".join(repr(self).split())
            callbacks.append(PrintTenLines(n_epochs, title, keeps_best))
        elif self.verbose:
            callbacks.append(ShowProgress(n_epochs, keeps_best))
        return callbacks

    def _compute_learning_rates(self, settings, n_epochs, whole_fit):
        """Compute the learning rate of each epoch; None where it is constant or a callback's."""
        # The line search of L-BFGS finds the length of each step itself.
        is_free = _have_scheduler(settings.callbacks) or settings.optimizer is FullBatchLBFGS
        if not whole_fit or is_free or self.lr_schedule == "constant":
            return None
        lr = settings.optimizer_arguments["lr"]
        if self.lr_schedule == "plateau":
            return Plateau(lr, as_number(self.tol))
        return LearningRates(self.lr_schedule, lr, n_epochs)

    def _make_settings(self, output, seed, n_epochs, n_rows, whole_fit):
        """Make the settings of a training on so many rows: of a whole fit, or of one call."""
        optimizer, arguments = self._resolve_optimizer(n_rows if whole_fit else None)
        hidden = as_sizes(self.hidden_layer_sizes)
        settings = Settings(
            n_features=self.n_features_in_,
            n_classes=len(self.classes_),
            hidden_layer_sizes=hidden,
            activation=self.activation,
            output=output,
            dropout=as_probabilities(self.dropout, len(hidden)),
            optimizer=optimizer,
            optimizer_arguments=arguments,
            batch_size=n_rows if optimizer is FullBatchLBFGS else int(self.batch_size),
            shuffle=self.shuffle,
            clip_grad_norm=as_number(self.clip_grad_norm),
            seed=seed,
            device=str(resolve_device(self.device)),
            verbose=int(self.verbose),
            max_epochs=n_epochs,
            callbacks=self._make_callbacks(n_epochs, whole_fit),
        )
        n_bytes = BYTES_PER_WEIGHT * settings.network.count_parameters()
        check_memory("hidden_layer_sizes", self.hidden_layer_sizes, n_bytes)
        return settings
