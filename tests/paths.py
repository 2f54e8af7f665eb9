"""Where the checkout is, whatever folder a test lies in."""

from __future__ import annotations

from pathlib import Path
from typing import Final

CHECKOUT: Final = Path(__file__).resolve().parent.parent
HOSTILE: Final = CHECKOUT / "tests" / "vectors" / "hostile"
