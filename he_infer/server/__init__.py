"""The service: plans in, Open Inference Protocol V2 over HTTP out.

``service`` knows models, keys and evaluation and no HTTP; ``app`` is the ASGI application;
``running`` starts it on a socket. Only ``app``, ``guard`` and ``running`` need a web framework, and
nothing here is imported by ``import he_infer``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from he_infer.server.service import InferenceService
from he_infer.server.settings import Settings

if TYPE_CHECKING:
    from he_infer.server.running import BackgroundServer as BackgroundServer
    from he_infer.server.running import run as run

__all__ = ["BackgroundServer", "InferenceService", "Settings", "run"]


def __getattr__(name: str) -> Any:
    """Load what needs the web framework on first use (PEP 562)."""
    if name in ("BackgroundServer", "run"):
        from importlib import import_module

        return getattr(import_module("he_infer.server.running"), name)
    raise AttributeError(f"module 'he_infer.server' has no attribute {name!r}")
