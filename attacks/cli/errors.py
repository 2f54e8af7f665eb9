"""Maps the suite's errors to he-infer's, which prints them as one line and exits with 2."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from attacks.errors import AttackError
from he_infer.errors import HEInferError


class AttackSuiteError(HEInferError):
    """An AttackError on its way to the command line; the message is the original's."""


@contextmanager
def readable_errors() -> Iterator[None]:
    """Raise AttackSuiteError in place of an AttackError."""
    try:
        yield
    except AttackError as error:
        raise AttackSuiteError(str(error)) from error
