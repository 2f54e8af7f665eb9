"""A secret key posted by mistake: refused unread, and its owner told."""

from __future__ import annotations

import contextlib
from typing import Final

from starlette.requests import Request

from he_infer.errors import HEInferError
from he_infer.server.access import Access
from he_infer.server.refusal import KEY_BURNT, Refusal
from he_infer.server.routes.body import Body
from he_infer.server.routes.observed import Trace
from he_infer.wire import looks_like_seal_object, looks_like_tenseal_context

_PEEK_BYTES: Final = 64


async def refuse_burnt(
    body: Body,
    error: Exception,
    trace: Trace,
    *,
    request: Request,
    access: Access,
    head_bytes: int = 0,
) -> None:
    """Replace a refusal if what was posted looks like a SEAL object: its key may be burnt.

    Looks up whose it was, unless that is known, so that it can be noted: what strangers post
    must not make the audit log grow.
    """
    trace.body_open = trace.body_open and not body.ended
    if isinstance(error, Refusal) and error.status in (408, 503):
        return
    beginning = await body.peek(head_bytes + _PEEK_BYTES)
    trace.body_open = trace.body_open and not body.ended
    starts = (beginning, beginning[head_bytes:])
    if any(looks_like_tenseal_context(b) or looks_like_seal_object(b) for b in starts):
        body.wipe()
        trace.burnt = True
        if not trace.tenant:
            with contextlib.suppress(Refusal, HEInferError):
                trace.tenant = (await access.tenant(request)).name
        raise Refusal(400, "secret_key_posted", KEY_BURNT) from None
