"""Runs a traced model once, and asks its linear parts for their matrices.

A part that is known to be affine is *probed* in float64 with the unit vectors of its input. That
gives its matrix whatever its stride, padding, dilation, groups or pooling. A random point then
confirms that it is affine.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, fx

from he_infer.errors import CompileError, InputError, PackingError
from he_infer.plan import ir

PROBE_BATCH: Final = 64  # every traced size() sees this batch, so that views stay consistent
MAX_WEIGHTS: Final = 50_000_000  # non-zero entries of one layer's matrix
_TOLERANCE: Final = 1e-8


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run of ``traced`` at the probe batch; ``values`` holds what every node computed."""

    traced: fx.GraphModule
    values: Mapping[fx.Node, Any]

    def record_shape(self, node: fx.Node) -> tuple[int, ...]:
        """The shape of one record of the node's tensor."""
        return tuple(self.values[node].shape[1:])

    def call(self, node: fx.Node, replaced: Mapping[fx.Node, Tensor]) -> Tensor:
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

    def probe(self, node: fx.Node, sources: Mapping[fx.Node, str]) -> ir.Affine:
        """The node as an Affine of ``sources``, its computed inputs by their names in the graph.

        Raises CompileError if it is not affine, PackingError if its matrix is too large.
        """
        zeros = {source: torch.zeros_like(self.values[source]) for source in sources}
        with torch.no_grad():
            offset = self.call(node, zeros)[0].reshape(-1).numpy().astype(np.float64)
            matrices = [self._matrix(node, source, zeros, offset) for source in sources]
            random = {source: torch.randn_like(zero) for source, zero in zeros.items()}
            actual = self.call(node, random).reshape(PROBE_BATCH, -1).numpy()
        expected = offset + sum(
            (matrix @ random[source].reshape(PROBE_BATCH, -1).numpy().T).T
            for matrix, source in zip(matrices, sources, strict=True)
        )
        if not np.allclose(actual, expected, rtol=_TOLERANCE, atol=_TOLERANCE):
            raise CompileError(
                f"{node.name} is not linear in evaluation mode: it changes its answer between "
                "calls or its weights are not finite"
            )
        return ir.Affine(
            name=node.name,
            sources=tuple(sources.values()),
            shape=self.record_shape(node),
            matrices=tuple(matrices),
            bias=offset,
        )

    def _matrix(
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
            out = self.call(node, {**zeros, source: basis.reshape(PROBE_BATCH, *record)})
            part = sparse.csr_array(out.reshape(PROBE_BATCH, -1).numpy()[:count] - offset)
            weights += part.nnz
            if weights > MAX_WEIGHTS:
                raise PackingError(
                    f"{node.name} has more than {MAX_WEIGHTS:,} weights once unrolled: "
                    "use smaller feature maps or fewer channels"
                )
            rows.append(part)
        return sparse.csr_array(sparse.vstack(rows).T)


def run_once(traced: fx.GraphModule, sample: ir.FloatArray) -> Run:
    """Run the model on ``sample``, (batch, *record), repeated to the probe batch.

    Raises InputError if the model does not accept it.
    """
    values: dict[fx.Node, Any] = {}

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            values[n] = super().run_node(n)
            return values[n]

    repeats = -(-PROBE_BATCH // len(sample))
    batch = np.concatenate([sample] * repeats)[:PROBE_BATCH]
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Recorder(traced).run(torch.from_numpy(batch))
    except Exception as error:  # the model's own code: any exception is possible
        raise InputError(
            f"the model does not accept records of shape {sample.shape[1:]}: {error}"
        ) from error
    return Run(traced=traced, values=values)
