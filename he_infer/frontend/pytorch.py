"""A torch module becomes a Graph, by torch.fx and by asking each layer what it does.

Linear layers are not re-implemented: each one that is known to be affine is *probed* in
float64 with the unit vectors of its input, which gives its matrix whatever its stride,
padding, dilation, groups or pooling. A random point then confirms that it is affine, and the
whole graph is compared with the model on the sample. Everything that cannot be compiled is
collected, with its path and a remedy, before anything is raised.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.polynomial import chebyshev
from scipy import sparse
from torch import Tensor, fx, nn

from he_infer.activations.layer import PolynomialActivation
from he_infer.errors import CompileError, InputError, PackingError, Problem, UnsupportedLayersError
from he_infer.frontend.elementwise import polynomial_of, recogniser_of
from he_infer.frontend.torch_ops import (
    ELEMENTWISE_CALLS,
    ELEMENTWISE_MODULES,
    LINEAR_CALLS,
    LINEAR_MODULES,
    REMEDIES,
    name_of,
)
from he_infer.plan import ir

PROBE_BATCH: Final = 64  # every traced size() sees this batch, so that views stay consistent
MAX_WEIGHTS: Final = 50_000_000  # non-zero entries of one layer's matrix
_TOLERANCE: Final = 1e-8


def trace(model: nn.Module, sample: ir.FloatArray) -> ir.Graph:
    """Trace ``model`` on ``sample`` (batch, *record) into a graph that agrees with it.

    Raises UnsupportedLayersError listing every unsupported part, InputError if the model does
    not accept the sample, PackingError if a layer is too large.
    """
    module = copy.deepcopy(model).cpu().double().eval()
    if isinstance(module, (*LINEAR_MODULES, *ELEMENTWISE_MODULES, PolynomialActivation)):
        module = nn.Sequential(module)  # the tracer looks into its root, whatever it is
    try:
        traced = fx.GraphModule(module, _Tracer().trace(module))
    except (fx.proxy.TraceError, TypeError) as error:
        raise UnsupportedLayersError([_untraceable(error)]) from error
    return _Walk(traced, np.asarray(sample, dtype=np.float64)).run(module)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, PolynomialActivation) or super().is_leaf_module(
            m, module_qualified_name
        )


def _untraceable(error: Exception) -> Problem:
    return Problem(
        path="forward",
        what=f"its control flow depends on the data ({error})",
        remedy="encrypted values cannot be compared: remove the branch",
    )


@dataclass
class _Walk:
    """One pass over the traced graph; builds IR nodes and collects problems."""

    traced: fx.GraphModule
    sample: ir.FloatArray

    def __post_init__(self) -> None:
        self.nodes: list[ir.Node] = []
        self.names: dict[fx.Node, str] = {}  # computed tensors → IR node
        self.problems: list[Problem] = []
        self.values: dict[fx.Node, Any] = {}

    def run(self, module: nn.Module) -> ir.Graph:
        self._propagate()
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
        graph = self._finish(self.names[output])
        self._compare(graph, module)
        return graph

    def _propagate(self) -> None:
        """Run the model once at the probe batch and keep every intermediate value."""
        values = self.values

        class Recorder(fx.Interpreter):
            def run_node(self, n: fx.Node) -> Any:
                values[n] = super().run_node(n)
                return values[n]

        repeats = -(-PROBE_BATCH // len(self.sample))
        batch = np.concatenate([self.sample] * repeats)[:PROBE_BATCH]
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                Recorder(self.traced).run(torch.from_numpy(batch))
        except Exception as error:  # the model's own code: any exception is possible
            raise InputError(
                f"the model does not accept records of shape {self.sample.shape[1:]}: {error}"
            ) from error

    def _visit(self, node: fx.Node) -> None:
        value = self.values[node]
        if node.op == "placeholder":
            if self.names:
                self._problem(node, "a second input", "compile a model with one input tensor")
            else:
                self._add(node, ir.Input(name="input", shape=tuple(value.shape[1:])))
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
            self._add(node, self._polynomial_from_power(node, power))
        elif (product := self._product(node, computed)) is not None:
            self._add(node, product)
        elif (function := self._elementwise(node)) is not None:
            self._add(
                node,
                ir.Activation(
                    name=node.name,
                    source=self.names[computed[0]],
                    shape=tuple(value.shape[1:]),
                    label=name_of(node, self.traced),
                    function=function,
                ),
            )
        elif node.op == "call_module" and isinstance(
            module := self.traced.get_submodule(str(node.target)), PolynomialActivation
        ):
            self._add(node, self._polynomial_from_module(node, module))
        elif self._is_linear(node, computed):
            self._add(node, self._probe(node, computed))
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
            self._add(node, ir.Input(name=node.name, shape=tuple(value.shape[1:])))

    def _add(self, node: fx.Node, result: ir.Node) -> None:
        self.nodes.append(result)
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
                return np.asarray(self._call(node, {source: tensor}).numpy())

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
        found = recogniser_of(self.nodes).product(first, second)
        shape = tuple(self.values[node].shape[1:])
        return None if found is None else polynomial_of(node.name, found[0], shape, found[1])

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

    # -- building ------------------------------------------------------------------

    def _call(self, node: fx.Node, replaced: dict[fx.Node, Tensor]) -> Tensor:
        """The node's own computation with some of its input tensors replaced."""
        # Clones, because a layer may work in place.
        args, kwargs = fx.node.map_arg(
            (node.args, node.kwargs),
            lambda n: replaced[n].clone() if n in replaced else self.values[n],
        )
        target: Any = node.target
        if node.op == "call_module":
            result = self.traced.get_submodule(str(target))(*args, **kwargs)
        elif node.op == "call_method":
            result = getattr(args[0], str(target))(*args[1:], **kwargs)
        else:
            result = target(*args, **kwargs)
        return torch.as_tensor(result)

    def _probe(self, node: fx.Node, computed: list[fx.Node]) -> ir.Affine:
        shape = tuple(self.values[node].shape[1:])
        zeros = {c: torch.zeros_like(self.values[c]) for c in computed}
        with torch.no_grad():
            offset = self._call(node, zeros)[0].reshape(-1).numpy().astype(np.float64)
            matrices = [self._probe_one(node, c, zeros, offset) for c in computed]
            random = {c: torch.randn_like(z) for c, z in zeros.items()}
            actual = self._call(node, random).reshape(PROBE_BATCH, -1).numpy()
        expected = offset + sum(
            (m @ random[c].reshape(PROBE_BATCH, -1).numpy().T).T
            for m, c in zip(matrices, computed, strict=True)
        )
        if not np.allclose(actual, expected, rtol=_TOLERANCE, atol=_TOLERANCE):
            raise CompileError(
                f"{node.name} is not linear in evaluation mode: it changes its answer between "
                "calls or its weights are not finite"
            )
        return ir.Affine(
            name=node.name,
            sources=tuple(self.names[c] for c in computed),
            shape=shape,
            matrices=tuple(matrices),
            bias=offset,
        )

    def _probe_one(
        self, node: fx.Node, source: fx.Node, zeros: dict[fx.Node, Tensor], offset: ir.FloatArray
    ) -> ir.Matrix:
        record = self.values[source].shape[1:]
        size = record.numel()
        rows: list[sparse.csr_array] = []
        weights = 0
        for start in range(0, size, PROBE_BATCH):
            basis = torch.zeros(PROBE_BATCH, size, dtype=torch.float64)
            count = min(PROBE_BATCH, size - start)
            basis[torch.arange(count), start + torch.arange(count)] = 1.0
            out = self._call(node, {**zeros, source: basis.reshape(PROBE_BATCH, *record)})
            part = sparse.csr_array(out.reshape(PROBE_BATCH, -1).numpy()[:count] - offset)
            weights += part.nnz
            if weights > MAX_WEIGHTS:
                raise PackingError(
                    f"{node.name} has more than {MAX_WEIGHTS:,} weights once unrolled: "
                    "use smaller feature maps or fewer channels"
                )
            rows.append(part)
        return sparse.csr_array(sparse.vstack(rows).T)

    def _polynomial_from_power(self, node: fx.Node, power: int) -> ir.Polynomial:
        source = node.all_input_nodes[0]
        shape = tuple(self.values[node].shape[1:])
        size = int(np.prod(shape))
        chebyshev_row = chebyshev.poly2cheb([0.0] * power + [1.0])
        return ir.Polynomial(
            name=node.name,
            source=self.names[source],
            shape=shape,
            coefficients=np.tile(chebyshev_row, (size, 1)),
            center=np.zeros(size),
            radius=np.ones(size),
        )

    def _polynomial_from_module(self, node: fx.Node, module: PolynomialActivation) -> ir.Polynomial:
        shape = tuple(self.values[node].shape[1:])
        per_channel = [
            np.broadcast_to(value.detach().double().numpy(), (shape[0], *value.shape[1:]))
            for value in (module.coefficients, module.center, module.radius)
        ]
        coefficients = np.zeros_like(per_channel[0])
        for i, row in enumerate(per_channel[0]):
            converted = chebyshev.poly2cheb(row)  # without trailing zeros
            coefficients[i, : len(converted)] = converted
        repeat = int(np.prod(shape[1:]))
        return ir.Polynomial(
            name=node.name,
            source=self.names[node.all_input_nodes[0]],
            shape=shape,
            coefficients=np.repeat(coefficients, repeat, axis=0),
            center=np.repeat(per_channel[1], repeat),
            radius=np.repeat(per_channel[2], repeat),
        )

    # -- finishing -----------------------------------------------------------------

    def _finish(self, output: str) -> ir.Graph:
        """Keep what the output needs, in order, with the output last."""
        needed = {output}
        for node in reversed(self.nodes):
            if node.name in needed:
                needed.update(node.sources)
        kept = [n for n in self.nodes if n.name in needed or isinstance(n, ir.Input)]
        graph = ir.Graph(nodes=tuple(kept))
        if graph.output.name != output:
            raise CompileError(f"{output} is not the last layer that runs")
        ir.verify(graph)
        return graph

    def _compare(self, graph: ir.Graph, module: nn.Module) -> None:
        records = self.sample[:PROBE_BATCH]
        with torch.no_grad():
            expected = module(torch.from_numpy(records)).reshape(len(records), -1).numpy()
        got = ir.evaluate(graph, records.reshape(len(records), -1))[graph.output.name]
        scale = max(1.0, float(np.abs(expected).max()))
        if not np.allclose(got, expected, rtol=1e-6, atol=1e-6 * scale):
            raise CompileError(
                "the traced graph does not reproduce the model: does it change its answer "
                "between calls or depend on the batch?"
            )
