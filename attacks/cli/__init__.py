"""The commands that the attack suite adds to he-infer."""

from __future__ import annotations

from typing import Any


def add_commands(commands: Any) -> None:
    """Add ``audit`` and ``attacks`` to argparse's subparsers; he-infer calls this."""
