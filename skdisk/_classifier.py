"""`MLPDiskClassifier`, the scikit-learn face of the network.

Here data and parameters are checked, labels are encoded and decoded, and a `DiskNet` is built,
trained and attached. There is no tensor arithmetic.
"""

import copy
from numbers import Integral, Real

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from skorch.callbacks import Callback

from ._batches import FEW_ROWS
from ._compat import Interval, StrOptions, validate_parameter_constraints
from ._device import check_device
from ._labels import encode_labels, find_classes, labels_as_array
from ._module import ACTIVATIONS
from ._net import DiskNet


def _explain_text(X):
    """Say which columns hold text and what to do about it."""
    names = []
    if isinstance(X, pd.DataFrame):
        names = X.select_dtypes(exclude=["number", "bool"]).columns.tolist()
    columns = f"The columns with text or other objects: {names}. " if names else ""
    return (
        f"{columns}The network takes numbers: encode text and categories first, for example with "
        "a OneHotEncoder in a ColumnTransformer."
    )


class MLPDiskClassifier(ClassifierMixin, BaseEstimator):
    """A multilayer perceptron that trains with PyTorch and behaves like scikit-learn.

    It minimises the mean negative log-likelihood (cross-entropy) of the classes by stochastic
    gradient descent. It takes arrays and data frames, any labels, and works in pipelines,
    cross-validation and searches like every classifier of scikit-learn.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int, default=(64, 64)
        Number of units of each hidden layer. `()` is a single layer: logistic regression, or, for
        two classes, a single neuron.
    activation : {"relu", "tanh", "logistic", "identity", "leaky_relu", "elu", "selu", "gelu", \
            "silu"}, default="relu"
        The function after each hidden layer, with PyTorch's defaults. "logistic" is the sigmoid.
    lr : float in (0, inf), default=1e-3
        Learning rate: the step per unit of the gradient of a batch's mean loss.
    momentum : float in [0, 1), default=0.0
        Momentum of the gradient descent, as in `torch.optim.SGD`.
    nesterov : bool, default=False
        Whether the momentum is Nesterov's. Needs `momentum > 0`.
    weight_decay : float in [0, inf), default=0.0
        L2 penalty: the gradient of each weight, bias included, grows by `weight_decay` times the
        weight, as in `torch.optim.SGD`.
    max_epochs : int, default=300
        Number of passes over the training data.
    batch_size : int, default=32
        Number of rows of a training step. The last batch of an epoch may be smaller.
    shuffle : bool, default=True
        Whether each epoch goes through the rows in a new random order.
    callbacks : list of skorch callbacks, default=None
        Callbacks, or pairs `(name, callback)`, as for `skorch.NeuralNet`. They see the labels as
        positions in `classes_`.
    fused : {"auto", True, False}, default="auto"
        Whether to use the fused trainer, which gives the same result many times faster: "auto"
        uses it unless a setting is in its way (a callback that looks at every batch), True raises
        a ValueError that names the setting, False never uses it.
    warm_start : bool, default=False
        Whether `fit` goes on from where the earlier fit ended, for another `max_epochs`.
    random_state : int, RandomState instance or None, default=None
        The one source of randomness: initial weights and order of the rows. With the same int, two
        fits on one machine give equal weights, bit by bit. None draws a new seed from the
        operating system. The global generators of NumPy and torch are neither used nor changed.
    device : str or torch.device, default="cpu"
        Where to train: "cpu", "cuda", "cuda:0", "mps".
    verbose : int, default=0
        0 prints nothing; 1 prints skorch's table, a line for every epoch.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels, sorted, of the dtype that they came in.
    n_features_in_ : int
        Number of features seen during fit.
    feature_names_in_ : ndarray of shape (n_features_in_,), dtype=object
        Names of the features, if `X` had column names that are all strings.
    n_iter_ : int
        Number of epochs that the network has been trained for, those before a warm start included.
    loss_curve_ : list of float
        Mean loss of each epoch, in nats.
    history_ : DataFrame of shape (n_iter_, n_columns)
        One row an epoch: `epoch`, `train_loss` in nats, `train_loss_best` (whether it was the
        lowest so far), `dur` in seconds, and what callbacks recorded.
    fused_ : bool
        Whether the last training used the fused trainer.
    fused_reason_ : str or None
        In words, why it did not.
    net_ : skorch.NeuralNetClassifier
        The trained skorch net. It knows the labels as positions in `classes_`.
    module_ : torch.nn.Module
        The trained network: float32 rows in, log-probabilities out.

    See Also
    --------
    make_disk : The data set of the examples.
    sklearn.neural_network.MLPClassifier : scikit-learn's own, on the CPU, without PyTorch.

    Notes
    -----
    Input is converted to float32. The loss of a batch of `n` rows is
    `-1/n * sum_i log softmax(z_i)[y_i]`, where `z_i` are the outputs of the last layer for row `i`
    and `y_i` is the position of its label in `classes_`.

    Gradient descent needs features of similar scale: put a `StandardScaler` before it.

    Ctrl-C during `fit` raises KeyboardInterrupt and leaves the estimator fitted as it was after
    the last whole epoch (or untouched, if there was none).

    Examples
    --------
    >>> from sklearn.model_selection import train_test_split
    >>> from skdisk import MLPDiskClassifier, make_disk
    >>> X, y = make_disk(2000, random_state=0)
    >>> X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
    >>> clf = MLPDiskClassifier(lr=0.05, momentum=0.9, max_epochs=30, random_state=0)
    >>> clf.fit(X_train, y_train)
    MLPDiskClassifier(lr=0.05, max_epochs=30, momentum=0.9, random_state=0)
    >>> clf.score(X_test, y_test) > 0.95
    True
    >>> clf.predict([[0.0, 0.1], [0.9, 0.9]])
    array([1, 0])
    """

    _doc_link_module = "skdisk"
    _doc_link_template = (
        "https://skdisk.readthedocs.io/en/stable/api/{estimator_module}.{estimator_name}.html"
    )

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's own form
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "lr": [Interval(Real, 0, np.inf, closed="neither")],
        "momentum": [Interval(Real, 0, 1, closed="left")],
        "nesterov": ["boolean"],
        "weight_decay": [Interval(Real, 0, np.inf, closed="left")],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "shuffle": ["boolean"],
        "callbacks": [list, tuple, None],
        "fused": ["boolean", StrOptions({"auto"})],
        "warm_start": ["boolean"],
        "random_state": ["random_state"],
        "device": [str, torch.device],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        hidden_layer_sizes=(64, 64),
        *,
        activation="relu",
        lr=1e-3,
        momentum=0.0,
        nesterov=False,
        weight_decay=0.0,
        max_epochs=300,
        batch_size=32,
        shuffle=True,
        callbacks=None,
        fused="auto",
        warm_start=False,
        random_state=None,
        device="cpu",
        verbose=0,
    ):
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.lr = lr
        self.momentum = momentum
        self.nesterov = nesterov
        self.weight_decay = weight_decay
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.callbacks = callbacks
        self.fused = fused
        self.warm_start = warm_start
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    def fit(self, X, y):
        """Train the network for `max_epochs` epochs.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training data: numbers, finite in float32.
        y : array-like of shape (n_samples,)
            Labels: strings, ints or bools.

        Returns
        -------
        self : MLPDiskClassifier
            The fitted estimator. It changes only when the training has ended: a fit that fails
            leaves it as it was.

        Raises
        ------
        ValueError, TypeError
            If a parameter or the data are not as described.
        KeyboardInterrupt
            After Ctrl-C; the estimator then has the epochs that were completed.
        """
        resume = self.warm_start and hasattr(self, "net_")
        classes = self.classes_ if resume else None
        return self._train(X, y, classes, n_epochs=self.max_epochs, resume=resume)

    def partial_fit(self, X, y, classes=None):
        """Train the network for one epoch, on from where it stands.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training data: numbers, finite in float32.
        y : array-like of shape (n_samples,)
            Labels, each of them one of `classes`.
        classes : array-like of shape (n_classes,), default=None
            All labels that will ever occur. Needed on the first call, may be left out later.

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
        resume = hasattr(self, "net_")
        if classes is not None:
            classes = np.unique(labels_as_array(classes))
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
        return self._train(X, y, classes, n_epochs=1, resume=resume)

    def predict(self, X):
        """Predict the label of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Data with the features seen during fit.

        Returns
        -------
        y_pred : ndarray of shape (n_samples,)
            The most probable label of each row, of the dtype of `classes_`.

        Raises
        ------
        NotFittedError
            If the estimator has not been fitted.
        ValueError, TypeError
            If `X` is not as described.
        """
        positions = self.predict_log_proba(X).argmax(axis=1)
        return self.classes_[positions]

    def predict_proba(self, X):
        """Predict the probability of each class.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Data with the features seen during fit.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes), dtype=float32
            Probabilities, the columns in the order of `classes_`; each row sums to 1.

        Raises
        ------
        NotFittedError
            If the estimator has not been fitted.
        ValueError, TypeError
            If `X` is not as described.
        """
        log_proba = self.predict_log_proba(X)
        return np.exp(log_proba, out=log_proba)

    def predict_log_proba(self, X):
        """Predict the logarithm of the probability of each class.

        It is finite also where `predict_proba` rounds to 0.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Data with the features seen during fit.

        Returns
        -------
        log_proba : ndarray of shape (n_samples, n_classes), dtype=float32
            Log-probabilities, the columns in the order of `classes_`.

        Raises
        ------
        NotFittedError
            If the estimator has not been fitted.
        ValueError, TypeError
            If `X` is not as described.
        """
        check_is_fitted(self)
        checked = self._check_few(X)
        if checked is None:
            checked = self._check_data(X, reset=False)
        return self.net_.forward(checked).numpy()

    @property
    def module_(self):
        """The trained network."""
        return self.net_.module_

    @property
    def fused_reason_(self):
        """Why the fused trainer was not used, in words, or None."""
        return self.net_.fused_reason_

    @property
    def fused_(self):
        """Whether the fused trainer was used."""
        return self.fused_reason_ is None

    @property
    def n_iter_(self):
        """Number of epochs that the network has been trained for."""
        return len(self.net_.history)

    @property
    def loss_curve_(self):
        """Mean loss of each epoch."""
        return self.net_.history[:, "train_loss"]

    @property
    def history_(self):
        """A data frame of what was recorded, one row an epoch."""
        history = pd.DataFrame(self.net_.history.to_list())
        return history.drop(columns=["batches", "train_batch_count"])

    def _train(self, X, y, classes, *, n_epochs, resume):
        self._check_params()
        # Everything is attached to a copy, which takes the place of this estimator at the end, so
        # that a fit that fails anywhere leaves no trace.
        trained = copy.copy(self)
        X, y = trained._check_data(X, y, reset=not resume)
        trained.classes_ = find_classes(y) if classes is None else classes
        y = encode_labels(y, trained.classes_)
        trained.net_ = trained._make_net(seed=self.net_.seed if resume else self._draw_seed())
        if resume:
            trained.net_.resume(self.net_)
        n_epochs_before = trained.n_iter_
        try:
            trained.net_.partial_fit(X, y, epochs=n_epochs)
        except KeyboardInterrupt:
            if trained.n_iter_ > n_epochs_before:
                self.__dict__ = trained.__dict__
            raise
        if trained.n_iter_ == 0:
            raise RuntimeError("A callback stopped the training before its first epoch had ended.")
        self.__dict__ = trained.__dict__
        return self

    def _check_params(self):
        validate_parameter_constraints(
            self._parameter_constraints,
            self.get_params(deep=False),
            caller_name=type(self).__name__,
        )
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov=True needs a momentum above 0. Got momentum=0.")
        for item in self.callbacks or []:
            callback = item[1] if isinstance(item, tuple) and len(item) == 2 else item
            kind = callback if isinstance(callback, type) else type(callback)
            if not issubclass(kind, Callback):
                raise TypeError(
                    "callbacks must be skorch callbacks or pairs (name, callback). Got "
                    f"{item!r} among them."
                )
        check_device(self.device)

    def _check_few(self, X):
        """Return a few rows as float32 if they are plainly right, else None.

        For one row scikit-learn's checks take longer than all the rest of a prediction. What does
        not pass here goes to them, and gets their error or their conversion.
        """
        if (
            type(X) is not np.ndarray
            or X.dtype not in (np.float32, np.float64)
            or X.ndim != 2
            or not 0 < len(X) <= FEW_ROWS
            or X.shape[1] != self.n_features_in_
            or hasattr(self, "feature_names_in_")
        ):
            return None
        with np.errstate(over="ignore"):
            X = X.astype(np.float32, order="C")
        return X if np.isfinite(X).all() else None

    def _check_data(self, X, *y, reset):
        if isinstance(X, torch.Tensor):
            X = X.detach().cpu().numpy()
        try:
            # Values beyond float32 become infinite here, and are refused as such.
            with np.errstate(over="ignore"):
                return validate_data(
                    self,
                    X,
                    *map(labels_as_array, y),
                    dtype=np.float32,
                    order="C",
                    force_writeable=True,
                    reset=reset,
                )
        except ValueError as error:
            if "could not convert string" not in str(error):
                raise
            raise ValueError(f"{error}. {_explain_text(X)}") from error

    def _draw_seed(self):
        # check_random_state(None) would be NumPy's global generator, which is not ours to change.
        rng = np.random.RandomState() if self.random_state is None else self.random_state
        return int(check_random_state(rng).randint(np.iinfo(np.int32).max))

    def _make_net(self, seed):
        return DiskNet(
            module__n_features=self.n_features_in_,
            module__n_classes=len(self.classes_),
            module__hidden_layer_sizes=self.hidden_layer_sizes,
            module__activation=self.activation,
            classes=np.arange(len(self.classes_)),
            optimizer=torch.optim.SGD,
            optimizer__momentum=self.momentum,
            optimizer__nesterov=self.nesterov,
            optimizer__weight_decay=self.weight_decay,
            lr=self.lr,
            max_epochs=self.max_epochs,
            batch_size=int(self.batch_size),
            shuffle=self.shuffle,
            callbacks=list(self.callbacks or []),
            fused=self.fused if isinstance(self.fused, str) else bool(self.fused),
            device=str(check_device(self.device)),
            verbose=int(self.verbose),
            seed=seed,
        ).initialize()
