"""Receiving a request's body: what came is noted, and a secret key in it is recognised."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from starlette.requests import Request

from he_infer.errors import HEInferError
from he_infer.server.refusal import SECRET_KEY_POSTED, Refusal
from he_infer.server.routes.body import Body
from he_infer.server.routes.observed import Trace
from he_infer.server.service import InferenceService
from he_infer.wire import looks_like_seal_object, looks_like_tenseal_context

_PEEK_BYTES: Final = 64


@asynccontextmanager
async def receiving(
    request: Request, trace: Trace, service: InferenceService
) -> AsyncIterator[Body]:
    """The request's body, to be received and judged within.

    A refusal is replaced by another one, 400 with the code ``secret_key_posted``, if what was
    posted looks like a SEAL object: its key may be burnt, and its owner is told.
    """
    body = Body.of(request.receive, request.headers, settings=service.settings)
    try:
        yield body
    except (Refusal, HEInferError) as error:
        trace.body_open = trace.body_open and not body.ended
        if isinstance(error, Refusal) and error.status in (408, 503):
            raise
        beginning = await body.peek(body.head_bytes + _PEEK_BYTES)
        trace.body_open = trace.body_open and not body.ended
        starts = (beginning, beginning[body.head_bytes :])
        if any(looks_like_tenseal_context(b) or looks_like_seal_object(b) for b in starts):
            body.wipe()
            trace.secret_key = True
            if not trace.tenant:
                # Whose it was is noted; what strangers post must not make the audit log grow.
                with contextlib.suppress(Refusal, HEInferError):
                    trace.tenant = (await service.access.tenant(request)).name
            raise Refusal(400, "secret_key_posted", SECRET_KEY_POSTED) from None
        raise
    finally:
        trace.received_bytes = body.received_bytes


def check_open(service: InferenceService) -> None:
    """Raise Refusal 503 if the server is stopping."""
    if service.draining:
        raise Refusal(503, "draining", "this server is stopping: retry", retry_after_s=1)
