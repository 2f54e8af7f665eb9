"""The published systems that the suite reproduces.

Each has its source, its threat model, the command that runs it and the place of its code. The
catalogue lists the attacks of an audit. This list also holds systems that need a set-up of their
own, such as poisoned training sets.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final

from attacks.core.threat import ThreatModel

OWNER: Final = "none: the owner's side"
_AUDIT: Final = "he-infer audit --model digits-mlp --data digits --out audit --attacks "
_REFERENCE: Final = "python -m benchmarks leakage --reference --groups "


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """``command``: runs it on this package's own models and data; ``code``: where it lies."""

    title: str
    reference: str
    threat_model: str
    command: str
    code: str

    def to_json(self) -> dict[str, str]:
        return asdict(self)


def _system(title: str, reference: str, threat_model: str, command: str, code: str) -> System:
    return System(
        title=title, reference=reference, threat_model=threat_model, command=command, code=code
    )


SYSTEMS: Final[tuple[System, ...]] = (
    _system(
        "Adversarial examples: FGSM, PGD, APGD",
        "Goodfellow et al. 2015; Madry et al. 2018; Croce and Hein 2020",
        ThreatModel.WEIGHT_HOLDER,
        f"{_AUDIT}evasion",
        "attacks/evasion",
    ),
    _system(
        "Adversarial examples from answers alone: Square, HopSkipJump, transfer",
        "Andriushchenko et al. 2020; Chen et al. 2020; Papernot et al. 2017",
        ThreatModel.MALICIOUS_CLIENT,
        f"{_AUDIT}square,hopskipjump,transfer",
        "attacks/evasion",
    ),
    _system(
        "Defences against adversarial examples: training, smoothing, detection",
        "Madry et al. 2018; Cohen et al. 2019; Xu et al. 2018; Lee et al. 2018",
        ThreatModel.WEIGHT_HOLDER,
        f"{_REFERENCE}robustness",
        "attacks/defences",
    ),
    _system(
        "Extraction through prediction interfaces",
        "Tramèr et al. 2016",
        ThreatModel.MALICIOUS_CLIENT,
        f"{_REFERENCE}tramer,tramer-encrypted",
        "attacks/extraction",
    ),
    _system(
        "Practical black-box attacks: substitute by Jacobian augmentation",
        "Papernot et al. 2017",
        ThreatModel.MALICIOUS_CLIENT,
        f"{_REFERENCE}stealing,evasion",
        "attacks/extraction/papernot.py",
    ),
    _system(
        "Knockoff nets",
        "Orekondy et al. 2019",
        ThreatModel.MALICIOUS_CLIENT,
        f"{_AUDIT}knockoff",
        "attacks/extraction/knockoff.py",
    ),
    _system(
        "Exact extraction of polynomial networks",
        "Fornasier et al. 2019; Usevich et al. 2025",
        ThreatModel.MALICIOUS_CLIENT,
        f"{_AUDIT}quadratic-extraction",
        "attacks/extraction/exact/quadratic.py",
    ),
    _system(
        "Membership inference with shadow models",
        "Shokri et al. 2017",
        ThreatModel.MALICIOUS_CLIENT,
        f"{_AUDIT}shokri",
        "attacks/membership/shokri.py",
    ),
    _system(
        "Membership inference: loss, entropy, LiRA, RMIA, labels only",
        "Yeom et al. 2018; Song and Mittal 2021; Carlini et al. 2022; Zarifzadeh et al. 2024; "
        "Choquette-Choo et al. 2021",
        ThreatModel.MALICIOUS_CLIENT,
        f"{_AUDIT}membership",
        "attacks/membership",
    ),
    _system(
        "Certified defences against poisoning",
        "Steinhardt, Koh and Liang 2017",
        ThreatModel.TRAINING_TIME_ADVERSARY,
        f"{_REFERENCE}certified",
        "attacks/poisoning, attacks/defences/outliers.py",
    ),
    _system(
        "Poison Frogs: clean-label feature collision",
        "Shafahi et al. 2018",
        ThreatModel.TRAINING_TIME_ADVERSARY,
        f"{_REFERENCE}poisoning",
        "attacks/poisoning/frogs.py",
    ),
    _system(
        "Flipped labels, backdoors, Truth Serum, and defences against poison",
        "Biggio et al. 2011; Gu et al. 2017; Tramèr et al. 2022; Tran et al. 2018; "
        "Chen et al. 2018",
        ThreatModel.TRAINING_TIME_ADVERSARY,
        f"{_REFERENCE}poisoning",
        "attacks/poisoning, attacks/defences",
    ),
    _system(
        "Attacks on ciphertexts: slots, noise, timing, key recovery",
        "Li and Micciancio 2021; Peng 2019",
        f"{ThreatModel.MALICIOUS_CLIENT}; curious or malicious server",
        f"{_AUDIT}ciphertext",
        "attacks/ciphertext",
    ),
    _system(
        "Defences that work under encryption, and who knows them",
        "this project",
        ThreatModel.MALICIOUS_CLIENT,
        "python -m benchmarks defences",
        "he_infer/plan/privacy.py, attacks/defences",
    ),
    _system(
        "CryptoDL: polynomial activations under encryption",
        "Hesamifard, Takabi and Ghasemi 2017",
        OWNER,
        "he-infer demo",
        "he_infer",
    ),
)
