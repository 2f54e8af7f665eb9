"""How torch.fx looks at networks with polynomial activations."""

from __future__ import annotations

from torch import fx, nn

from he_infer.activations.layer import PolynomialActivation


class Tracer(fx.Tracer):
    """Keeps polynomials whole: they are one step of the graph, not a loop of Horner's rule."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, PolynomialActivation) or bool(
            super().is_leaf_module(m, module_qualified_name)
        )
