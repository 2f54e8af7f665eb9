"""When a server is busy, stopping or still at it, its client asks again.

Nothing that was decrypted decides whether it does.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from he_infer.client.messages import refusal_in
from he_infer.client.transport import Request, Response, Transport
from he_infer.errors import ParameterError

_LATER: Final = frozenset({(409, "in_progress"), (429, "budget_spent")})


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how long to wait for a server.

    There are ``attempts`` in all. Between them the client waits as long as the server asks for,
    ``longest_wait_s`` at most. If the server asks for nothing it waits ``first_wait_s``, doubled
    every time, with jitter. Raises ParameterError below one attempt or for negative waits.
    """

    attempts: int = 6
    first_wait_s: float = 0.2
    longest_wait_s: float = 10.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.first_wait_s < 0 or self.longest_wait_s < 0:
            raise ParameterError("a retry policy needs at least one attempt and no negative waits")


def ask(
    transport: Transport,
    request: Request,
    policy: RetryPolicy,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> Response:
    """Send a request until it is answered by something else than "later".

    Only for requests that do no harm twice: those that read, and those with an idempotency key.
    A budget that is renewed later than the longest wait is not waited for.
    """
    for attempt in range(1, policy.attempts + 1):
        answer = transport.request(request)
        if attempt == policy.attempts or not _is_later(answer):
            return answer
        wanted = answer.headers.get("retry-after", "")
        asked_s = float(wanted) if wanted.isascii() and wanted.isdigit() else None
        if answer.status == 429 and (asked_s is None or asked_s > policy.longest_wait_s):
            return answer
        backoff_s = policy.first_wait_s * 2 ** (attempt - 1)
        wait_s = min(policy.longest_wait_s, backoff_s if asked_s is None else asked_s)
        sleep(wait_s * random.uniform(0.8, 1.2))
    raise AssertionError("unreachable: the last attempt returns")


def _is_later(answer: Response) -> bool:
    if answer.status in (409, 429):
        return (answer.status, refusal_in(answer).code) in _LATER
    return answer.status == 503
