"""The catalogue's extraction attacks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Final

from attacks.core.entry import (
    EXTRACTION,
    SCORES,
    Allowance,
    Attack,
    CatalogueEntry,
    Imported,
)

_EXACT: Final = "attacks.extraction.exact"
_TRAMER: Final = "attacks.extraction.tramer"


def _matching(allowance: Allowance) -> Attack:
    from attacks.extraction.exact.concealed import Concealment
    from attacks.extraction.exact.matching import NetworkMatching

    concealment = Concealment(scaled=True, shifted=True)
    return NetworkMatching(queries=allowance.budget, concealment=concealment, iterations=1000)


def _equations(allowance: Allowance) -> Attack:
    from attacks.extraction.tramer.equation_solving import EquationSolving
    from attacks.extraction.tramer.linear import Softmax

    return EquationSolving(family=Softmax(), queries=allowance.budget)


def _equations_one_vs_rest(allowance: Allowance) -> Attack:
    from attacks.extraction.tramer.equation_solving import EquationSolving
    from attacks.extraction.tramer.linear import OneVsRest

    return EquationSolving(family=OneVsRest(), queries=allowance.budget)


def _equations_perceptron(allowance: Allowance) -> Attack:
    from attacks.extraction.tramer.equation_solving import EquationSolving
    from attacks.extraction.tramer.perceptron import Perceptron

    return EquationSolving(family=Perceptron(), queries=allowance.budget)


def _papernot(allowance: Allowance) -> Attack:
    from attacks.extraction.papernot import PapernotSubstitute

    return PapernotSubstitute.scaled(
        allowance.info, queries=allowance.budget, seeds=allowance.population
    )


def _knockoff(allowance: Allowance) -> Attack:
    from attacks.extraction.knockoff import Knockoff

    return Knockoff(queries=min(allowance.budget, allowance.population))


_entry = partial(CatalogueEntry, family=EXTRACTION)

EXTRACTIONS: Final[Mapping[str, CatalogueEntry]] = MappingProxyType(
    {
        "quadratic-extraction": _entry(
            title="Exact extraction of a network with one layer of squares",
            reference="Usevich et al. 2025; Fornasier et al. 2019",
            needs=SCORES,
            build=Imported(f"{_EXACT}.quadratic", "QuadraticExtraction", asks=True),
        ),
        "ratio-extraction": _entry(
            title="Extraction of a layer of squares from ratios, "
            "where answers are scaled and shifted",
            reference="Golub and Van Loan 1980 (total least squares)",
            needs=SCORES,
            build=Imported(f"{_EXACT}.ratios", "RatioExtraction", asks=True),
        ),
        "network-matching": _entry(
            title="A layer of squares matched to answers whatever their scale, shift and noise",
            reference="Golub and Pereyra 1973 (variable projection)",
            needs=SCORES,
            build=_matching,
        ),
        "line-extraction": _entry(
            title="Exact extraction of deeper networks of squares, along lines",
            reference="Fornasier et al. 2019",
            needs=SCORES,
            # Each point of the curve is a whole regression anew, minutes for an audit.
            build=Imported(f"{_EXACT}.lines", "LineExtraction", {"curve_points": 0}, asks=True),
        ),
        "equation-solving": _entry(
            title="Equation solving for a softmax regression",
            published="Tramèr, equation solving",
            reference="Tramèr et al. 2016",
            needs=SCORES,
            build=_equations,
        ),
        "equation-solving-ovr": _entry(
            title="Equation solving for one-vs-rest regressions",
            published="Tramèr, equation solving",
            reference="Tramèr et al. 2016",
            needs=SCORES,
            build=_equations_one_vs_rest,
        ),
        "equation-solving-mlp": _entry(
            title="Equation solving for a perceptron with 20 hidden units",
            published="Tramèr, equation solving",
            reference="Tramèr et al. 2016",
            needs=SCORES,
            build=_equations_perceptron,
        ),
        "lowd-meek": _entry(
            title="Line search for the boundary of a linear model of two classes",
            published="Lowd-Meek",
            reference="Lowd and Meek 2005; Tramèr et al. 2016",
            build=Imported(f"{_TRAMER}.lowd_meek", "LowdMeek", asks=True),
        ),
        "adaptive-retraining": _entry(
            title="Retraining on queries near the stolen boundary",
            published="Tramèr, adaptive retraining",
            reference="Cohn, Atlas and Ladner 1994; Tramèr et al. 2016",
            build=Imported(f"{_TRAMER}.retraining", "AdaptiveRetraining", asks=True),
        ),
        "papernot-substitute": _entry(
            title="Substitute trained on labels, queries along its Jacobian",
            published="Papernot, substitute model",
            reference="Papernot et al. 2017",
            build=_papernot,
        ),
        "knockoff": _entry(
            title="Substitute trained on answers to records of the same kind",
            published="Knockoff Nets",
            reference="Orekondy et al. 2019",
            build=_knockoff,
        ),
    }
)
