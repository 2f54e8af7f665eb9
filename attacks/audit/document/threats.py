"""Who attacks, and the games that the figures are played by, as every audit states them."""

from __future__ import annotations

from typing import Final

from attacks.audit.document.records import ThreatModelRecord
from attacks.core.threat import ThreatModel

THREAT_MODELS: Final[tuple[ThreatModelRecord, ...]] = (
    ThreatModelRecord(
        name=ThreatModel.MALICIOUS_CLIENT,
        text="Holds the secret key of its own queries, asks what it likes within the budget, "
        "and sees everything it decrypts. It wants the model, to know who it was trained on, or "
        "inputs that it gets wrong. Every attack is of this kind unless it says otherwise.",
    ),
    ThreatModelRecord(
        name=ThreatModel.WEIGHT_HOLDER,
        text="Was given the network in the clear, or stole it exactly, and moves inputs along "
        "its gradients until it is wrong; the served form is asked once about each. Encryption "
        "hides queries, not what is done to them before.",
    ),
    ThreatModelRecord(
        name=ThreatModel.CURIOUS_SERVER,
        text="Sees ciphertexts, evaluation keys, sizes and times. Encryption is there to stop "
        "it; the attacks on ciphertexts try to guess classes from all that it sees.",
    ),
    ThreatModelRecord(
        name=ThreatModel.TRAINING_TIME_ADVERSARY,
        text="Controls some records of the training set. Encryption changes nothing here; where "
        "poisoning was audited, the poisoned targets show so on every twin.",
    ),
)
GAME: Final = (
    "Membership: the challenger draws half of a pool at random, trains the target on it, and shows "
    "the adversary the pool, the recipe and the service. The adversary may train shadow models on "
    "draws of its own from the same pool, and says for each record how likely it was a member "
    "(Salem et al. 2023, arXiv:2212.10986). Thresholds are set on shadow models, never on the "
    "target. Extraction: the adversary has some records of the same kind, labelled in part, and a "
    "budget of queries; what it stole is judged on test records and on uniform inputs, against "
    "the network in the clear. Evasion: the adversary moves test records by at most epsilon in "
    "each value and has succeeded where a record that was labelled right no longer is; the true "
    "labels are known to it. All twins of a target have the same members, seed and recipe, and "
    "are asked the same questions; weights that came with the model are never mixed with these."
)
