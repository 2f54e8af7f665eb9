"""The version, alone in a module so that the build can read it without importing anything."""

from typing import Final

__version__: Final = "0.2.0"
