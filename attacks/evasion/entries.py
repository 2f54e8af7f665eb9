"""The catalogue's attacks by evasion; making one imports it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from attacks.core.entry import (
    ANYTHING,
    EVASION,
    MALICIOUS_CLIENT,
    SCORES,
    WEIGHT_HOLDER,
    Allowance,
    Attack,
    CatalogueEntry,
)
from attacks.errors import BudgetError


def _fgsm(allowance: Allowance) -> Attack:
    from attacks.evasion.gradient.fgsm import FGSM

    return FGSM()


def _pgd(allowance: Allowance) -> Attack:
    from attacks.evasion.gradient.pgd import PGD

    return PGD(restarts=2)


def _pgd_l2(allowance: Allowance) -> Attack:
    from attacks.evasion.gradient.pgd import PGD
    from attacks.evasion.norms import L2

    return PGD(name="pgd-l2", restarts=2, norm=L2())


def _apgd(allowance: Allowance) -> Attack:
    from attacks.evasion.gradient.apgd import APGD

    return APGD()


def _apgd_ratios(allowance: Allowance) -> Attack:
    from attacks.evasion.gradient.apgd import APGD

    return APGD.of_ratios()


def _square(allowance: Allowance) -> Attack:
    from attacks.evasion.black_box.square import Square, per_record

    return Square(queries=per_record(allowance.budget, allowance.moved))


def _hopskipjump(allowance: Allowance) -> Attack:
    from attacks.evasion.black_box.hopskipjump import HopSkipJump
    from attacks.evasion.black_box.square import per_record

    return HopSkipJump(queries=per_record(allowance.budget, allowance.moved), around=30)


def _ensemble(allowance: Allowance) -> Attack:
    from attacks.evasion.black_box.square import per_record
    from attacks.evasion.ensemble import EvasionEnsemble

    # Square has a line of its own; here it looks after what gradients left.
    asked = per_record(allowance.budget, allowance.moved) // 2
    return EvasionEnsemble(queries=min(100, max(0, asked)))


def _transfer(allowance: Allowance) -> Attack:
    from attacks.evasion.black_box.transfer import Transfer
    from attacks.extraction.papernot import PapernotSubstitute

    left = _after_judging(allowance)
    return Transfer(
        thief=PapernotSubstitute.scaled(left.info, queries=left.budget, seeds=left.population)
    )


def _transfer_exact(allowance: Allowance) -> Attack:
    from attacks.evasion.black_box.transfer import Transfer
    from attacks.extraction.exact.quadratic import QuadraticExtraction

    least = QuadraticExtraction().minimum_queries(allowance.info)
    # A little more than it needs; answers of the service carry hardly any noise.
    queries = min(_after_judging(allowance).budget, least + least // 10)
    thief = QuadraticExtraction(queries=queries, curve_points=0)
    return Transfer(name="transfer-exact", thief=thief)


def _after_judging(allowance: Allowance) -> Allowance:
    """What is left to steal with when every moved record was asked what it was and became."""
    from attacks.evasion.outcome import OVERHEAD

    left = allowance.budget - OVERHEAD * allowance.moved
    if left < 1:
        raise BudgetError(
            f"each of {allowance.moved} records is asked {OVERHEAD} times beside the theft: raise "
            f"the budget above {OVERHEAD * allowance.moved}"
        )
    return replace(allowance, budget=left)


def _evasion(
    title: str,
    reference: str,
    needs: tuple[str, ...],
    build: Callable[[Allowance], Attack],
    *,
    threat_model: str = WEIGHT_HOLDER,
) -> CatalogueEntry:
    return CatalogueEntry(
        title=title,
        family=EVASION,
        reference=reference,
        needs=needs,
        build=build,
        threat_model=threat_model,
    )


EVASIONS: Final[Mapping[str, CatalogueEntry]] = MappingProxyType(
    {
        "fgsm": _evasion(
            "One step along the sign of the gradient", "Goodfellow et al. 2015", ANYTHING, _fgsm
        ),
        "pgd": _evasion("Projected gradient descent", "Madry et al. 2018", ANYTHING, _pgd),
        "pgd-l2": _evasion(
            "Projected gradient descent in L2, in a ball of equal volume",
            "Madry et al. 2018",
            ANYTHING,
            _pgd_l2,
        ),
        "apgd-ce": _evasion(
            "Auto-PGD up the cross-entropy", "Croce and Hein 2020", ANYTHING, _apgd
        ),
        "apgd-dlr": _evasion(
            "Auto-PGD up the ratio of differences of logits",
            "Croce and Hein 2020",
            ANYTHING,
            _apgd_ratios,
        ),
        "square": _evasion(
            "Random squares, kept where the margin falls",
            "Andriushchenko et al. 2020",
            SCORES,
            _square,
            threat_model=MALICIOUS_CLIENT,
        ),
        "hopskipjump": _evasion(
            "Along the border towards the record, from labels",
            "Chen et al. 2020",
            ANYTHING,
            _hopskipjump,
            threat_model=MALICIOUS_CLIENT,
        ),
        "evasion-ensemble": _evasion(
            "Auto-PGD with three losses, then squares: the worst of all",
            "Croce and Hein 2020",
            ANYTHING,
            _ensemble,
        ),
        "transfer": _evasion(
            "Adversarial examples made on a stolen substitute",
            "Papernot et al. 2017",
            ANYTHING,
            _transfer,
            threat_model=MALICIOUS_CLIENT,
        ),
        "transfer-exact": _evasion(
            "Adversarial examples made on an exact copy, stolen first",
            "Papernot et al. 2017; Usevich et al. 2025",
            SCORES,
            _transfer_exact,
            threat_model=MALICIOUS_CLIENT,
        ),
    }
)
