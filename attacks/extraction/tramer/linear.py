"""Linear models as systems of equations: logistic regression, softmax, one-vs-rest.

    logits          z = Wᵀx + b             a linear system: d + 1 queries, all classes at once
    softmax         log pᵢ − mean = zᵢ      linear too; z is known up to a constant per record
    one-vs-rest     pᵢ = σ(zᵢ) / Σ σ(zⱼ)    not linear: c − 1 equations per query, solved by
                                            Levenberg–Marquardt from the softmax solution

Tramèr et al. 2016, section 4.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import expit, log_expit, logsumexp

from attacks.core.arrays import Floats
from attacks.core.oracle import PROBABILITIES, Answer, OracleInfo, softmax
from attacks.extraction.learners import PerceptronLearner
from attacks.extraction.setting import StolenModel
from attacks.extraction.tramer.family import Solution, rounded_decimals

_STEPS: Final = 200
_SOLVED: Final = 1e-30  # mean squared residual at which float64 has no more to give


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LinearModel:
    """``weights`` (d, classes), ``bias`` (classes,); scores are the logits."""

    weights: Floats
    bias: Floats

    def scores(self, inputs: Floats) -> Floats:
        result: Floats = inputs.reshape(len(inputs), -1) @ self.weights + self.bias
        return result


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OneVsRestModel:
    """A linear model whose scores are the logarithms of normalised sigmoids."""

    linear: LinearModel

    def scores(self, inputs: Floats) -> Floats:
        return _log_one_vs_rest(self.linear.scores(inputs))


@dataclass(frozen=True, slots=True, kw_only=True)
class Softmax:
    """Logistic regression with two classes, multinomial with more."""

    @property
    def learner(self) -> PerceptronLearner:
        return PerceptronLearner()

    def unknowns(self, info: OracleInfo) -> int:
        """d + 1 for two classes, whose difference alone counts; else c(d + 1)."""
        return (1 if info.classes == 2 else info.classes) * (info.features + 1)

    def minimum_queries(self, info: OracleInfo) -> int:
        return info.features + 1

    def sweep(self, info: OracleInfo, queries: int) -> tuple[int, ...]:
        return _doublings(self.minimum_queries(info), queries)

    def records(self, info: OracleInfo, count: int, rng: np.random.Generator) -> Floats:
        return orthogonal_design(info, count, rng)

    def solve(
        self, inputs: Floats, answer: Answer, info: OracleInfo, rng: np.random.Generator
    ) -> Solution:
        """Least squares on the logits, or on the logarithms of the probabilities."""
        if answer.logits is not None:
            return _from_logits(inputs, answer.logits)
        probabilities = answer.require_probabilities()
        return _from_probabilities(inputs, probabilities, _SOFTMAX, LinearModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class OneVsRest:
    """c binary logistic regressions; an oracle that answers probabilities normalises them."""

    @property
    def learner(self) -> PerceptronLearner:
        return PerceptronLearner()

    def unknowns(self, info: OracleInfo) -> int:
        return Softmax().unknowns(info)

    def minimum_queries(self, info: OracleInfo) -> int:
        """c − 1 equations a query where probabilities come back, else a linear system."""
        if PROBABILITIES not in info.answers:
            return info.features + 1
        return math.ceil(self.unknowns(info) / (info.classes - 1))

    def sweep(self, info: OracleInfo, queries: int) -> tuple[int, ...]:
        """None from probabilities: too few of those are the hardest to solve."""
        if PROBABILITIES in info.answers:
            return ()
        return _doublings(self.minimum_queries(info), queries)

    def records(self, info: OracleInfo, count: int, rng: np.random.Generator) -> Floats:
        return orthogonal_design(info, count, rng)

    def solve(
        self, inputs: Floats, answer: Answer, info: OracleInfo, rng: np.random.Generator
    ) -> Solution:
        """From probabilities where there are some, since they say how the logits are used."""
        if info.classes == 2 or answer.probabilities is None:
            return Softmax().solve(inputs, answer, info, rng)
        return _from_probabilities(
            inputs,
            answer.probabilities,
            _ONE_VS_REST,
            lambda *, weights, bias: OneVsRestModel(linear=LinearModel(weights=weights, bias=bias)),
        )


def _doublings(first: int, queries: int) -> tuple[int, ...]:
    counts = [first]
    while counts[-1] * 2 < queries:
        counts.append(counts[-1] * 2)
    return tuple(counts)


def orthogonal_design(info: OracleInfo, count: int, rng: np.random.Generator) -> Floats:
    """(count, *input_shape) records that determine an affine map as well as the box allows.

    Blocks of d + 1 random records whose coordinates are orthogonal to each other and to the
    constant, stretched to touch the sides of [low, high]^d: the condition number is a few units,
    where that of uniform records grows with d.
    """
    d = info.features
    center, half = (info.low + info.high) / 2, (info.high - info.low) / 2
    blocks = []
    for _ in range(math.ceil(count / (d + 1))):
        basis = rng.standard_normal((d + 1, d))
        columns, _ = np.linalg.qr(basis - basis.mean(axis=0))  # (d + 1, d)
        blocks.append(columns / np.abs(columns).max())
    flat = center + half * np.concatenate(blocks)[:count]
    return np.clip(flat, info.low, info.high).reshape(count, *info.input_shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Link:
    """Logits (B, c) → logarithms of probabilities, and their slope against the logits."""

    logarithms: Callable[[Floats], Floats]
    slope: Callable[[Floats], Floats]  # (B, c) → (B, c, c): d log pᵢ / d zⱼ
    is_linear: bool


def _log_softmax(logits: Floats) -> Floats:
    result: Floats = logits - logsumexp(logits, axis=1, keepdims=True)
    return result


def _log_one_vs_rest(logits: Floats) -> Floats:
    return _log_softmax(np.asarray(log_expit(logits), dtype=np.float64))


def _softmax_slope(logits: Floats) -> Floats:
    probabilities = softmax(logits)
    return np.eye(logits.shape[1]) - probabilities[:, None, :]


def _one_vs_rest_slope(logits: Floats) -> Floats:
    outer: Floats = expit(-logits)  # d log σ(z) / dz
    return _softmax_slope(log_expit(logits)) * outer[:, None, :]


_SOFTMAX = _Link(logarithms=_log_softmax, slope=_softmax_slope, is_linear=True)
_ONE_VS_REST = _Link(logarithms=_log_one_vs_rest, slope=_one_vs_rest_slope, is_linear=False)


def _with_ones(inputs: Floats) -> Floats:
    flat = inputs.reshape(len(inputs), -1)
    return np.concatenate([flat, np.ones((len(flat), 1))], axis=1)  # (B, d + 1)


def _from_logits(inputs: Floats, logits: Floats) -> Solution:
    extended = _with_ones(inputs)
    theta = np.asarray(np.linalg.lstsq(extended, logits, rcond=None)[0], dtype=np.float64)
    return Solution(
        model=LinearModel(weights=theta[:-1], bias=theta[-1]),
        relative_residual=_relative(extended @ theta - logits, logits),
        up_to_constant=False,
    )


def _from_probabilities(
    inputs: Floats,
    probabilities: Floats,
    link: _Link,
    build: Callable[..., StolenModel],
) -> Solution:
    extended = _with_ones(inputs)
    positive = probabilities[probabilities > 0]
    floor = float(positive.min()) / 2
    logarithms = np.log(np.maximum(probabilities, floor))
    centered = logarithms - logarithms.mean(axis=1, keepdims=True)
    theta = np.asarray(np.linalg.lstsq(extended, centered, rcond=None)[0], dtype=np.float64)
    decimals = rounded_decimals(probabilities)
    is_exact = decimals is None and len(positive) == probabilities.size
    if not (link.is_linear and is_exact):
        theta = _levenberg_marquardt(extended, probabilities, theta, link)
    notes = []
    if decimals is not None:
        notes.append(
            f"the probabilities are rounded to {decimals} decimals: the solution is a best fit, "
            "not the target's weights"
        )
    elif not is_exact:
        notes.append("some probabilities are zero: the weights behind them are a best fit")
    error = np.exp(link.logarithms(extended @ theta)) - probabilities
    return Solution(
        model=build(weights=theta[:-1], bias=theta[-1]),
        relative_residual=_relative(error, probabilities),
        up_to_constant=True,
        has_logits=link.is_linear,
        notes=tuple(notes),
    )


def _relative(error: Floats, target: Floats) -> float:
    spread = float(np.sqrt(np.mean((target - target.mean(axis=0)) ** 2)))
    return float(np.sqrt(np.mean(error**2))) / max(spread, float(np.finfo(np.float64).tiny))


def _levenberg_marquardt(
    extended: Floats, probabilities: Floats, start: Floats, link: _Link
) -> Floats:
    """Least squares of √p, whose errors weigh about the same everywhere (Hellinger's distance).

    The normal matrix is a sum of (c, c) slopes ⊗ (d + 1, d + 1) products, so that a step costs
    c² products of the records with themselves, not one of all equations.
    """
    roots = np.sqrt(probabilities)
    size, classes = start.shape
    theta, damping = start, 1e-3

    def residual(at: Floats) -> Floats:
        result: Floats = np.exp(0.5 * link.logarithms(extended @ at)) - roots
        return result

    error = residual(theta)
    loss = float(np.mean(error**2))
    for _ in range(_STEPS):
        logits = extended @ theta
        slope = 0.5 * (error + roots)[:, :, None] * link.slope(logits)  # (B, c, c)
        gram = np.einsum("bik,bim->bkm", slope, slope)
        normal = np.empty((classes, size, classes, size))
        for k in range(classes):
            for m in range(k + 1):
                block = extended.T @ (gram[:, k, m, None] * extended)
                normal[k, :, m, :] = block
                normal[m, :, k, :] = block.T
        matrix = normal.reshape(classes * size, classes * size)
        gradient = (extended.T @ np.einsum("bik,bi->bk", slope, error)).T.ravel()
        scale = matrix.diagonal().mean()
        improved = False
        for _ in range(12):
            damped = matrix + damping * scale * np.eye(len(matrix))
            step = np.linalg.solve(damped, gradient)
            proposed = theta - step.reshape(classes, size).T
            new_error = residual(proposed)
            new_loss = float(np.mean(new_error**2))
            if new_loss < loss:
                improved = True
                break
            damping *= 4
        if not improved:
            break
        stalls = loss - new_loss < 1e-9 * loss
        theta, error, loss = proposed, new_error, new_loss
        damping = max(damping / 10, 1e-15)
        if loss < _SOLVED or stalls:
            break
    return theta
