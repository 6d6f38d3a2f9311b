"""What a fitted estimator is asked for: predictions, and what its training and its network are.

Nothing here trains or changes anything.
"""

from importlib.metadata import metadata

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted
from skorch import NeuralNetClassifier
from torch import nn

from ._compat import VisualBlock
from ._inputs.arrays import compute_accuracy
from ._inputs.parameters import Labels, Rows, check_layer, leave_numpy_as_found
from ._inputs.rows import check_rows_to_predict
from ._inputs.weights import check_sample_weight, scale_to_mean_one
from ._network.mlp import flatten, get_parameters, has_hooks, split
from ._network.prediction import compute_hidden, compute_log_odds, make_network
from ._network.surroundings import explain_want_of_memory, leave_as_found
from ._training.batches import as_rows
from ._training.callbacks import HISTORY, NOT_IN_HISTORY
from ._training.state import make_net


def find_last(estimator):
    """Return the last step of a pipeline, None where it has no steps; any other as it is."""
    if not isinstance(estimator, Pipeline):
        return estimator
    return estimator.steps[-1][1] if estimator.steps else None


def make_link_template(project_urls):
    """Make the address of a class's page on the site, of the URLs of the package's metadata.

    Where they name no documentation the address is "", and scikit-learn shows no link.
    """
    urls = dict(url.split(", ", 1) for url in project_urls)
    if "Documentation" not in urls:
        return ""
    return urls["Documentation"].rstrip("/") + "/api/{estimator_module}.{estimator_name}.html"


