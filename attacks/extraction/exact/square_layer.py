"""Refinement of a stolen layer of squares against the answers themselves.

The scores aₖ·(Wz)² + lₖ·z + cₖ are linear in all but W, so W alone is searched, the rest following
by least squares: variable projection (Golub and Pereyra 1973) with Kaufman's Jacobian, solved
without forming it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import linalg
from scipy.sparse.linalg import LinearOperator, lsmr

from attacks.core.arrays import Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SquareFit:
    """``rows`` W (h, d) of unit length, ``outputs`` (classes, h), ``linear`` (classes, d),
    ``constants`` (classes,); ``residual``: root mean square over all answers."""

    rows: Floats
    outputs: Floats
    linear: Floats
    constants: Floats
    residual: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Projection:
    basis: Floats  # orthonormal columns of the linear part, (B, 1 + d + h)
    solution: Floats  # (1 + d + h, classes)
    rest: Floats  # (B, classes)


def refine(
    rows: Floats, z: Floats, scores: Floats, *, steps: int = 12, tolerance: float = 1e-4
) -> SquareFit:
    """Gauss-Newton from ``rows`` (h, d) on centred records ``z`` (B, d), ``scores`` (B, classes).

    Stops when a step lowers the squared error by less than ``tolerance`` of it; a step that does
    not lower it is halved, and dropped after four halvings.
    """
    h, d = rows.shape
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    fit = _project(rows, z, scores)
    cost = float(np.sum(fit.rest**2))
    for _ in range(steps):
        step = _gauss_newton_step(rows, z, fit).reshape(h, d)
        before = cost
        for halving in range(5):
            trial = rows + step / 2**halving
            trial /= np.linalg.norm(trial, axis=1, keepdims=True)
            trial_fit = _project(trial, z, scores)
            trial_cost = float(np.sum(trial_fit.rest**2))
            if trial_cost < cost:
                rows, fit, cost = trial, trial_fit, trial_cost
                break
        if cost >= before * (1 - tolerance):
            break
    return SquareFit(
        rows=rows,
        outputs=fit.solution[1 + d :].T,
        linear=fit.solution[1 : 1 + d].T,
        constants=fit.solution[0],
        residual=(cost / scores.size) ** 0.5,
    )


def _project(rows: Floats, z: Floats, scores: Floats) -> _Projection:
    features = np.concatenate([np.ones((len(z), 1)), z, (z @ rows.T) ** 2], axis=1)
    basis, triangle = np.linalg.qr(features)
    coefficients = basis.T @ scores
    try:
        solution = linalg.solve_triangular(triangle, coefficients)
    except linalg.LinAlgError:  # two channels fell together
        solution = np.linalg.lstsq(triangle, coefficients, rcond=None)[0]
    return _Projection(basis=basis, solution=solution, rest=scores - features @ solution)


def _gauss_newton_step(rows: Floats, z: Floats, fit: _Projection) -> Floats:
    h, d = rows.shape
    outputs = fit.solution[1 + d :]  # (h, classes)
    doubled = 2 * (z @ rows.T)

    def project_out(answers: Floats) -> Floats:
        result: Floats = answers - fit.basis @ (fit.basis.T @ answers)
        return result

    def forward(change: Floats) -> Floats:
        return project_out(((z @ change.reshape(h, d).T) * doubled) @ outputs).ravel()

    def backward(answers: Floats) -> Floats:
        pulled = project_out(answers.reshape(fit.rest.shape)) @ outputs.T
        result: Floats = ((doubled * pulled).T @ z).ravel()
        return result

    jacobian: Any = LinearOperator(
        (fit.rest.size, rows.size), matvec=forward, rmatvec=backward, dtype=np.float64
    )
    step: Floats = lsmr(jacobian, fit.rest.ravel(), atol=1e-10, btol=1e-10, maxiter=200)[0]
    return step
