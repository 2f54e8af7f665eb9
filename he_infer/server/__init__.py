"""The service: plans in, Open Inference Protocol V2 over HTTP out.

``service`` knows models, keys and evaluation, and no HTTP. ``routes`` is the ASGI application,
``http_server`` serves it on a socket, ``running`` starts and stops the whole. Nothing here is
imported by ``import he_infer``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from he_infer.server.service import InferenceService
from he_infer.server.settings import Settings

if TYPE_CHECKING:
    from he_infer.server.background import BackgroundServer as BackgroundServer
    from he_infer.server.running import run as run

__all__ = ["BackgroundServer", "InferenceService", "Settings", "run"]


_HOMES: Final = {
    "BackgroundServer": "he_infer.server.background",
    "run": "he_infer.server.running",
}


def __getattr__(name: str) -> Any:
    """Load what needs the web framework on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'he_infer.server' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
