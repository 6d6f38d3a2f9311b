"""`register`, after which skl2onnx converts what holds classifiers and ensembles of skdisk.

Needs skl2onnx. A converter adds the nodes of one estimator to a graph: those before it in a
pipeline, and the map from labels to probabilities after it (`zipmap`), are skl2onnx's own.
"""

import math

import numpy as np
from sklearn.pipeline import Pipeline
from torch import nn

from . import MLPDiskClassifier, MLPDiskEnsemble
from ._network.mlp import get_parameters

try:
    from onnx import TensorProto
    from skl2onnx import get_model_alias, update_registered_converter
    from skl2onnx.common.data_types import (
        DoubleTensorType,
        FloatTensorType,
        Int64TensorType,
        StringTensorType,
        guess_proto_type,
    )
    from skl2onnx.common.utils_classifier import get_label_classes
except ImportError as error:
    raise ImportError(
        "skdisk.onnx needs skl2onnx, which is not installed: pip install 'skdisk[onnx]'. "
        "MLPDiskClassifier.to_torch makes a network for torch.onnx.export without it."
    ) from error

__all__ = ["register"]

# Those of skl2onnx's own classifiers. Calibration and stacking ask for raw_scores.
OPTIONS = {
    "zipmap": [True, False, "columns"],
    "nocl": [True, False],
    "output_class_labels": [False, True],
    "raw_scores": [True, False],
}
# Activations that are one operator in every opset, with the defaults that PyTorch has.
OPERATORS = {
    nn.ReLU: "Relu",
    nn.Tanh: "Tanh",
    nn.Sigmoid: "Sigmoid",
    nn.Identity: "Identity",
    nn.LeakyReLU: "LeakyRelu",
    nn.ELU: "Elu",
    nn.SELU: "Selu",
}
KINDS = {"f": TensorProto.FLOAT, "i": TensorProto.INT64, "S": TensorProto.STRING}


def register() -> None:
    """Teach skl2onnx to convert `MLPDiskClassifier` and `MLPDiskEnsemble`.

    Call it once before `skl2onnx.to_onnx`; again does no harm. The outputs are those of `predict`
    and `predict_proba`, computed in float32 as by the classifier itself; of several labels a row
    both have a column for each label. With `raw_scores` the second is that of `decision_function`;
    two classes have two columns, as skl2onnx wants them.

    Examples
    --------
    >>> import skdisk.onnx
    >>> from skdisk import MLPDiskClassifier, make_disk
    >>> from skl2onnx import to_onnx
    >>> skdisk.onnx.register()
    >>> X, y = make_disk(100, random_state=0)
    >>> clf = MLPDiskClassifier(random_state=0).fit(X, y)
    >>> model = to_onnx(clf, X[:1], options={"zipmap": False})
    >>> [output.name for output in model.graph.output]
    ['label', 'probabilities']
    """
    for cls in (MLPDiskClassifier, MLPDiskEnsemble):
        name = f"Skdisk{cls.__name__}"
        update_registered_converter(cls, name, _set_types, _convert, options=OPTIONS)


def _set_types(operator):
    """Set shapes and types of the outputs."""
    labels = _encode(get_label_classes(operator.scope_inst, operator.raw_operator))
    n_rows = operator.inputs[0].get_first_dimension()
    label, response = operator.outputs
    shape = [n_rows, len(labels)] if _is_multilabel(operator.raw_operator) else [n_rows]
    label.set_type((StringTensorType if labels.dtype.kind == "S" else Int64TensorType)(shape))
    is_double = isinstance(response.type, DoubleTensorType)
    response.set_type((DoubleTensorType if is_double else FloatTensorType)([n_rows, len(labels)]))


def _is_multilabel(model):
    return model._output == "sigmoid"


def _encode(classes):
    """Encode labels as ONNX has them: as text, or as whole numbers."""
    if classes.dtype.kind in "mM":
        raise TypeError(
            f"Labels in ONNX are strings or numbers. Got {classes.dtype}: fit on y.astype(str)."
        )
    if classes.dtype.kind in "OU":
        # Of a member of an Enum that is a string: its value, and not its name.
        return np.array([label.encode() for label in classes.tolist()])
    if classes.max() > np.iinfo(np.int64).max:
        raise TypeError(f"Numbers in ONNX are int64. Got the label {classes.max()}.")
    return classes.astype(np.int64)


def _convert(scope, operator, container):
    """Add an estimator to the graph; name and parameters are as skl2onnx asks for them."""
    model, graph = operator.raw_operator, _Graph(scope, container)
    label, response = operator.outputs
    if isinstance(model, MLPDiskEnsemble):
        scores = [graph.add_member(member, operator.inputs) for member in model.estimators_]
        add_average = graph.add_average_log_odds if _is_multilabel(model) else graph.add_average
        scores = add_average(scores, len(model.classes_))
    else:
        scores = graph.add_member(model, operator.inputs)
    wants_scores = container.get_options(model, {"raw_scores": False})["raw_scores"]
    if _is_multilabel(model):
        y = scores if wants_scores else graph.add("Sigmoid", scores)
        are_there = graph.add("Greater", scores, np.float32([0]))
        graph.add("Cast", are_there, to=TensorProto.INT64, output=label.full_name)
    else:
        log_odds = graph.add_log_odds(scores, len(model.classes_)) if wants_scores else None
        y = log_odds or graph.add("Softmax", scores, axis=1)
        positions = graph.add("ArgMax", scores, axis=1, keepdims=0)
        labels = _encode(get_label_classes(scope, model))
        graph.add("Gather", labels, positions, output=label.full_name)
    graph.add("Cast", y, to=guess_proto_type(response.type), output=response.full_name)


