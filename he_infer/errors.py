"""Every exception of the package, so that a caller can catch exactly what it can handle.

    HEInferError
    ├── ParameterError            CKKS parameters that are insecure or inconsistent
    │   ├── DepthError            a circuit that is too deep for the parameters allowed
    │   └── DefenceError          a defence of replies that the parameters cannot carry
    ├── ApproximationError        a polynomial that cannot be built or is useless
    ├── DataError                 a data set that is missing, truncated or corrupted
    ├── TrainingError             a recipe that cannot run or did not reach its floor
    ├── CompileError              a model that cannot be turned into a plan
    │   ├── UnsupportedLayersError    lists every layer that has no encrypted equivalent
    │   └── PackingError          tensors that do not fit the slots
    ├── BackendError              an evaluation that a backend refuses (level, scale, keys)
    ├── InputError                a query with the wrong shape, dtype or values
    │   └── OutOfRangeError       values outside the interval the plan was calibrated for
    ├── WireError                 bytes that are not what they claim to be
    │   ├── VersionError          bytes or files of another format version
    │   ├── TooLargeError         more bytes or records than the stated limit
    │   └── MismatchError         well-formed bytes made for other parameters, plan or keys
    ├── FileFormatError           a plan file that cannot be read
    ├── KeyFileError              a key file that cannot be opened (passphrase, corruption)
    └── ServiceError              the conversation between client and server failed
        ├── UnreachableError      no server answered
        └── RefusedError          the server answered with an error

Messages are lower case and say what was expected, what came and the way out. They never
hold key material or plaintext values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class HEInferError(Exception):
    """Base of every exception that this package raises on purpose."""


class ParameterError(HEInferError):
    """CKKS parameters are insecure, inconsistent or out of the supported range."""


class DepthError(ParameterError):
    """The circuit needs more levels than any allowed parameter set offers."""


class DefenceError(ParameterError):
    """A defence of replies takes more bits than any allowed parameter set has to spare."""


class ApproximationError(HEInferError):
    """A polynomial approximation cannot be built for this function, interval and degree."""


class DataError(HEInferError):
    """A data set is missing, truncated or does not match its checksum."""


class TrainingError(HEInferError):
    """A training recipe cannot run, or ended below the accuracy it promises."""


class CompileError(HEInferError):
    """A model cannot be turned into an encrypted plan."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One layer the compiler cannot handle: where it is, what it is, what to do instead."""

    path: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what}; {self.remedy}"


class UnsupportedLayersError(CompileError):
    """The model holds layers without an encrypted equivalent; ``problems`` lists all of them."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        lines = "\n".join(f"  - {problem}" for problem in self.problems)
        super().__init__(f"cannot compile {len(self.problems)} part(s) of the model:\n{lines}")


class PackingError(CompileError):
    """A tensor cannot be laid out in the slots that the parameters offer."""


class BackendError(HEInferError):
    """A backend refuses an operation: levels, scales or keys do not allow it."""


class InputError(HEInferError):
    """A query has the wrong shape, dtype, size or values that are not finite."""


class OutOfRangeError(InputError):
    """Input values lie outside the interval that the plan was calibrated for."""


class WireError(HEInferError):
    """Bytes from outside are not what they claim to be."""


class VersionError(WireError):
    """Bytes or a file were written in a format version this build does not read."""


class TooLargeError(WireError):
    """More bytes or records than the stated limit."""


class MismatchError(WireError):
    """Well-formed bytes that belong to other parameters, another plan or other keys."""


class FileFormatError(HEInferError):
    """A plan file is truncated, corrupted or not a plan file."""


class KeyFileError(HEInferError):
    """A key file cannot be opened: wrong passphrase, corruption or unsafe permissions."""


class ServiceError(HEInferError):
    """The conversation between client and server failed."""


class UnreachableError(ServiceError):
    """No server answered at the address given."""


class RefusedError(ServiceError):
    """The server answered with an error; ``status`` is the HTTP status, ``code`` its reason."""

    def __init__(self, message: str, *, status: int, code: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
