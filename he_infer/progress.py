"""How long-running work reports its progress: the caller supplies a function."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called as ``progress(stage, done, total)`` whenever ``done`` of ``total`` steps are over."""

    def __call__(self, stage: str, done: int, total: int) -> None: ...
