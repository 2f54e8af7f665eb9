"""Every attack by name: what it is, where it comes from, what it needs, and how to make one.

Making one imports it, so that listing them stays quick.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from attacks.core.entry import ANYTHING as ANYTHING
from attacks.core.entry import EVASION as EVASION
from attacks.core.entry import EXTRACTION as EXTRACTION
from attacks.core.entry import MALICIOUS_CLIENT as MALICIOUS_CLIENT
from attacks.core.entry import MEMBERSHIP as MEMBERSHIP
from attacks.core.entry import SCORES as SCORES
from attacks.core.entry import WEIGHT_HOLDER as WEIGHT_HOLDER
from attacks.core.entry import Allowance as Allowance
from attacks.core.entry import Attack as Attack
from attacks.core.entry import CatalogueEntry as CatalogueEntry
from attacks.errors import AbilityError, AuditError, BudgetError
from attacks.evasion.entries import EVASIONS

FAMILIES: Final = (EXTRACTION, MEMBERSHIP, EVASION)
CIPHERTEXT: Final = "ciphertext"  # see attacks.ciphertext.suite
POISONING: Final = "poisoning"  # see attacks.audit.poisoning
REMEDIES: Final = "remedies"  # see attacks.audit.remedies
SUITES: Final = (CIPHERTEXT, POISONING, REMEDIES)


def choose(wanted: Sequence[str]) -> tuple[str, ...]:
    """The catalogue's names for "all", a family or names, in its order, each once.

    Raises AuditError, with the nearest name, for one that it does not have.
    """
    chosen: set[str] = set()
    for word in wanted:
        if word in SUITES:
            continue  # sections of their own, not rows of the catalogue
        if word == "all":
            chosen |= ATTACKS.keys()
        elif word in FAMILIES:
            chosen |= {name for name, entry in ATTACKS.items() if entry.family == word}
        elif word in ATTACKS:
            chosen.add(word)
        else:
            near = difflib.get_close_matches(word, (*ATTACKS, *FAMILIES, *SUITES, "all"), n=1)
            hint = f": did you mean {near[0]!r}?" if near else ": `he-infer attacks` lists them"
            raise AuditError(f"no attack is called {word!r}{hint}")
    return tuple(name for name in ATTACKS if name in chosen)


def _quadratic(allowance: Allowance) -> Attack:
    from attacks.extraction.exact.quadratic import QuadraticExtraction

    return QuadraticExtraction(queries=allowance.budget)


def _ratios(allowance: Allowance) -> Attack:
    from attacks.extraction.exact.ratios import RatioExtraction

    return RatioExtraction(queries=allowance.budget)


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


def _lowd_meek(allowance: Allowance) -> Attack:
    from attacks.extraction.tramer.lowd_meek import LowdMeek

    return LowdMeek(queries=allowance.budget)


def _retraining(allowance: Allowance) -> Attack:
    from attacks.extraction.tramer.retraining import AdaptiveRetraining

    return AdaptiveRetraining(queries=allowance.budget)


def _lines(allowance: Allowance) -> Attack:
    from attacks.extraction.exact.lines import LineExtraction

    # Each point of the curve is a whole regression anew, minutes for an audit.
    return LineExtraction(queries=allowance.budget, curve_points=0)


def _path_finding(allowance: Allowance) -> Attack:
    raise AbilityError(
        f"path finding takes decision trees, and {allowance.info.name} is a network: run "
        "attacks.extraction.tramer.path_finding on an EstimatorOracle of a tree"
    )


def _papernot(allowance: Allowance) -> Attack:
    from attacks.extraction.papernot import PapernotSubstitute

    return PapernotSubstitute.scaled(
        allowance.info, queries=allowance.budget, seeds=allowance.population
    )


def _knockoff(allowance: Allowance) -> Attack:
    from attacks.extraction.knockoff import Knockoff

    return Knockoff(queries=min(allowance.budget, allowance.population))


def _yeom(allowance: Allowance) -> Attack:
    from attacks.membership.thresholds import YeomThreshold

    return YeomThreshold()


def _modified_entropy(allowance: Allowance) -> Attack:
    from attacks.membership.thresholds import ModifiedEntropy

    return ModifiedEntropy()


def _shokri(allowance: Allowance) -> Attack:
    from attacks.membership.shokri import ShokriAttack

    return ShokriAttack()


def _lira_online(allowance: Allowance) -> Attack:
    from attacks.membership.likelihood import LiRAOnline

    return LiRAOnline(fixed_variance=False)


def _lira_fixed(allowance: Allowance) -> Attack:
    from attacks.membership.likelihood import LiRAOnline

    return LiRAOnline(fixed_variance=True)


def _lira_correlation(allowance: Allowance) -> Attack:
    from attacks.membership.likelihood import LiRAOnline
    from attacks.membership.statistics import label_correlation

    return LiRAOnline(fixed_variance=True, confidence=label_correlation)


def _lira_offline(allowance: Allowance) -> Attack:
    from attacks.membership.likelihood import LiRAOffline

    return LiRAOffline(fixed_variance=True)


def _rmia(allowance: Allowance) -> Attack:
    from attacks.membership.likelihood import RMIA

    return RMIA()


def _label_only(allowance: Allowance) -> Attack:
    from attacks.membership.label_only import LabelOnly

    # Every record is asked itself and as noisy copies of itself.
    copies = allowance.budget // allowance.candidates - 1
    if copies < 1:
        raise BudgetError(
            f"each of {allowance.candidates} records is asked at least twice: raise the budget "
            f"to {2 * allowance.candidates} or more"
        )
    return LabelOnly(copies=min(copies, LabelOnly().copies))


def _extraction(
    title: str, reference: str, needs: tuple[str, ...], build: Callable[[Allowance], Attack]
) -> CatalogueEntry:
    return CatalogueEntry(
        title=title, family=EXTRACTION, reference=reference, needs=needs, build=build
    )


def _membership(
    title: str, reference: str, needs: tuple[str, ...], build: Callable[[Allowance], Attack]
) -> CatalogueEntry:
    return CatalogueEntry(
        title=title, family=MEMBERSHIP, reference=reference, needs=needs, build=build
    )


ATTACKS: Final[Mapping[str, CatalogueEntry]] = MappingProxyType(
    {
        "quadratic-extraction": _extraction(
            "Exact extraction of a network with one layer of squares",
            "Usevich et al. 2025; Fornasier et al. 2019",
            SCORES,
            _quadratic,
        ),
        "ratio-extraction": _extraction(
            "Extraction of a layer of squares from ratios, where answers are scaled and shifted",
            "Golub and Van Loan 1980 (total least squares)",
            SCORES,
            _ratios,
        ),
        "network-matching": _extraction(
            "A layer of squares matched to answers whatever their scale, shift and noise",
            "Golub and Pereyra 1973 (variable projection)",
            SCORES,
            _matching,
        ),
        "line-extraction": _extraction(
            "Exact extraction of deeper networks of squares, along lines",
            "Fornasier et al. 2019",
            SCORES,
            _lines,
        ),
        "equation-solving": _extraction(
            "Equation solving for a softmax regression", "Tramèr et al. 2016", SCORES, _equations
        ),
        "equation-solving-ovr": _extraction(
            "Equation solving for one-vs-rest regressions",
            "Tramèr et al. 2016",
            SCORES,
            _equations_one_vs_rest,
        ),
        "equation-solving-mlp": _extraction(
            "Equation solving for a perceptron with 20 hidden units",
            "Tramèr et al. 2016",
            SCORES,
            _equations_perceptron,
        ),
        "lowd-meek": _extraction(
            "Line search for the boundary of a linear model of two classes",
            "Lowd and Meek 2005; Tramèr et al. 2016",
            ANYTHING,
            _lowd_meek,
        ),
        "adaptive-retraining": _extraction(
            "Retraining on queries near the stolen boundary",
            "Cohn, Atlas and Ladner 1994; Tramèr et al. 2016",
            ANYTHING,
            _retraining,
        ),
        "path-finding": _extraction(
            "Path finding for decision trees in the clear",
            "Tramèr et al. 2016",
            SCORES,
            _path_finding,
        ),
        "papernot-substitute": _extraction(
            "Substitute trained on labels, queries along its Jacobian",
            "Papernot et al. 2017",
            ANYTHING,
            _papernot,
        ),
        "knockoff": _extraction(
            "Substitute trained on answers to records of the same kind",
            "Orekondy et al. 2019",
            ANYTHING,
            _knockoff,
        ),
        "yeom": _membership("Threshold on the loss", "Yeom et al. 2018", SCORES, _yeom),
        "modified-entropy": _membership(
            "Threshold per class on the modified entropy",
            "Song and Mittal 2021",
            SCORES,
            _modified_entropy,
        ),
        "shokri": _membership(
            "Attack models per class, trained on shadow models",
            "Shokri et al. 2017",
            SCORES,
            _shokri,
        ),
        "lira-online": _membership(
            "Likelihood ratio, shadows with and without the record",
            "Carlini et al. 2022",
            SCORES,
            _lira_online,
        ),
        "lira-fixed": _membership(
            "Likelihood ratio, one variance for all records",
            "Carlini et al. 2022",
            SCORES,
            _lira_fixed,
        ),
        "lira-correlation": _membership(
            "Likelihood ratio on what scaling and shifts of the logits leave",
            "Carlini et al. 2022; Fisher 1915",
            SCORES,
            _lira_correlation,
        ),
        "lira-offline": _membership(
            "Likelihood ratio, only shadows without the record",
            "Carlini et al. 2022",
            SCORES,
            _lira_offline,
        ),
        "rmia": _membership(
            "Pairwise likelihood ratios against a population",
            "Zarifzadeh, Liu and Shokri 2024",
            SCORES,
            _rmia,
        ),
        "label-only": _membership(
            "Robustness of the label to noise",
            "Choquette-Choo et al. 2021",
            ANYTHING,
            _label_only,
        ),
        **EVASIONS,
    }
)
