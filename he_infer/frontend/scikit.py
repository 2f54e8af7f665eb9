"""scikit-learn's linear models and MLPs as graphs; outputs are decision values, not labels."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from scipy import sparse

from he_infer.errors import CompileError, InputError, Problem, UnsupportedLayersError
from he_infer.frontend.elementwise import agrees
from he_infer.plan import ir

_ACTIVATIONS: Final[Mapping[str, Callable[[ir.FloatArray], ir.FloatArray]]] = {
    "relu": lambda x: np.maximum(x, 0.0),
    "tanh": np.tanh,
    "logistic": lambda x: 0.5 * (1 + np.tanh(x / 2)),  # no overflow, unlike 1/(1+exp(−x))
}


def read_estimator(model: Any, records: ir.FloatArray) -> ir.Graph | None:
    """A fitted estimator as a graph, or None if ``model`` is not scikit-learn's.

    Linear models give ``X @ coef_.T + intercept_``; MLPs the values before their output
    activation. Raises UnsupportedLayersError for other estimators, CompileError if not fitted,
    InputError for records with another number of features.
    """
    if "sklearn" not in sys.modules or not type(model).__module__.startswith("sklearn."):
        return None
    kind = type(model).__name__
    shape = records.shape[1:]
    if hasattr(model, "coefs_"):
        weights = [np.asarray(w, dtype=np.float64).T for w in model.coefs_]
        biases = [np.asarray(b, dtype=np.float64) for b in model.intercepts_]
        return _network(weights, biases, str(model.activation), shape)
    if hasattr(model, "coef_") and hasattr(model, "intercept_"):
        coefficients = np.atleast_2d(np.asarray(_dense(model.coef_), dtype=np.float64))
        intercept = np.atleast_1d(np.asarray(model.intercept_, dtype=np.float64))
        bias = np.broadcast_to(intercept, (len(coefficients),)).copy()
        graph = _network([coefficients], [bias], "identity", shape)
        _compare(model, graph, records.reshape(len(records), -1))
        return graph
    if kind.startswith(("MLP", "Logistic", "Linear", "Ridge", "SGD")):
        raise CompileError(f"the {kind} is not fitted: call fit first")
    raise UnsupportedLayersError(
        [
            Problem(
                path=kind,
                what="only linear models and MLPs have an encrypted equivalent",
                remedy="train an MLPClassifier or LogisticRegression instead",
            )
        ]
    )


def _compare(model: Any, graph: ir.Graph, flat: ir.FloatArray) -> None:
    """Some estimators have coefficients but also center, exponentiate or vote."""
    ask = model.decision_function if hasattr(model, "decision_function") else model.predict
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about feature names, which arrays do not have
        expected = np.asarray(ask(flat), dtype=np.float64).reshape(len(flat), -1)
    if not agrees(graph, flat, expected, tolerance=1e-5):
        raise UnsupportedLayersError(
            [
                Problem(
                    path=type(model).__name__,
                    what="its answers are not its coefficients times the features",
                    remedy="fit a plain linear model on the same data",
                )
            ]
        )


def _network(
    weights: list[ir.FloatArray],
    biases: list[ir.FloatArray],
    activation: str,
    shape: tuple[int, ...],
) -> ir.Graph:
    expected = weights[0].shape[1]
    if math.prod(shape) != expected:
        raise InputError(
            f"the model takes {expected} features, the sample has records of shape {shape}"
        )
    nodes: list[ir.Node] = [ir.Input(name="input", shape=shape)]
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        if i and activation != "identity":
            if activation not in _ACTIVATIONS:
                raise CompileError(f"activation {activation} is not supported: use relu or tanh")
            nodes.append(
                ir.Activation(
                    name=f"{activation}{i}",
                    source=nodes[-1].name,
                    shape=nodes[-1].shape,
                    label=activation,
                    function=_ACTIVATIONS[activation],
                )
            )
        nodes.append(
            ir.Affine(
                name=f"layer{i + 1}",
                sources=(nodes[-1].name,),
                shape=(len(bias),),
                matrices=(sparse.csr_array(weight),),
                bias=bias,
            )
        )
    graph = ir.Graph(nodes=tuple(nodes))
    ir.verify(graph)
    return graph


def _dense(values: Any) -> Any:
    return values.toarray() if sparse.issparse(values) else values
