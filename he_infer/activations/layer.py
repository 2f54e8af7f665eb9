"""Polynomial activations: the only non-linearity that CKKS evaluates.

The compiler turns a quadratic ``a·x² + b·x`` into the square ``a·(x + b/2a)²``, which costs one
level. A channel whose ``a`` is tiny next to its ``b`` would need a large shift and lose precision
in the fixed-point arithmetic underneath, so training keeps both ``|a|`` and ``|b/2a|`` bounded
(:meth:`PolynomialActivation.keep_curved`) and keeps inputs inside a known interval
(:meth:`PolynomialActivation.range_penalty`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from he_infer.errors import ApproximationError, InputError


class PolynomialActivation(nn.Module):
    """``y = Σ_k coefficients[c, k] · u^k`` with ``u = (x - center[c]) / radius[c]``, per channel.

    ``coefficients``: (channels, degree + 1), ascending powers, learnable.
    ``center``, ``radius``: (channels,) buffers; the interval the polynomial is meant for is
    ``center ± radius`` when the coefficients were fitted to one.
    One channel is shared by all channels of the input; the channel dimension of x is dim 1.
    Raises ApproximationError for shapes, degrees or values that describe no polynomial.
    """

    coefficients: nn.Parameter
    center: Tensor
    radius: Tensor

    def __init__(
        self, coefficients: Tensor, *, center: Tensor | float = 0.0, radius: Tensor | float = 1.0
    ) -> None:
        super().__init__()
        if coefficients.ndim != 2 or coefficients.shape[0] < 1 or coefficients.shape[1] < 2:
            raise ApproximationError(
                f"coefficients have shape {tuple(coefficients.shape)}: expected "
                "(channels, degree + 1) with at least one channel and degree 1"
            )
        channels = coefficients.shape[0]
        self.coefficients = nn.Parameter(coefficients.detach().clone())
        self.register_buffer("center", _per_channel(center, channels, coefficients.dtype))
        self.register_buffer("radius", _per_channel(radius, channels, coefficients.dtype))
        tensors = (self.coefficients, self.center, self.radius)
        if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
            raise ApproximationError("coefficients, center and radius must be finite numbers")
        if not bool((self.radius > 0).all()):
            raise ApproximationError("every radius must be positive: it is half an interval")

    @classmethod
    def quadratic(cls, channels: int, *, a: float = 0.1, b: float = 0.5) -> PolynomialActivation:
        """One quadratic ``a·x² + b·x`` per channel, all alike, as training starts from."""
        if channels < 1:
            raise ApproximationError(f"{channels} channels: expected at least one")
        return cls(torch.tensor([[0.0, b, a]]).repeat(channels, 1))

    @property
    def channels(self) -> int:
        return int(self.coefficients.shape[0])

    @property
    def degree(self) -> int:
        return int(self.coefficients.shape[1]) - 1

    def forward(self, x: Tensor) -> Tensor:
        """Evaluate by Horner's rule; x is (batch, channels, ...), and so is the result.

        Raises InputError if x has no channel dimension or another number of channels.
        """
        u = self._normalised(x)
        shape = (1, -1) + (1,) * (x.ndim - 2)
        columns = [column.reshape(shape) for column in self.coefficients.unbind(dim=1)]
        y = columns[-1]
        for column in reversed(columns[:-1]):
            y = y * u + column
        return y

    def range_penalty(self, x: Tensor, limit: float) -> Tensor:
        """Mean of ``max(0, |u| - limit)²`` over x: zero while inputs stay inside ``limit``.

        Polynomials grow without bound outside the interval they were trained on, and an
        encrypted evaluation cannot clip; the loss has to keep the inputs inside.
        """
        excess = torch.relu(self._normalised(x).abs() - limit)
        return (excess * excess).mean()

    @torch.no_grad()
    def keep_curved(self, *, min_leading: float, max_shift: float) -> None:
        """Move each quadratic to the nearest ``a`` with |a| ≥ min_leading, |b/2a| ≤ max_shift.

        In place, signs kept; the constant is set to zero, since the bias of the next layer
        carries it. Raises ApproximationError unless the degree is two and both bounds positive.
        """
        if self.degree != 2:
            raise ApproximationError(f"degree {self.degree}: only quadratics complete to a square")
        if not (min_leading > 0 and max_shift > 0):
            raise ApproximationError("min_leading and max_shift must both be positive")
        constant, b, a = self.coefficients.unbind(dim=1)
        floor = torch.clamp(b.abs() / (2 * max_shift), min=min_leading)
        sign = torch.where(a < 0, -1.0, 1.0)
        a.copy_(sign * torch.maximum(a.abs(), floor))
        constant.zero_()

    def extra_repr(self) -> str:
        return f"channels={self.channels}, degree={self.degree}"

    def _normalised(self, x: Tensor) -> Tensor:
        if x.ndim < 2 or self.channels not in (1, x.shape[1]):
            raise InputError(
                f"an activation for {self.channels} channel(s) got shape {tuple(x.shape)}: "
                "expected (batch, channels, ...)"
            )
        shape = (1, -1) + (1,) * (x.ndim - 2)
        return (x - self.center.reshape(shape)) / self.radius.reshape(shape)


def _per_channel(value: Tensor | float, channels: int, dtype: torch.dtype) -> Tensor:
    """A scalar repeated, or a (channels,) tensor copied."""
    tensor = torch.as_tensor(value, dtype=dtype).detach()
    if tensor.ndim == 0:
        return tensor.repeat(channels)
    if tuple(tensor.shape) != (channels,):
        raise ApproximationError(
            f"center and radius have shape {tuple(tensor.shape)}: expected ({channels},)"
        )
    return tensor.clone()