class ProbabilisticClassifier(ClassifierMixin, BaseEstimator):
    """What a classifier predicts that has `_predict(X, form)`: logarithms or probabilities.

    A form is "log_proba" or "proba"; both are float64 of shape (n_samples, n_classes). The fitted
    classifier's `_output` is "softmax", or "sigmoid" where a row may have several labels; then the
    columns are labels, and there is the form "scores", their log-odds. Rows that are not as
    described are a ValueError or TypeError, an estimator without a fit is a NotFittedError.
    """

    classes_: np.ndarray
    n_features_in_: int
    feature_names_in_: np.ndarray

    # Of scikit-learn's representation in HTML.
    _doc_link_module = "skdisk"
    _doc_link_template = make_link_template(metadata("skdisk").get_all("Project-URL", []))

    def predict(self, X: Rows) -> np.ndarray:
        """Predict the label of each row, or which labels it has.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Data with the features seen during fit.

        Returns
        -------
        y_pred : ndarray of shape (n_samples,) or (n_samples, n_labels)
            The most probable label of each row, of the dtype of `classes_`. Of several labels a
            row: 1 for those that are more probable than not, else 0.
        """
        check_is_fitted(self)
        if self._output == "sigmoid":
            return (self._predict(X, "scores") > 0).astype(int)
        positions = self._predict(X, "log_proba").argmax(axis=1)
        return self.classes_[positions]

    def predict_proba(self, X: Rows) -> np.ndarray:
        """Predict the probability of each class; an ensemble averages those of its members.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Data with the features seen during fit.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes), dtype=float64
            Probabilities, the columns in the order of `classes_`; each row sums to 1. Of several
            labels a row, the probability that it has each of them.
        """
        check_is_fitted(self)
        return self._predict(X, "proba")

    def predict_log_proba(self, X: Rows) -> np.ndarray:
        """Predict the logarithm of the probability of each class.

        It is finite where `predict_proba` rounds to 0, and has its digits where that rounds to 1.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Data with the features seen during fit.

        Returns
        -------
        log_proba : ndarray of shape (n_samples, n_classes), dtype=float64
            Log-probabilities, the columns in the order of `classes_`.
        """
        check_is_fitted(self)
        return self._predict(X, "log_proba")

    @leave_numpy_as_found
    def decision_function(self, X: Rows) -> np.ndarray:
        """Compute the log-odds of each class: by how much it is more probable than all others.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Data with the features seen during fit.

        Returns
        -------
        log_odds : ndarray of shape (n_samples,) or (n_samples, n_classes), dtype=float64
            `log(p / (1 - p))` in nats, finite also where p rounds to 0 or 1. With two classes p is
            the probability of `classes_[1]`; otherwise there is a column for each class, in the
            order of `classes_`. An only class has no others, and 0 for its log-odds. Of several
            labels a row, p is the probability that it has a label, and there is a column for each.
        """
        check_is_fitted(self)
        if self._output == "sigmoid":
            return self._predict(X, "scores")
        return compute_log_odds(self._predict(X, "log_proba"))

    @explain_want_of_memory
    @leave_numpy_as_found
    def score(self, X: Rows, y: Labels, sample_weight: ArrayLike | None = None) -> float:
        """Compute the accuracy on data.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Data with the features seen during fit.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Their labels, in any form that `fit` takes.
        sample_weight : array-like of shape (n_samples,), default=None
            How much each row counts. None stands for 1.

        Returns
        -------
        score : float
            The share of rows whose label is predicted; of several labels a row, whose labels all
            are.
        """
        predicted = self.predict(X)
        weights = scale_to_mean_one(check_sample_weight(sample_weight, predicted))
        return compute_accuracy(y, predicted, weights)

    def __sklearn_tags__(self):
        """Say that sparse rows and several labels a row are taken."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        tags.input_tags.sparse = True
        return tags


class FittedNetwork:
    """What can be read of a classifier that has `_settings`, `_state` and `_result` of a fit.

    The attributes are described where users look for them, in the docstring of the classifier.
    """

    @explain_want_of_memory
    def hidden_activations(self, X: Rows, layer: int = -1) -> np.ndarray:
        """Compute what comes out of a hidden layer: what the network has made of the features.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Data with the features seen during fit.
        layer : int, default=-1
            Which hidden layer, as a position in `hidden_layer_sizes`: 0 is the first, -1 the last.

        Returns
        -------
        activations : ndarray of shape (n_samples, n_units), dtype=float32
            The outputs of the units, after the activation function.

        Raises
        ------
        NotFittedError
            If the estimator has not been fitted.
        ValueError, TypeError
            If `X` or `layer` are not as described, there is no hidden layer, or the network is not
            as `fit` makes it.

        Examples
        --------
        >>> from skdisk import MLPDiskClassifier, make_disk
        >>> X, y = make_disk(500, random_state=0)
        >>> clf = MLPDiskClassifier((32, 8), random_state=0).fit(X, y)
        >>> clf.hidden_activations(X).shape
        (500, 8)

        As a step before another model:

        >>> from sklearn.linear_model import LogisticRegression
        >>> from sklearn.pipeline import make_pipeline
        >>> from sklearn.preprocessing import FunctionTransformer
        >>> reader = FunctionTransformer(clf.hidden_activations)
        >>> make_pipeline(reader, LogisticRegression()).fit(X, y).score(X, y) > 0.9
        True
        """
        check_is_fitted(self)
        net, found = self._state.net, self._read_network()
        if not found or (net and has_hooks(net.module_)):
            raise ValueError(
                "hidden_activations reads a network as fit makes it. That of this "
                f"{type(self).__name__} has been replaced, changed or given hooks:\n"
                f"{net.module_}\n"
                "Fit it anew, or register a forward hook of torch on the layer of clf.module_."
            )
        network, flat, device = found
        position = check_layer(layer, network.layer_sizes[1:-1])
        rows = as_rows(check_rows_to_predict(self, X))
        return compute_hidden(network, flat, rows, 1 + position, device)

    @property
    def coefs_(self) -> list[np.ndarray]:
        """A copy of the weights of each layer."""
        return [weights.T.copy() for weights in self._split_weights()[::2]]

    @property
    def intercepts_(self) -> list[np.ndarray]:
        """A copy of the biases of each layer."""
        return [biases.copy() for biases in self._split_weights()[1::2]]

    @property
    def n_layers_(self) -> int:
        """Number of layers, those of the features and of the outputs included."""
        return len(self._settings.network.layer_sizes)

    @property
    def n_outputs_(self) -> int:
        """Number of outputs."""
        return self._settings.network.layer_sizes[-1]

    @property
    def out_activation_(self) -> str:
        """The function after the last layer."""
        return self._settings.out_activation

    @property
    @leave_as_found
    def net_(self) -> NeuralNetClassifier:
        """The skorch net, made when somebody asks for it."""
        state = self._state
        return state.net or state.set_first_net(make_net(self._settings, state))

    @property
    def module_(self) -> nn.Module:
        """The trained network."""
        return self.net_.module_

    @property
    def fused_reason_(self) -> str | None:
        """Why the kernel did not train all of it, in words, or None."""
        return self._result.reason

    @property
    def fused_(self) -> bool:
        """Whether the kernel trained all of it."""
        return self.fused_reason_ is None

    @property
    def n_iter_(self) -> int:
        """Number of epochs that the network has been trained for."""
        return len(self._state.history)

    @property
    def loss_curve_(self) -> list[float]:
        """Mean loss of each epoch."""
        return self._read_history("train_loss") or []

    @property
    def loss_(self) -> float | None:
        """The mean loss of the last epoch."""
        return next(reversed(self.loss_curve_), None)

    @property
    def validation_loss_curve_(self) -> list[float] | None:
        """Mean loss on the validation data after each epoch, or None."""
        return self._read_history("valid_loss")

    @property
    def validation_score_curve_(self) -> list[float] | None:
        """Accuracy on the validation data after each epoch, or None."""
        return self._read_history("valid_score")

    @property
    def best_loss_(self) -> float | None:
        """The lowest mean loss of an epoch of the last training."""
        return self._find_best_epoch()[0]

    @property
    def best_epoch_(self) -> int | None:
        """The number of the epoch with the lowest loss."""
        return self._find_best_epoch()[1]

    @property
    def history_(self) -> pd.DataFrame:
        """A data frame of what was recorded, one row an epoch."""
        history = pd.DataFrame(self._state.history.to_list())
        others = [name for name in history if name not in (*HISTORY, *NOT_IN_HISTORY)]
        return history.reindex(columns=[*HISTORY, *others]).rename(columns=HISTORY)

    @property
    def _output(self):
        return self._settings.output

    def _sk_visual_block_(self):
        """Show, in scikit-learn's diagram, layers, epochs and last loss of a fitted classifier."""
        caption = ""
        if hasattr(self, "_state"):
            layers = "-".join(map(str, self._settings.network.layer_sizes))
            names = ("train_loss", "valid_loss")
            losses = [
                f"{n} {row[n]:.4g}" for row in self._state.history[-1:] for n in names if n in row
            ]
            caption = ", ".join([f"layers {layers}", f"{self.n_iter_} epochs", *losses])
        name = type(self).__name__
        return VisualBlock(
            "single", self, names=name, name_details=str(self), name_caption=caption
        )

    def _read_network(self):
        """Read a network, its weights as one array, and its device.

        None if it is not as `fit` makes it.
        """
        state = self._state
        if state.net is None:
            return self._settings.network, state.arrays.parameters, torch.device("cpu")
        module = state.net.module_
        parameters = get_parameters(module)
        return parameters and (make_network(module), flatten(parameters), parameters[0].device)

    def _split_weights(self):
        """Read weights, of shape (n_out, n_in), and biases of each layer in turn."""
        found = self._read_network()
        if not found:
            raise AttributeError(
                f"The network of this {type(self).__name__} is not as fit makes it, layers of "
                f"weights and biases in turn. Read clf.module_:\n{self.module_}"
            )
        network, flat, _ = found
        return split(flat, network.layer_sizes)

    def _read_history(self, name):
        """Read a column of the history, or None; where some epochs lack it, there is a NaN."""
        history = self._state.history
        if any(name in row for row in history):
            return [row.get(name, np.nan) for row in history]
        return None

    def _find_best_epoch(self):
        rows = self._state.history[self._result.first_epoch :]
        name = "valid_loss" if any("valid_loss" in row for row in rows) else "train_loss"
        return min(((row[name], row["epoch"]) for row in rows), default=(None, None))
