"""The weights behind quadratic forms: simultaneous diagonalisation of Aₖ = Wᵀdiag(aₖ)W.

Two random combinations of the forms, in the row space that all share, satisfy
M₁⁻¹M₂ = W⁻¹ diag(ratios) W, so its eigenvectors are the columns of W⁻¹: the rows of W follow up to
scale, sign and order, which is all that the scores determine (Kruskal 1977; the construction is
that of Leurgans, Ross and Abel 1993 for tensors).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attacks.core.arrays import Floats
from attacks.errors import AbilityError
from attacks.extraction.exact.quadratic_forms import Centering, QuadraticForms

_COMBINATIONS = 60


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HiddenLayer:
    """A layer of squares and what follows it: a stolen model, in the inputs' own units.

    Scores are ``outputs`` (Wx + b)² + ``remainder`` x + ``constants``. ``weights`` (h, d), rows of
    unit length, the largest entry positive, strongest channel first; ``biases`` (h,); ``outputs``
    (classes, h); ``remainder`` (classes, d), zero up to noise when every channel is quadratic;
    ``constants`` (classes,).
    """

    weights: Floats
    biases: Floats
    outputs: Floats
    remainder: Floats
    constants: Floats

    def scores(self, inputs: Floats) -> Floats:
        """(B, *input_shape) → (B, classes)."""
        flat = inputs.reshape(len(inputs), -1)
        result: Floats = (
            (flat @ self.weights.T + self.biases) ** 2 @ self.outputs.T
            + flat @ self.remainder.T
            + self.constants
        )
        return result


def recover_weights(
    model: QuadraticForms, rng: np.random.Generator, *, rank: int | None = None
) -> HiddenLayer:
    """The hidden layer of a square network from its forms.

    ``rank``: how many channels; read off the spectrum at a relative 1e-9 if not given, which
    suits exact forms only. With more channels than features the forms do not determine them, and
    what comes back does not reproduce them: compare the two. Raises AbilityError for one single
    form, which is diagonal in infinitely many bases.
    """
    classes, d, _ = model.forms.shape
    if _independent_forms(model.forms) < 2:
        raise AbilityError(
            "weights follow from two or more independent forms, got one: a single score is the "
            "same for every rotation of its channels"
        )
    stacked = model.forms.transpose(1, 0, 2).reshape(d, classes * d)
    basis, spectrum, _ = np.linalg.svd(stacked, full_matrices=False)
    found = int(np.count_nonzero(spectrum > 1e-9 * spectrum[0]))
    basis = basis[:, : min(found if rank is None else rank, d)]
    cores = np.einsum("di,kde,ej->kij", basis, model.forms, basis, optimize=True)
    rows = _diagonaliser(cores, rng) @ basis.T  # (h, d), rows of unit length
    # Aₖ = Wᵀdiag(aₖ)W is linear in aₖ once W is known.
    products = np.einsum("hi,hj->hij", rows, rows).reshape(len(rows), -1)
    outputs = np.linalg.lstsq(products.T, model.forms.reshape(classes, -1).T, rcond=None)[0].T
    return layer_of(rows, outputs, model.linear, model.constants, model.centering)


def layer_of(
    rows: Floats, outputs: Floats, linear: Floats, constants: Floats, centering: Centering
) -> HiddenLayer:
    """The layer of scores aₖ·(Wz)² + lₖ·z + cₖ of centred z, its squares completed.

    ``rows`` W (h, d), ``outputs`` aₖ (classes, h), ``linear`` lₖ (classes, d), ``constants`` cₖ.
    """
    lengths = np.linalg.norm(rows, axis=1)
    signs = np.sign(rows[np.arange(len(rows)), np.abs(rows).argmax(axis=1)])
    rows = rows * (signs / lengths)[:, None]
    outputs = outputs * lengths**2
    order = np.argsort(-np.linalg.norm(outputs, axis=0), kind="stable")
    rows, outputs = rows[order], outputs[:, order]
    # lₖ = Wᵀ(2aₖ∘b) for every k: least squares for b, weighted by how much a channel matters.
    pulled = np.linalg.lstsq(rows.T, linear.T, rcond=None)[0]  # (h, classes)
    power = np.maximum(np.sum(outputs**2, axis=0), np.finfo(np.float64).tiny)
    biases = np.sum(pulled * outputs.T, axis=1) / (2 * power)
    rest = linear - 2 * (outputs * biases) @ rows
    scale = centering.half_width
    shift = np.full(rows.shape[1], centering.center / scale)
    # z = x/scale − shift.
    return HiddenLayer(
        weights=rows,
        biases=(biases - rows @ shift) * scale,
        outputs=outputs / scale**2,
        remainder=rest / scale,
        constants=constants - outputs @ biases**2 - rest @ shift,
    )


def _independent_forms(forms: Floats) -> int:
    spectrum = np.linalg.svd(forms.reshape(len(forms), -1), compute_uv=False)
    return int(np.count_nonzero(spectrum > 1e-9 * spectrum[0]))


def _diagonaliser(cores: Floats, rng: np.random.Generator) -> Floats:
    """Rows (r, r) of unit length that diagonalise all ``cores`` (classes, r, r).

    Of many random pairs of combinations, the one that leaves least off the diagonal; channels
    whose ratios nearly coincide in one pair are far apart in another.
    """
    best, best_rest = np.eye(cores.shape[1]), np.inf
    for _ in range(_COMBINATIONS):
        first, second = np.tensordot(rng.normal(size=(2, len(cores))), cores, axes=1)
        try:
            values, vectors = np.linalg.eig(np.linalg.solve(first, second))
            columns = _real_columns(values, vectors)
            rows = np.linalg.inv(columns)
        except np.linalg.LinAlgError:
            continue
        lengths = np.linalg.norm(rows, axis=1)
        # columnsᵀ Sₖ columns is diagonal up to noise; in units where the rows have length one.
        inside = np.einsum("ia,kij,jb->kab", columns, cores, columns, optimize=True)
        inside *= np.outer(lengths, lengths)
        total = float(np.sum(inside**2))
        diagonal = float(np.sum(np.diagonal(inside, axis1=1, axis2=2) ** 2))
        rest = (total - diagonal) / total if total > 0 else np.inf
        if rest < best_rest:
            best, best_rest = rows / lengths[:, None], rest
    return best


def _real_columns(values: NDArray[np.complex128], vectors: NDArray[np.complex128]) -> Floats:
    """Eigenvectors, conjugate pairs (noise on nearly equal ratios) by real and imaginary part."""
    columns = np.array(vectors.real, dtype=np.float64)
    negative = values.imag < 0
    columns[:, negative] = vectors.imag[:, negative]
    return columns
