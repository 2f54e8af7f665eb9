"""The catalogue's membership attacks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Final

from attacks.core.entry import (
    MEMBERSHIP,
    SCORES,
    Allowance,
    Attack,
    CatalogueEntry,
    Imported,
)
from attacks.errors import BudgetError

_THRESHOLDS: Final = "attacks.membership.thresholds"
_LIKELIHOOD: Final = "attacks.membership.likelihood"


def _lira_correlation(_: Allowance) -> Attack:
    from attacks.membership.likelihood import LiRAOnline
    from attacks.membership.statistics import label_correlation

    return LiRAOnline(fixed_variance=True, confidence=label_correlation)


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


_entry = partial(CatalogueEntry, family=MEMBERSHIP)

MEMBERSHIPS: Final[Mapping[str, CatalogueEntry]] = MappingProxyType(
    {
        "yeom": _entry(
            title="Threshold on the loss",
            published="Yeom",
            reference="Yeom et al. 2018",
            needs=SCORES,
            build=Imported(_THRESHOLDS, "YeomThreshold"),
        ),
        "modified-entropy": _entry(
            title="Threshold per class on the modified entropy",
            published="Song-Mittal",
            reference="Song and Mittal 2021",
            needs=SCORES,
            build=Imported(_THRESHOLDS, "ModifiedEntropy"),
        ),
        "shokri": _entry(
            title="Attack models per class, trained on shadow models",
            published="Shokri",
            reference="Shokri et al. 2017",
            needs=SCORES,
            build=Imported("attacks.membership.shokri", "ShokriAttack"),
        ),
        "lira-online": _entry(
            title="Likelihood ratio, shadows with and without the record",
            published="LiRA, online",
            reference="Carlini et al. 2022",
            needs=SCORES,
            build=Imported(_LIKELIHOOD, "LiRAOnline", {"fixed_variance": False}),
        ),
        "lira-fixed": _entry(
            title="Likelihood ratio, one variance for all records",
            published="LiRA, online, fixed variance",
            reference="Carlini et al. 2022",
            needs=SCORES,
            build=Imported(_LIKELIHOOD, "LiRAOnline", {"fixed_variance": True}),
        ),
        "lira-correlation": _entry(
            title="Likelihood ratio on what scaling and shifts of the logits leave",
            published="LiRA, on correlations",
            reference="Carlini et al. 2022; Fisher 1915",
            needs=SCORES,
            build=_lira_correlation,
        ),
        "lira-offline": _entry(
            title="Likelihood ratio, only shadows without the record",
            published="LiRA, offline",
            reference="Carlini et al. 2022",
            needs=SCORES,
            build=Imported(_LIKELIHOOD, "LiRAOffline", {"fixed_variance": True}),
        ),
        "rmia": _entry(
            title="Pairwise likelihood ratios against a population",
            published="RMIA",
            reference="Zarifzadeh, Liu and Shokri 2024",
            needs=SCORES,
            build=Imported(_LIKELIHOOD, "RMIA"),
        ),
        "label-only": _entry(
            title="Robustness of the label to noise",
            published="Choquette-Choo, label-only",
            reference="Choquette-Choo et al. 2021",
            build=_label_only,
        ),
    }
)
