"""The catalogue's attacks by evasion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Final

from attacks.core.entry import (
    EVASION,
    SCORES,
    Allowance,
    Attack,
    CatalogueEntry,
    Imported,
)
from attacks.core.threat import ThreatModel
from attacks.errors import BudgetError

_PGD: Final = "attacks.evasion.gradient.pgd"
_APGD: Final = "attacks.evasion.gradient.apgd"


def _pgd_l2(_: Allowance) -> Attack:
    from attacks.evasion.gradient.pgd import PGD
    from attacks.evasion.norms import L2

    return PGD(name="pgd-l2", restarts=2, norm=L2())


def _apgd_ratios(_: Allowance) -> Attack:
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
        extraction=PapernotSubstitute.scaled(left.info, queries=left.budget, seeds=left.population)
    )


def _transfer_exact(allowance: Allowance) -> Attack:
    from attacks.evasion.black_box.transfer import Transfer
    from attacks.extraction.exact.quadratic import QuadraticExtraction

    least = QuadraticExtraction().minimum_queries(allowance.info)
    # A little more than it needs; answers of the service carry hardly any noise.
    queries = min(_after_judging(allowance).budget, least + least // 10)
    extraction = QuadraticExtraction(queries=queries, curve_points=0)
    return Transfer(name="transfer-exact", extraction=extraction)


def _after_judging(allowance: Allowance) -> Allowance:
    """What is left for extraction once the labels of each record are paid for, before and after."""
    from attacks.evasion.outcome import OVERHEAD

    left = allowance.budget - OVERHEAD * allowance.moved
    if left < 1:
        raise BudgetError(
            f"each of {allowance.moved} records is asked {OVERHEAD} times beside the extraction: "
            f"raise the budget above {OVERHEAD * allowance.moved}"
        )
    return replace(allowance, budget=left)


_by_asking = partial(CatalogueEntry, family=EVASION)
_on_weights = partial(CatalogueEntry, family=EVASION, threat_model=ThreatModel.WEIGHT_HOLDER)

EVASIONS: Final[Mapping[str, CatalogueEntry]] = MappingProxyType(
    {
        "fgsm": _on_weights(
            title="One step along the sign of the gradient",
            published="FGSM",
            reference="Goodfellow et al. 2015",
            build=Imported("attacks.evasion.gradient.fgsm", "FGSM"),
        ),
        "pgd": _on_weights(
            title="Projected gradient descent",
            published="PGD",
            reference="Madry et al. 2018",
            build=Imported(_PGD, "PGD", {"restarts": 2}),
        ),
        "pgd-l2": _on_weights(
            title="Projected gradient descent in L2, in a ball of equal volume",
            published="PGD, L2",
            reference="Madry et al. 2018",
            build=_pgd_l2,
        ),
        "apgd-ce": _on_weights(
            title="Auto-PGD up the cross-entropy",
            published="APGD-CE",
            reference="Croce and Hein 2020",
            build=Imported(_APGD, "APGD"),
        ),
        "apgd-dlr": _on_weights(
            title="Auto-PGD up the ratio of differences of logits",
            published="APGD-DLR",
            reference="Croce and Hein 2020",
            build=_apgd_ratios,
        ),
        "square": _by_asking(
            title="Random squares, kept where the margin falls",
            published="Square Attack",
            reference="Andriushchenko et al. 2020",
            needs=SCORES,
            build=_square,
        ),
        "hopskipjump": _by_asking(
            title="Along the border towards the record, from labels",
            published="HopSkipJump",
            reference="Chen et al. 2020",
            build=_hopskipjump,
        ),
        "evasion-ensemble": _on_weights(
            title="Auto-PGD with three losses, then squares: the worst of all",
            published="AutoAttack, without FAB",
            reference="Croce and Hein 2020",
            build=_ensemble,
        ),
        "transfer": _by_asking(
            title="Adversarial examples made on a stolen substitute",
            published="Papernot, transfer",
            reference="Papernot et al. 2017",
            build=_transfer,
        ),
        "transfer-exact": _by_asking(
            title="Adversarial examples made on an exact copy, stolen first",
            reference="Papernot et al. 2017; Usevich et al. 2025",
            needs=SCORES,
            build=_transfer_exact,
        ),
    }
)
