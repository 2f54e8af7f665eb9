"""Where backends are registered, and how one is found by its name.

A new backend on real ciphertexts is a module with a class that has what
``base.EncryptedBackend`` lists, and a line in ``ENCRYPTED``.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from he_infer.errors import BackendError
from he_infer.params import CKKSParams

if TYPE_CHECKING:
    import numpy as np

    from he_infer.runtime.backends.base import EncryptedBackend
    from he_infer.runtime.backends.slotwise import SlotwiseBackend

AUTO: Final = "auto"
# Best first. A module is imported when its backend is asked for: a native server needs no SEAL.
ENCRYPTED: Final = {
    "native": "NativeBackend",
    "seal": "SealBackend",
}
IN_THE_CLEAR: Final = ("plain", "simulated")


def backend_class(name: str = AUTO) -> type[EncryptedBackend]:
    """The encrypted backend called ``name``; "auto" is the best that this machine can run.

    Raises BackendError for an unknown name, or where no backend can run.
    """
    if name != AUTO:
        return _class(name)
    for candidate in map(_class, ENCRYPTED):
        if not candidate.missing():
            return candidate
    raise BackendError("no encrypted backend can run on this machine")


def encrypted_backend(
    params: CKKSParams, name: str = AUTO, *, threads: int = 1
) -> EncryptedBackend:
    """The backend called ``name`` for ``params``, with ``threads`` for each operation.

    Raises BackendError as ``backend_class``, or for a backend that cannot run here.
    """
    return backend_class(name)(params, threads=threads)


def clear_backend(
    params: CKKSParams, name: str, rng: np.random.Generator, *, steps: Collection[int]
) -> SlotwiseBackend:
    """A backend without cryptography: exact, or with simulated noise drawn from ``rng``."""
    from he_infer.runtime.backends.plain import PlainBackend
    from he_infer.runtime.backends.simulated import SimulatedBackend

    match name:
        case "plain":
            return PlainBackend(params, steps=steps)
        case "simulated":
            return SimulatedBackend(params, rng, steps=steps)
    raise BackendError(
        f"no backend is called {name!r}: choose {', '.join((*IN_THE_CLEAR, *ENCRYPTED))}"
    )


def _class(name: str) -> type[EncryptedBackend]:
    if name not in ENCRYPTED:
        choices = ", ".join((AUTO, *ENCRYPTED))
        raise BackendError(f"no encrypted backend is called {name!r}: choose {choices}")
    module = importlib.import_module(f"he_infer.runtime.backends.{name}")
    found: type[EncryptedBackend] = getattr(module, ENCRYPTED[name])
    return found


def summary() -> str:
    """Which backend serves on this machine, on which arithmetic paths, and what is missing."""
    chosen = backend_class()
    missing = [reason for reason in (_class(name).missing() for name in ENCRYPTED) if reason]
    text = chosen.name + (": " if chosen.paths() else "") + ", ".join(chosen.paths())
    return text + (f" ({'; '.join(missing)})" if missing else "")
