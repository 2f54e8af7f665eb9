"""Maps the suite's errors to he-infer's, which prints them as one line and exits with 2."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from attacks.errors import AttackError, InterruptedOracleError
from he_infer.cli.console import warn
from he_infer.errors import HEInferError

KEPT: Final = "what is finished is kept: the same command goes on from here"


class AttackSuiteError(HEInferError):
    """An AttackError on its way to the command line; the message is the original's."""


@contextmanager
def readable_errors() -> Iterator[None]:
    """Raise AttackSuiteError in place of an AttackError; say what an interruption leaves."""
    try:
        yield
    except KeyboardInterrupt:
        warn(KEPT)
        raise
    except InterruptedOracleError as error:
        raise AttackSuiteError(f"{error}; {KEPT}") from error
    except AttackError as error:
        raise AttackSuiteError(str(error)) from error
