"""Finds every activation of a network and gives each one a module of its own."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch
from torch import fx, nn
from torch.nn import functional

from he_infer.activations.approx import Array, Function, gelu, relu, sigmoid, silu, softplus, tanh
from he_infer.activations.tracing import Tracer

# Activations with a closed form in approx.functions, and so with exact derivatives and series.
_NAMED: Final[Mapping[type[nn.Module], Function]] = {
    nn.ReLU: relu,
    nn.Sigmoid: sigmoid,
    nn.Tanh: tanh,
    nn.GELU: gelu,
    nn.SiLU: silu,
    nn.Softplus: softplus,
}
# Every elementwise activation with no weights: the others are approximated by calling them.
ELEMENTWISE: Final = (
    *_NAMED,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.ELU,
    nn.CELU,
    nn.SELU,
    nn.Hardtanh,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.Mish,
    nn.LogSigmoid,
    nn.Softsign,
)
# Non-linear modules that no polynomial of one variable can stand in for.
_NOT_ELEMENTWISE: Final = (
    nn.PReLU,
    nn.Softmax,
    nn.LogSoftmax,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.AdaptiveMaxPool2d,
    nn.MultiheadAttention,
)
# Calls that take no argument but the input, by the name of the function or method.
_METHODS: Final[Mapping[str, type[nn.Module]]] = {
    "relu": nn.ReLU,
    "relu_": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
}
_FUNCTIONS: Final[Mapping[Any, type[nn.Module]]] = {
    getattr(space, name): kind
    for name, kind in {
        **_METHODS,
        "gelu": nn.GELU,
        "silu": nn.SiLU,
        "softplus": nn.Softplus,
    }.items()
    for space in (torch, functional)
    if hasattr(space, name)
}
# Functions that are reported when they cannot be replaced.
_ACTIVE_NAMES: Final = frozenset(
    "relu sigmoid tanh gelu silu softplus leaky_relu elu softmax max_pool2d boolean_dispatch "
    "hardtanh relu6 mish".split()
)
_NORMS: Final = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def function_of(module: nn.Module) -> Function:
    """The module's function on numpy arrays; the exact named one wherever there is one."""
    # Variants with parameters (tanh-GELU, another beta) are not the named functions.
    plain = not (isinstance(module, nn.GELU) and module.approximate != "none") and not (
        isinstance(module, nn.Softplus) and module.beta != 1
    )
    named = _NAMED.get(type(module))
    if named is not None and plain:
        return named
    twin = copy.deepcopy(module).double()

    def call(x: Array) -> Array:
        with torch.no_grad():
            result = twin(torch.from_numpy(np.array(x, dtype=np.float64)))
        return np.asarray(result.numpy(), dtype=np.float64)

    return call


def separate_activations(model: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """Copy the network so that each activation *call* is a module of its own.

    Functional calls (F.relu, torch.relu, x.relu() …) become modules, and a module that is
    called several times is duplicated, because each call has its own interval. The copy keeps
    its class unless the graph had to be rewritten, when it becomes an fx.GraphModule.
    Returns (copy, what could not be handled, in words).
    """
    model = copy.deepcopy(model)
    left = [
        f"{name}: {type(module).__name__} is not an elementwise activation"
        for name, module in model.named_modules()
        if isinstance(module, _NOT_ELEMENTWISE)
    ]
    graph, failure = _trace(model)
    if graph is None:
        left.append(
            f"forward of {type(model).__name__} cannot be traced ({failure}): functional "
            "activations in it, if any, stay; write them as modules"
        )
        return model, tuple(left)
    modules = dict(model.named_modules(remove_duplicate=False))
    seen: set[int] = set()
    rewritten = False
    for node in list(graph.nodes):
        replacement = _needs_module(node, modules, seen)
        if replacement is None:
            if node.op == "call_function" and getattr(node.target, "__name__", "") in _ACTIVE_NAMES:
                left.append(f"{node.name}: {node.target.__name__} with arguments of its own")
            continue
        name = f"{node.name}_activation"
        model.add_module(name, replacement.train(model.training))
        with graph.inserting_before(node):
            new = graph.call_module(
                name, args=(node.args[0] if node.args else node.kwargs["input"],)
            )
        node.replace_all_uses_with(new)
        graph.erase_node(node)
        rewritten = True
    if not rewritten:
        return model, tuple(left)
    result = fx.GraphModule(model, graph)
    result.train(model.training)
    return result, tuple(left)


def activation_sites(model: nn.Module) -> dict[str, nn.Module]:
    """Activation modules by path, in the order in which the network holds them."""
    modules: list[tuple[str, nn.Module]] = list(model.named_modules())
    return {name: m for name, m in modules if isinstance(m, ELEMENTWISE)}


def normalised_sites(model: nn.Module) -> frozenset[str]:
    """Paths of activations whose input comes straight from a batch norm; empty if untraceable."""
    graph, _ = _trace(model)
    if graph is None:
        return frozenset()
    modules = dict(model.named_modules(remove_duplicate=False))
    found = set()
    for node in graph.nodes:
        if node.op != "call_module" or not node.all_input_nodes:
            continue
        before = node.all_input_nodes[0]
        if before.op == "call_module" and isinstance(modules[str(before.target)], _NORMS):
            found.add(str(node.target))
    return frozenset(found)


def replace_module(model: nn.Module, path: str, new: nn.Module) -> None:
    """Put ``new`` where the module at ``path`` is, in place."""
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, new)


def _trace(model: nn.Module) -> tuple[fx.Graph | None, str]:
    try:
        return Tracer().trace(model), ""
    except Exception as error:  # whatever a user's forward raises on symbolic values
        return None, type(error).__name__


def _needs_module(
    node: fx.Node, modules: Mapping[str, nn.Module], seen: set[int]
) -> nn.Module | None:
    """The module to put at this node: for functional calls and repeated module calls only."""
    if node.op == "call_module":
        module = modules[str(node.target)]
        if not isinstance(module, ELEMENTWISE):
            return None
        repeated = id(module) in seen
        seen.add(id(module))
        return copy.deepcopy(module) if repeated else None
    kind: type[nn.Module] | None = None
    if node.op == "call_method" and len(node.args) == 1:
        kind = _METHODS.get(str(node.target))
    elif node.op == "call_function" and _plain_call(node):
        kind = _FUNCTIONS.get(node.target)
    return None if kind is None else kind()


def _plain_call(node: fx.Node) -> bool:
    """No argument but the input, or keywords left at their defaults."""
    defaults: dict[str, Any] = {"inplace": None, "approximate": "none", "beta": 1, "threshold": 20}
    others = {key: value for key, value in node.kwargs.items() if key != "input"}
    return len(node.args) <= 1 and all(
        key == "inplace" or (key in defaults and value == defaults[key])
        for key, value in others.items()
    )
