"""Every exception of the attack suite.

    AttackError
    ├── DataSplitError        members and non-members that cannot be compared, or records that
    │                         do not fit the model
    ├── AbilityError          an attack that needs more than its oracle answers
    ├── BudgetError           an attack that cannot work with the queries it may make
    ├── BadAnswerError        an answer that is not finite, or has the wrong shape
    ├── RefusedError          a filter before the target took records for adversarial ones
    ├── InterruptedOracleError   the oracle died; ``answered`` says what was paid for and kept
    ├── AnswerFileError       recorded answers that are damaged, missing or of another target
    ├── TooFewRecordsError    an estimate that the number of records cannot support
    ├── ShadowError           shadow models that did not train, or a cache that does not fit
    └── AuditError            an audit whose configuration or state makes no sense

Messages are lower case and say what was expected, what came and the way out.
"""

from __future__ import annotations


class AttackError(Exception):
    """Base of every exception that the attack suite raises on purpose."""


class DataSplitError(AttackError):
    """Members and non-members differ in shape or size, or records do not fit the model."""


class AbilityError(AttackError):
    """The attack needs more than this oracle answers, such as logits where it gives labels."""


class BudgetError(AttackError):
    """The query budget is spent, or was too small from the start; the message says the minimum."""


class BadAnswerError(AttackError):
    """The oracle answered with numbers that are not finite, or with the wrong shape."""


class RefusedError(AttackError):
    """A filter refused records before the target was asked; ``flagged`` are their indices."""

    def __init__(self, message: str, *, flagged: tuple[int, ...]) -> None:
        super().__init__(message)
        self.flagged = flagged


class InterruptedOracleError(AttackError):
    """The oracle stopped answering; ``answered`` records were paid for and are kept."""

    def __init__(self, message: str, *, answered: int) -> None:
        super().__init__(message)
        self.answered = answered


class AnswerFileError(AttackError):
    """A file of recorded answers is damaged, of another target, or lacks what is asked."""


class TooFewRecordsError(AttackError):
    """Too few records for the rate asked for; ``needed`` says how many would do."""

    def __init__(self, message: str, *, needed: int) -> None:
        super().__init__(message)
        self.needed = needed


class ShadowError(AttackError):
    """Shadow models did not train, or what the cache holds does not fit what was asked."""


class AuditError(AttackError):
    """An audit whose configuration, or whose saved state, makes no sense."""
