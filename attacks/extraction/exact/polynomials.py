"""Polynomials of several variables: least-squares fits, gradients and Hessians.

The basis is products of Chebyshev polynomials up to a total degree, each variable scaled to
[−1, 1]: unlike monomials, they stay apart at degree 8.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray

from attacks.core.arrays import Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Polynomials:
    """Several polynomials in the same r variables.

    ``exponents`` (terms, r): Chebyshev degrees of each product; ``coefficients`` (terms, scores);
    ``centers``, ``widths`` (r,): variables enter as (t − center)/width.
    """

    exponents: NDArray[np.int64]
    coefficients: Floats
    centers: Floats
    widths: Floats

    @property
    def degree(self) -> int:
        return int(self.exponents.sum(axis=1).max())

    def at(self, points: Floats) -> Floats:
        """(B, r) → (B, scores)."""
        result: Floats = self.features(points) @ self.coefficients
        return result

    def gradient(self, point: Floats) -> Floats:
        """(r,) → (scores, r)."""
        tables = _derivative_tables((point - self.centers) / self.widths, self.degree)
        orders = np.eye(len(point), dtype=np.int64)
        return self._derivatives(tables, orders).T / self.widths

    def hessian(self, point: Floats) -> Floats:
        """(r,) → (scores, r, r)."""
        r = len(point)
        tables = _derivative_tables((point - self.centers) / self.widths, self.degree)
        rows, columns = np.triu_indices(r)
        unit = np.eye(r, dtype=np.int64)
        entries = self._derivatives(tables, unit[rows] + unit[columns])  # (r(r+1)/2, scores)
        result = np.zeros((self.coefficients.shape[1], r, r))
        result[:, rows, columns] = entries.T
        result[:, columns, rows] = entries.T
        return result / np.outer(self.widths, self.widths)

    def gradients(self, points: Floats) -> Floats:
        """(B, r) → (B, scores, r)."""
        tables = _derivative_tables(((points - self.centers) / self.widths).ravel(), self.degree)
        plain, derived = tables[:2].reshape(2, *points.shape, self.degree + 1)
        slopes = []
        for variable in range(points.shape[1]):
            mixed = plain.copy()
            mixed[:, variable] = derived[:, variable]
            slopes.append(_products(mixed, self.exponents) @ self.coefficients)
        return np.stack(slopes, axis=2) / self.widths

    def features(self, points: Floats) -> Floats:
        """What the coefficients multiply, (B, r) → (B, terms)."""
        return _products(
            _tables((points - self.centers) / self.widths, self.degree), self.exponents
        )

    def _derivatives(self, tables: Floats, orders: NDArray[np.int64]) -> Floats:
        """``tables`` (order, r, degree+1), ``orders`` (D, r) → (D, scores)."""
        r = self.exponents.shape[1]
        variables = np.arange(r)
        factors = tables[orders[:, None, :], variables, self.exponents[None]]  # (D, terms, r)
        result: Floats = np.prod(factors, axis=2) @ self.coefficients
        return result


def term_count(variables: int, degree: int) -> int:
    """Coefficients of one polynomial of this total degree."""
    return math.comb(variables + degree, degree)


def fit_polynomials(points: Floats, scores: Floats, degree: int) -> tuple[Polynomials, float]:
    """Least squares from ``points`` (B, r), ``scores`` (B, n); also the root mean square residual
    per degree of freedom."""
    low, high = points.min(axis=0), points.max(axis=0)
    centers, widths = (low + high) / 2, np.maximum((high - low) / 2, 1e-12)
    exponents = _exponents(points.shape[1], degree)
    features = _products(_tables((points - centers) / widths, degree), exponents)
    solution = np.linalg.lstsq(features, scores, rcond=None)[0].astype(np.float64)
    misfit = float(np.sum((features @ solution - scores) ** 2))
    freedom = max(len(points) - len(exponents), 1) * scores.shape[1]
    model = Polynomials(exponents=exponents, coefficients=solution, centers=centers, widths=widths)
    return model, math.sqrt(misfit / freedom)


def line_derivatives(values: Floats, positions: Floats) -> Floats:
    """Slopes at 0 of the polynomials through ``values`` (lines, D+1, scores) at ``positions``
    (D+1,): exact on a line, where a network of degree D is a polynomial of degree D."""
    powers = np.vander(positions, increasing=True)  # (D+1, D+1)
    weights = np.linalg.inv(powers)[1]
    result: Floats = np.einsum("lps,p->ls", values, weights)
    return result


def _exponents(variables: int, degree: int) -> NDArray[np.int64]:
    def rows() -> Iterator[NDArray[np.int64]]:
        for total in range(degree + 1):
            for chosen in combinations_with_replacement(range(variables), total):
                yield np.bincount(np.array(chosen, dtype=np.int64), minlength=variables)

    return np.stack(list(rows())).astype(np.int64)


def _tables(scaled: Floats, degree: int) -> Floats:
    """Chebyshev values, (B, r) → (B, r, degree+1)."""
    table: Floats = np.polynomial.chebyshev.chebvander(scaled, degree).astype(np.float64)
    return table


def _derivative_tables(scaled: Floats, degree: int) -> Floats:
    """Chebyshev polynomials and their first two derivatives, (r,) → (3, r, degree+1)."""
    unit = np.eye(degree + 1)
    orders = []
    for order in range(3):
        derived = np.polynomial.chebyshev.chebder(unit, m=order, axis=0)
        orders.append(np.polynomial.chebyshev.chebval(scaled, derived).T)
    return np.stack(orders)


def _products(tables: Floats, exponents: NDArray[np.int64]) -> Floats:
    """(B, r, degree+1) and (terms, r) → (B, terms)."""
    result = np.ones((len(tables), len(exponents)))
    for variable in range(exponents.shape[1]):
        result *= tables[:, variable, exponents[:, variable]]
    return result
