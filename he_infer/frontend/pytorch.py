"""A torch module becomes a Graph, by torch.fx and by asking each layer what it does.

Linear layers are not re-implemented: each one is probed for its matrix (see ``probing``), and the
whole graph is compared with the model on the sample. Everything that cannot be compiled is
collected, with its path and a remedy, before anything is raised.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, fx, nn

from he_infer.activations.layer import PolynomialActivation
from he_infer.activations.tracing import Tracer
from he_infer.errors import CompileError, Problem, UnsupportedLayersError
from he_infer.frontend.elementwise import Recogniser, agrees, polynomial_of
from he_infer.frontend.probing import PROBE_BATCH, Run, run_once
from he_infer.frontend.torch_ops import (
    ELEMENTWISE_CALLS,
    ELEMENTWISE_MODULES,
    LINEAR_CALLS,
    LINEAR_MODULES,
    REMEDIES,
    name_of,
)
from he_infer.plan import ir


def trace(model: nn.Module, sample: ir.FloatArray) -> ir.Graph:
    """Trace ``model`` on ``sample`` (batch, *record) into a graph that agrees with it.

    Raises UnsupportedLayersError listing every unsupported part, InputError if the model does
    not accept the sample, PackingError if a layer is too large.
    """
    module = copy.deepcopy(model).cpu().double().eval()
    if isinstance(module, (*LINEAR_MODULES, *ELEMENTWISE_MODULES, PolynomialActivation)):
        module = nn.Sequential(module)  # the tracer looks into its root, whatever it is
    try:
        traced = fx.GraphModule(module, Tracer().trace(module))
    except (fx.proxy.TraceError, TypeError) as error:
        problem = Problem(
            path="forward",
            what=f"its control flow depends on the data ({error})",
            remedy="encrypted values cannot be compared: remove the branch",
        )
        raise UnsupportedLayersError([problem]) from error
    records = np.asarray(sample, dtype=np.float64)
    graph = _Walk(run_once(traced, records)).build()
    _compare(graph, module, records[:PROBE_BATCH])
    return graph


class _Walk:
    """One pass over a run of the traced graph; builds IR nodes and collects problems."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.traced = run.traced
        self.values = run.values
        self.nodes: list[ir.Node] = []
        self.recogniser = Recogniser()
        self.names: dict[fx.Node, str] = {}  # computed tensors → IR node
        self.problems: list[Problem] = []

    def build(self) -> ir.Graph:
        for node in self.traced.graph.nodes:
            if node.op == "output":
                output = node.args[0]
                break
            self._visit(node)
        if not isinstance(output, fx.Node) or output not in self.names:
            self.problems.append(
                Problem(
                    path="output",
                    what="the model must return one tensor computed from its input",
                    remedy="return the logits alone",
                )
            )
        if self.problems:
            raise UnsupportedLayersError(self.problems)
        return _needed(self.nodes, self.names[output])

    def _visit(self, node: fx.Node) -> None:
        value = self.values[node]
        if node.op == "placeholder":
            if self.names:
                self._problem(node, "a second input", "compile a model with one input tensor")
            else:
                self._add(node, ir.Input(name="input", shape=self.run.record_shape(node)))
            return
        computed = [a for a in node.all_input_nodes if a in self.names]
        if (
            node.op == "get_attr"
            or not computed
            or isinstance(value, torch.Size)
            or not isinstance(value, Tensor | tuple | list)
        ):
            return  # constants and sizes: already in self.values
        if not isinstance(value, Tensor) or value.ndim == 0 or value.shape[0] != PROBE_BATCH:
            self._problem(
                node,
                "it mixes the records of a batch or returns several tensors",
                "keep dimension 0 for the batch and return one tensor",
            )
        elif (power := self._power(node)) is not None:
            self._add(node, self._polynomial(node, np.array([[0.0] * power + [1.0]])))
        elif (product := self._product(node, computed)) is not None:
            self._add(node, product)
        elif (function := self._elementwise(node)) is not None:
            self._add(
                node,
                ir.Activation(
                    name=node.name,
                    source=self.names[computed[0]],
                    shape=self.run.record_shape(node),
                    label=name_of(node, self.traced),
                    function=function,
                ),
            )
        elif node.op == "call_module" and isinstance(
            module := self.traced.get_submodule(str(node.target)), PolynomialActivation
        ):
            coefficients, center, radius = (
                value.detach().double().numpy()
                for value in (module.coefficients, module.center, module.radius)
            )
            self._add(node, self._polynomial(node, coefficients, center=center, radius=radius))
        elif self._is_linear(node, computed):
            self._add(node, self.run.probe(node, {c: self.names[c] for c in computed}))
        else:
            kind = name_of(node, self.traced)
            remedy = REMEDIES.get(kind.lower(), "replace it with linear layers and polynomials")
            self._problem(node, f"{kind} has no encrypted equivalent", remedy)

    def _problem(self, node: fx.Node, what: str, remedy: str) -> None:
        path = str(node.target) if node.op == "call_module" else node.name
        self.problems.append(Problem(path=path, what=what, remedy=remedy))
        value = self.values[node]
        if isinstance(value, Tensor) and value.ndim and value.shape[0] == PROBE_BATCH:
            # Stand-in, so that what follows is checked too; never leaves this walk.
            self._add(node, ir.Input(name=node.name, shape=self.run.record_shape(node)))

    def _add(self, node: fx.Node, result: ir.Node) -> None:
        self.nodes.append(result)
        self.recogniser.add(result)
        self.names[node] = result.name

    # -- recognising ---------------------------------------------------------------

    def _elementwise(self, node: fx.Node) -> Callable[[ir.FloatArray], ir.FloatArray] | None:
        if node.op == "call_module":
            module = self.traced.get_submodule(str(node.target))
            if not isinstance(module, ELEMENTWISE_MODULES):
                return None
            if isinstance(module, nn.PReLU) and module.num_parameters > 1:
                return None
        elif node.target not in ELEMENTWISE_CALLS or len(node.all_input_nodes) != 1:
            return None
        source = node.all_input_nodes[0]

        def function(x: ir.FloatArray) -> ir.FloatArray:
            with torch.no_grad():
                tensor = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float64))
                return np.asarray(self.run.call(node, {source: tensor}).numpy())

        return function

    def _power(self, node: fx.Node) -> int | None:
        """k if the node computes x**k for a whole k ≥ 2."""
        name, args = name_of(node, self.traced).lower(), node.args
        if node.op == "call_module":
            return None
        if name == "square":
            return 2
        if name == "mul" and len(args) == 2 and args[0] is args[1]:
            return 2
        if name == "pow" and len(args) == 2 and isinstance(args[1], int | float):
            return int(args[1]) if args[1] == int(args[1]) and args[1] >= 2 else None
        return None

    def _product(self, node: fx.Node, computed: list[fx.Node]) -> ir.Polynomial | None:
        """a · b where both are polynomials of one tensor, such as 0.3 * x * x."""
        if len(computed) != 2 or name_of(node, self.traced).lower() != "mul":
            return None
        first, second = (self.names[c] for c in computed)
        if self.values[computed[0]].shape != self.values[computed[1]].shape:
            return None
        found = self.recogniser.product(first, second)
        if found is None:
            return None
        root, form = found
        return polynomial_of(node.name, root, self.run.record_shape(node), form)

    def _polynomial(
        self,
        node: fx.Node,
        form: ir.FloatArray,
        *,
        center: ir.FloatArray | float = 0.0,
        radius: ir.FloatArray | float = 1.0,
    ) -> ir.Polynomial:
        source = self.names[node.all_input_nodes[0]]
        shape = self.run.record_shape(node)
        return polynomial_of(node.name, source, shape, form, center=center, radius=radius)

    def _is_linear(self, node: fx.Node, computed: list[fx.Node]) -> bool:
        if node.op == "call_module":
            return isinstance(self.traced.get_submodule(str(node.target)), LINEAR_MODULES)
        name = name_of(node, self.traced).lower()
        if name in {"mul", "matmul"} and len(computed) > 1:
            return False
        if name in {"div", "truediv"} and node.args[0] not in self.names:
            return False  # constant / x
        if name in {"div", "truediv"} and len(computed) > 1:
            return False
        if name == "dropout" and node.kwargs.get("training", True) is not False:
            return False
        return node.target in LINEAR_CALLS


def _needed(nodes: Sequence[ir.Node], output: str) -> ir.Graph:
    """The graph of what the output needs, in order, with the output last."""
    needed = {output}
    for node in reversed(nodes):
        if node.name in needed:
            needed.update(node.sources)
    kept = [n for n in nodes if n.name in needed or isinstance(n, ir.Input)]
    graph = ir.Graph(nodes=tuple(kept))
    if graph.output.name != output:
        raise CompileError(f"{output} is not the last layer that runs")
    ir.verify(graph)
    return graph


def _compare(graph: ir.Graph, module: nn.Module, records: ir.FloatArray) -> None:
    with torch.no_grad():
        expected = module(torch.from_numpy(records)).reshape(len(records), -1).numpy()
    if not agrees(graph, records, expected, tolerance=1e-6):
        raise CompileError(
            "the traced graph does not reproduce the model: does it change its answer "
            "between calls or depend on the batch?"
        )
