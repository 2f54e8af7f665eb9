"""The compiled arithmetic, where a compiler was at hand when the package was installed.

``core`` is the extension module, or None if it was not built. ``paths()`` lists its arithmetic
paths that this machine can run. Native code sees public data only: ciphertexts, evaluation keys
and weights.
"""

from __future__ import annotations

from types import ModuleType

core: ModuleType | None
try:
    from he_infer.native import _core

    core = _core
except ImportError:
    core = None


def paths() -> tuple[str, ...]:
    """The arithmetic paths that can run here, best first; empty without the extension."""
    return () if core is None else tuple(core.available_paths())
