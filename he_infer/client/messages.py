"""What a server tells its clients: the description of a model, and why it refuses a request.

Both come from outside, so they are bounded in length and checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from he_infer.client.transport import Request, Response, Transport
from he_infer.errors import (
    FileFormatError,
    MismatchError,
    RefusedError,
    TooLargeError,
    WireError,
)
from he_infer.plan.client_spec import ClientSpec, expected_query, expected_reply
from he_infer.wire import Expected
from he_infer.wire import protocol as protocol

MAX_METADATA_BYTES: Final = 8 * 2**20
MAX_ERROR_BYTES: Final = 64 * 1024
# For answers without a body, such as those to HEAD.
_WORDS: Final = {
    401: (
        "unauthenticated",
        "no valid token or certificate was shown: give a token (a revoked or expired one has to "
        "be replaced by the operator)",
    ),
    403: ("forbidden", "token and certificate are not of one tenant that is let in"),
    404: ("not_found", "the server has nothing there: check the address and the model's name"),
    410: ("plan_replaced", "this version of the model is no longer served: connect again"),
    429: ("budget_spent", "the budget of records is used up"),
    503: ("unknown", "the server is busy or stopping: ask again later"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The largest messages, in bytes, that a client makes or takes because a server asks it to."""

    query_bytes: int = 2**29
    reply_bytes: int = 2**28
    keys_bytes: int = 2**31


def fetch_spec(transport: Transport, model: str, *, limits: Limits | None = None) -> ClientSpec:
    """What a server says a client must know to query ``model``, checked and bounded.

    Raises RefusedError, UnreachableError, WireError or TooLargeError.
    """
    path = protocol.model_path(model)
    answer = transport.request(Request(method="GET", path=path, max_reply_bytes=MAX_METADATA_BYTES))
    expect_status(answer, 200)
    data = protocol.parse_json(answer.body)
    parameters = data.get("parameters") if isinstance(data, dict) else None
    described = parameters.get("client_spec") if isinstance(parameters, dict) else None
    if not isinstance(described, dict):
        raise WireError("the server's model metadata holds no client spec")
    try:
        spec = ClientSpec.from_json(described)
    except FileFormatError as error:
        raise WireError(f"the server's model metadata is refused: {error}") from error
    if spec.model != model:
        raise MismatchError(f"asked for model {model}, the server described another one")
    check_limits(spec, Limits() if limits is None else limits)
    return spec


def check_limits(spec: ClientSpec, limits: Limits) -> None:
    """Raise TooLargeError if the model needs larger messages than ``limits`` allow."""
    asked = {
        "query": (expected_query(spec, "0" * 64).total_bytes, limits.query_bytes),
        "reply": (expected_reply(spec, "0" * 64).total_bytes, limits.reply_bytes),
        "evaluation keys": (
            Expected.evaluation_keys(spec.params, spec.key_levels).total_bytes,
            limits.keys_bytes,
        ),
    }
    for what, (needed, limit) in asked.items():
        if needed > limit:
            raise TooLargeError(
                f"the model needs {needed} bytes of {what}, the limit is {limit}: raise it if "
                "you trust the server"
            )


def expect_status(answer: Response, status: int) -> None:
    """Raise RefusedError unless the server answered with ``status``."""
    if answer.status != status:
        raise refusal_in(answer)


def refusal_in(answer: Response) -> RefusedError:
    """The server's refusal, its words cut and cleaned: they come from outside."""
    code, message = _WORDS.get(answer.status, ("unknown", "no reason given"))
    try:
        data = protocol.parse_json(answer.body[:MAX_ERROR_BYTES])
    except WireError:
        data = None
    if isinstance(data, dict):
        message = _printable(data.get("error", message))
        code = _printable(data.get("code", code))
    return RefusedError(
        f"the server refused ({answer.status} {code}): {message}", status=answer.status, code=code
    )


def _printable(value: object) -> str:
    return "".join(c for c in str(value)[:500] if c.isprintable())
