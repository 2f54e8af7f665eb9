"""Who attacks: the threat models of this suite, each spelled once."""

from __future__ import annotations

from enum import StrEnum


class ThreatModel(StrEnum):
    """What an adversary holds and may do; the values stand in results and documents."""

    # Asks queries and decrypts the answers with its own key.
    MALICIOUS_CLIENT = "malicious client"
    # Was given the weights, or stole them exactly.
    WEIGHT_HOLDER = "holder of the weights"
    # Sees ciphertexts, evaluation keys, sizes and times.
    CURIOUS_SERVER = "curious server"
    # Nobody attacks: a figure to compare with.
    NONE = "none"
    # Controls some records of the training set.
    TRAINING_TIME_ADVERSARY = "training-time adversary"
