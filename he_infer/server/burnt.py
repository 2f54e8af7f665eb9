"""A secret key posted by mistake: refused unread, and its owner told."""

from __future__ import annotations

from typing import Final

from he_infer.server.body import Body
from he_infer.server.observed import Trace
from he_infer.server.refusal import KEY_BURNT, Refusal
from he_infer.wire import looks_like_seal_object, looks_like_tenseal_context

_PEEK_BYTES: Final = 64


async def refuse_burnt(body: Body, error: Exception, trace: Trace, *, head_bytes: int = 0) -> None:
    """Replace a refusal if what was posted looks like a SEAL object: its key may be burnt."""
    trace.body_open = not body.ended
    if isinstance(error, Refusal) and error.status in (408, 410, 503):
        return
    beginning = await body.peek(head_bytes + _PEEK_BYTES)
    trace.body_open = not body.ended
    starts = (beginning, beginning[head_bytes:])
    if any(looks_like_tenseal_context(b) or looks_like_seal_object(b) for b in starts):
        body.wipe()
        trace.burnt = True
        raise Refusal(400, "secret_key_posted", KEY_BURNT) from None
