"""Picks the encrypted backend: our own evaluator where it was built, SEAL elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from he_infer import native
from he_infer.errors import BackendError
from he_infer.params import CKKSParams

if TYPE_CHECKING:
    from he_infer.runtime.backends.native import NativeBackend, NativeKeys
    from he_infer.runtime.backends.seal import LoadedKeys, SealBackend

    EncryptedBackend: TypeAlias = NativeBackend | SealBackend
    Loaded: TypeAlias = NativeKeys | LoadedKeys

AUTO: Final = "auto"
ENCRYPTED: Final = ("native", "seal")


def encrypted_backend(
    params: CKKSParams, name: str = AUTO, *, threads: int = 1
) -> EncryptedBackend:
    """The backend called ``name``; "auto" is native where it was built, else seal.

    Only the one that is used is imported: a native server needs no SEAL. ``threads`` is for
    each call of the native backend; SEAL uses one. Raises BackendError for an unknown name or
    an evaluator that was not built.
    """
    if name == AUTO:
        name = "seal" if native.core is None else "native"
    if name == "native":
        from he_infer.runtime.backends.native import NativeBackend

        return NativeBackend(params, threads=threads)
    if name == "seal":
        from he_infer.runtime.backends.seal import SealBackend

        return SealBackend(params)
    raise BackendError(f"no encrypted backend is called {name!r}: choose auto, native or seal")
