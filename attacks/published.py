"""The names under which attacks are known in the literature, by their names in the catalogue.

A report shows them beside the plain description. An attack that has no name of its own is absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

PUBLISHED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "equation-solving": "Tramèr, equation solving",
        "equation-solving-ovr": "Tramèr, equation solving",
        "equation-solving-mlp": "Tramèr, equation solving",
        "lowd-meek": "Lowd-Meek",
        "adaptive-retraining": "Tramèr, adaptive retraining",
        "path-finding": "Tramèr, path finding",
        "papernot-substitute": "Papernot, substitute model",
        "knockoff": "Knockoff Nets",
        "yeom": "Yeom",
        "modified-entropy": "Song-Mittal",
        "shokri": "Shokri",
        "lira-online": "LiRA, online",
        "lira-fixed": "LiRA, online, fixed variance",
        "lira-correlation": "LiRA, on correlations",
        "lira-offline": "LiRA, offline",
        "rmia": "RMIA",
        "label-only": "Choquette-Choo, label-only",
        "fgsm": "FGSM",
        "pgd": "PGD",
        "pgd-l2": "PGD, L2",
        "apgd-ce": "APGD-CE",
        "apgd-dlr": "APGD-DLR",
        "square": "Square Attack",
        "hopskipjump": "HopSkipJump",
        "evasion-ensemble": "AutoAttack, without FAB",
        "transfer": "Papernot, transfer",
        "backdoor": "BadNets",
    }
)