class _Graph:
    """Adds nodes to the graph that skl2onnx is making, and names what comes out of them."""

    def __init__(self, scope, container):
        self.scope = scope
        self.container = container

    def add(self, kind, *inputs, output=None, **attributes):
        """Add a node; its inputs are names of what is there, or arrays."""
        output = output or self.scope.get_unique_variable_name(kind)
        name = self.scope.get_unique_operator_name(kind)
        inputs = [self.add_array(x) if isinstance(x, np.ndarray) else x for x in inputs]
        self.container.add_node(kind, inputs, output, name=name, **attributes)
        return output

    def add_array(self, array):
        name = self.scope.get_unique_variable_name("array")
        content = array.ravel().tolist()
        self.container.add_initializer(name, KINDS[array.dtype.kind], array.shape, content)
        return name

    def add_member(self, member, inputs):
        """Add a classifier, with the steps before it, up to the scores of the classes."""
        if isinstance(member, Pipeline):
            *steps, (_, classifier) = member.steps
            return self.add_member(classifier, self.add_steps(steps, inputs) if steps else inputs)
        if get_parameters(member.module_) is None:
            raise TypeError(
                "Only a network as fit makes it can be converted. That of this MLPDiskClassifier "
                f"has been replaced or changed:\n{member.module_}\nFit it anew, or use "
                "torch.onnx.export on clf.module_, which computes log-probabilities."
            )
        columns = [self.add("Cast", x.full_name, to=TensorProto.FLOAT) for x in inputs]
        x = self.add("Concat", *columns, axis=1)
        *layers, _ = member.to_torch()
        for layer in layers:
            if isinstance(layer, nn.Linear):
                x = self.add("Gemm", x, layer.weight.numpy(), layer.bias.numpy(), transB=1)
            else:
                x = self.add_activation(layer, x)
        return x

    def add_steps(self, steps, inputs):
        steps = Pipeline(steps)
        operator = self.scope.declare_local_operator(get_model_alias(Pipeline), steps)
        operator.inputs = inputs
        operator.outputs.append(self.scope.declare_local_variable("rows", FloatTensorType()))
        return operator.outputs

    def add_activation(self, layer, x):
        if type(layer) is nn.SiLU:
            return self.add("Mul", x, self.add("Sigmoid", x))
        if type(layer) is nn.GELU:
            # x (1 + erf(x / sqrt(2))) / 2; the operator of this name came late.
            half, root = np.float32([0.5]), np.float32([math.sqrt(0.5)])
            erf = self.add("Erf", self.add("Mul", x, root))
            share = self.add("Add", self.add("Mul", erf, half), half)
            return self.add("Mul", x, share)
        return self.add(OPERATORS[type(layer)], x)

    def add_average(self, scores, n_classes):
        """Add the logarithms of the sums of the members' probabilities."""
        return self.add_log_sum([self.add("LogSoftmax", x, axis=1) for x in scores], n_classes)

    def add_average_log_odds(self, scores, n_labels):
        """Add the log-odds of the mean of the members' sigmoids."""
        opposite = [self.add("Neg", x) for x in scores]
        # -log(sigmoid(z)) is softplus(-z), and -log(1 - sigmoid(z)) is softplus(z).
        in_favour, against = (
            self.add_log_sum([self.add("Neg", self.add("Softplus", x)) for x in each], n_labels)
            for each in (opposite, scores)
        )
        return self.add("Sub", in_favour, against)

    def add_log_sum(self, log_probas, n_columns):
        """Add the logarithms of the sums of what is given by logarithms."""
        shape = np.array([1, -1, n_columns])
        stack = [self.add("Reshape", x, shape) for x in log_probas]
        return self.add_log_sum_exp(self.add("Concat", *stack, axis=0), axis=0)

    def add_log_odds(self, scores, n_classes):
        """Add by how much the score of a class is above the log-sum-exp of all others."""
        others = scores
        if n_classes > 1:
            without_itself = np.zeros((n_classes, n_classes), np.float32)
            np.fill_diagonal(without_itself, -np.inf)
            others = self.add("Reshape", scores, np.array([-1, 1, n_classes]))
            others = self.add_log_sum_exp(self.add("Add", others, without_itself), axis=2)
        return self.add("Sub", scores, others)

    def add_log_sum_exp(self, x, axis):
        # The axis is an attribute in older opsets, and an input in newer ones.
        if self.container.target_opset < 18:
            return self.add("ReduceLogSumExp", x, axes=[axis], keepdims=0)
        return self.add("ReduceLogSumExp", x, np.array([axis]), keepdims=0)
