"""How long work reports itself: shaped like the serving side's, so that one bar draws both."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called as ``progress(stage, done, total)`` whenever ``done`` of ``total`` steps are over."""

    def __call__(self, stage: str, done: int, total: int) -> None: ...
