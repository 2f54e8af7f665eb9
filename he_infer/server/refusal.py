"""How the service says no: an HTTP status, a machine-readable code and one sentence."""

from __future__ import annotations

from typing import Final

from he_infer.errors import (
    HEInferError,
    MismatchError,
    TooLargeError,
    VersionError,
    WireError,
)
from he_infer.server.state.blobs import NoRoomError
from he_infer.server.state.database import DatabaseError
from he_infer.server.state.key_index import StoreFullError, UnknownKeysError
from he_infer.server.state.replies import InProgressError, OtherRequestError
from he_infer.server.state.tenants import BudgetSpentError

SECRET_KEY_POSTED: Final = (
    "this looks like a serialised TenSEAL or SEAL object, which may hold a secret key: it was "
    "refused unread and nothing of it was kept. if it held one, consider that key burnt: delete "
    "it, generate another and upload evaluation keys only"
)


class Refusal(Exception):
    """An answer other than success: ``status`` for HTTP, ``code`` for programs.

    ``retry_after_s`` is sent as Retry-After where waiting helps, ``received`` as the Range of an
    upload that is here.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        retry_after_s: int | None = None,
        received: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after_s = retry_after_s
        self.received = received


class ClientGoneError(Exception):
    """The client closed the connection: nobody is left to answer."""


# First match wins, so that a subclass comes before its base.
_STATUS_OF: Final[tuple[tuple[type[HEInferError], int, str], ...]] = (
    (UnknownKeysError, 404, "unknown_keys"),
    (StoreFullError, 507, "key_store_full"),
    (NoRoomError, 507, "disk_full"),
    (BudgetSpentError, 429, "budget_spent"),
    (OtherRequestError, 409, "idempotency_mismatch"),
    (InProgressError, 409, "in_progress"),
    (DatabaseError, 503, "database_unavailable"),
    (TooLargeError, 413, "too_large"),
    (VersionError, 400, "unsupported_version"),
    (MismatchError, 409, "mismatch"),
    (WireError, 400, "malformed"),
)


_RETRY_AFTER_S: Final = {"in_progress": 1, "database_unavailable": 5, "disk_full": 60}


def refusal_for(error: BaseException | None) -> Refusal:
    """The refusal that tells a client about ``error``.

    It says nothing about what is unforeseen, or None, but that the server failed.
    """
    if isinstance(error, Refusal):
        return error
    for kind, status, code in _STATUS_OF:
        if isinstance(error, kind):
            retry_after_s = getattr(error, "retry_after_s", _RETRY_AFTER_S.get(code))
            return Refusal(status, code, str(error), retry_after_s=retry_after_s)
    return Refusal(500, "internal", "the server failed to answer; its log has the request id")
