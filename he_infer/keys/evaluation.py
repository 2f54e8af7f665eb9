"""What a server needs to compute for one client: public material only, without SEAL."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Self

from he_infer.errors import ParameterError, WireError
from he_infer.params import CKKSParams
from he_infer.wire.envelope import Expected
from he_infer.wire.frames import Frame, read_envelope, write_envelope
from he_infer.wire.key_levels import KeyLevels, canonical_steps
from he_infer.wire.types import SeededKeySwitchKey, SeededPublicKey

CONJUGATION_STEP: Final = 0  # the step that SEAL reserves for complex conjugation


def galois_element(step: int, n: int) -> int:
    """The Galois element 3^step mod 2n that rotates the slots left by ``step`` (right if < 0).

    Step 0 means complex conjugation, 2n − 1, as in SEAL. Raises ParameterError if
    ``|step|`` is not below the number of slots n/2.
    """
    slots = n // 2
    if not -slots < step < slots:
        raise ParameterError(f"rotation by {step} is outside ±{slots - 1}")
    return 2 * n - 1 if step == CONJUGATION_STEP else pow(3, step % slots, 2 * n)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EvaluationKeys:
    """Public material for one client: public key, relinearisation key, one key per rotation.

    ``relin`` is None where no product needs it; ``galois`` maps canonical left-rotation steps
    to keys (0 is conjugation). Each may be cut to the level of its use. Raises WireError for
    residues or steps that ``params`` do not allow.
    """

    params: CKKSParams
    public_key: SeededPublicKey = field(repr=False)
    relin: SeededKeySwitchKey | None = field(repr=False)
    galois: Mapping[int, SeededKeySwitchKey] = field(repr=False)
    _digest: list[str] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        if tuple(sorted(self.galois)) != canonical_steps(list(self.galois), self.params):
            raise WireError(f"rotation steps must lie in 0…{self.params.slots - 1}")
        ordered = {step: self.galois[step] for step in sorted(self.galois)}
        object.__setattr__(self, "galois", MappingProxyType(ordered))
        self.public_key.check(self.params)
        for key in self._switches:
            key.check(self.params)

    @property
    def _switches(self) -> tuple[SeededKeySwitchKey, ...]:
        rotations = tuple(self.galois.values())
        return rotations if self.relin is None else (self.relin, *rotations)

    @property
    def levels(self) -> KeyLevels:
        return KeyLevels(
            public=self.public_key.level,
            relin=None if self.relin is None else self.relin.level,
            rotations=tuple((step, key.level) for step, key in self.galois.items()),
        )

    @property
    def steps(self) -> tuple[int, ...]:
        return tuple(self.galois)

    @property
    def digest(self) -> str:
        """SHA-256 of :meth:`to_bytes`, in hexadecimal."""
        if not self._digest:
            self._digest.append(hashlib.sha256(self.to_bytes()).hexdigest())
        return self._digest[0]

    def to_bytes(self) -> bytes:
        """The one envelope that holds these keys; equal keys give equal bytes."""
        expected = Expected.evaluation_keys(self.params, self.levels)
        return write_envelope([self.public_key, *self._switches], expected)

    @classmethod
    def from_bytes(cls, data: bytes, *, params: CKKSParams, levels: KeyLevels) -> Self:
        """Parse exactly the keys in ``levels``; raises WireError and its subclasses."""
        expected = Expected.evaluation_keys(params, levels)
        frames = read_envelope(data, expected, limit_bytes=max(expected.total_bytes, len(data)))
        keys = cls.of_frames(frames, expected)
        # The format is canonical, so the bytes that came are the bytes we would write.
        keys._digest.append(hashlib.sha256(data).hexdigest())
        return keys

    @classmethod
    def of_frames(cls, frames: Sequence[Frame], expected: Expected) -> Self:
        """The keys that an envelope's frames are, in their order."""
        assert expected.keys is not None
        public_key, *switches = frames
        assert isinstance(public_key, SeededPublicKey)
        keys = [key for key in switches if isinstance(key, SeededKeySwitchKey)]
        relin = None if expected.keys.relin is None else keys.pop(0)
        return cls(
            params=expected.params,
            public_key=public_key,
            relin=relin,
            galois=dict(zip(expected.keys.steps, keys, strict=True)),
        )
