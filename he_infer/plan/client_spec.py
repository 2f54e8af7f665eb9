"""What a client must know to query a plan: parameters, layouts and key steps, never the model."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from he_infer.errors import (
    FileFormatError,
    InputError,
    OutOfRangeError,
    ParameterError,
    WireError,
)
from he_infer.params import CKKSParams
from he_infer.wire.envelope import Expected
from he_infer.wire.key_levels import KeyLevels
from he_infer.wire.protocol import DIGEST, NAME

IndexArray: TypeAlias = NDArray[np.int32]
FloatArray: TypeAlias = NDArray[np.float64]

MAX_FEATURES: Final = 1 << 20
MAX_CIPHERTEXTS: Final = 1 << 14
MAX_INPUT_SLOTS: Final = 2 * MAX_FEATURES  # written out, over all ciphertexts: 8 MB
SPEC_VERSION: Final = 2


class OutOfRangeWarning(UserWarning):
    """Query values lie outside the calibrated interval; answers may be meaningless."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClientSpec:
    """Everything a client needs, validated as untrusted input.

    ``input_shape``: of one record; ``batch``: records that one query can carry.
    ``input_slots``: (ciphertexts, N/2 / batch), the input feature of each feature slot or −1.
    ``output_slots``: (outputs,), ciphertext · (N/2 / batch) + feature slot of each output.
    ``input_range``: interval of the calibration sample's values.
    ``key_levels``: the evaluation keys that the plan needs.
    Raises FileFormatError for values that contradict each other or exceed the stated limits.
    """

    model: str
    plan_digest: str
    params: CKKSParams
    input_shape: tuple[int, ...]
    n_outputs: int
    batch: int
    input_slots: IndexArray
    output_slots: IndexArray
    n_output_ciphertexts: int
    input_scale: float
    output_scale: float
    output_level: int
    key_levels: KeyLevels
    input_range: tuple[float, float]

    def __post_init__(self) -> None:
        slots = self.params.slots
        feature_slots = slots // self.batch if 0 < self.batch <= slots else 0
        features = math.prod(self.input_shape)
        checks = {
            "model name": bool(NAME.fullmatch(self.model)),
            "plan digest": bool(DIGEST.fullmatch(self.plan_digest)),
            "batch": feature_slots * self.batch == slots,
            "input shape": 0 < len(self.input_shape) <= 4
            and min(self.input_shape) > 0
            and features <= MAX_FEATURES,
            "input slots": self.input_slots.ndim == 2
            and 0 < len(self.input_slots) <= MAX_CIPHERTEXTS
            and self.input_slots.shape[1] == feature_slots
            and bool(((self.input_slots >= -1) & (self.input_slots < features)).all()),
            "outputs": 0 < self.n_outputs <= MAX_FEATURES
            and self.output_slots.shape == (self.n_outputs,),
            "output ciphertexts": 0 < self.n_output_ciphertexts <= MAX_CIPHERTEXTS
            and bool(
                (
                    (self.output_slots >= 0)
                    & (self.output_slots < self.n_output_ciphertexts * feature_slots)
                ).all()
            ),
            "scales": all(
                math.isfinite(scale) and scale >= 1
                for scale in (self.input_scale, self.output_scale)
            ),
            "output level": 0 <= self.output_level <= self.params.max_level,
            "key levels": self._keys_exist(),
            "input range": all(math.isfinite(v) for v in self.input_range)
            and self.input_range[0] <= self.input_range[1],
        }
        bad = [what for what, good in checks.items() if not good]
        if bad:
            raise FileFormatError(f"client spec with an invalid {', '.join(bad)}")

    def _keys_exist(self) -> bool:
        try:
            self.key_levels.check(self.params)
        except WireError:
            return False
        return True

    @property
    def n_input_ciphertexts(self) -> int:
        return int(self.input_slots.shape[0])

    def check(self, records: ArrayLike, *, strict: bool = False) -> FloatArray:
        """Validate (batch, *input_shape) records; returns them as (batch, features) float64.

        Values outside ``input_range`` give an OutOfRangeWarning that says how far, or raise
        OutOfRangeError with ``strict``. Raises InputError for a wrong shape, dtype, NaN, or
        more records than fit one query.
        """
        array = np.asarray(records)
        if array.dtype.kind not in "fiub":
            raise InputError(f"records must be real numbers, got dtype {array.dtype}")
        if array.shape[1:] != self.input_shape or len(array) == 0:
            raise InputError(
                f"records must have shape (batch, {', '.join(map(str, self.input_shape))}) with "
                f"at least one record, got {array.shape}"
            )
        if len(array) > self.batch:
            raise InputError(
                f"{len(array)} records in a query that carries {self.batch}: split the batch, or "
                "compile with a larger batch"
            )
        flat = array.reshape(len(array), -1).astype(np.float64)
        if not np.isfinite(flat).all():
            raise InputError("records hold NaN or infinite values")
        low, high = self.input_range
        excess = max(low - float(flat.min()), float(flat.max()) - high)
        if excess > 1e-6 * max(1.0, high - low):
            message = (
                f"input values lie up to {excess:.3g} outside the calibrated range "
                f"[{low:g}, {high:g}]: scale them as in training, or recompile with a sample "
                "that covers them"
            )
            if strict:
                raise OutOfRangeError(message)
            warnings.warn(message, OutOfRangeWarning, stacklevel=3)
        return flat

    def pack(self, records: ArrayLike, *, strict: bool = False) -> FloatArray:
        """(batch, *input_shape) records → (ciphertexts, N/2) slot values; raises as ``check``."""
        return self.place(self.check(records, strict=strict))

    def place(self, flat: FloatArray) -> FloatArray:
        """(batch, features) records that were checked → (ciphertexts, N/2) slot values."""
        padded = np.zeros((flat.shape[1] + 1, self.batch))
        padded[:-1, : len(flat)] = flat.T  # row −1 stays zero: what index −1 reads
        values = padded[self.input_slots]  # (ciphertexts, feature slots, batch)
        return values.reshape(self.n_input_ciphertexts, self.params.slots)

    def unpack(self, slots: NDArray[np.float64], records: int) -> FloatArray:
        """(output ciphertexts, N/2) slot values → (records, n_outputs)."""
        expected = (self.n_output_ciphertexts, self.params.slots)
        if slots.shape != expected or not 0 < records <= self.batch:
            raise InputError(f"expected slots {expected} and 1 … {self.batch} records")
        by_feature = slots.reshape(-1, self.batch)
        return np.ascontiguousarray(by_feature[self.output_slots, :records].T)

    def to_json(self) -> dict[str, Any]:
        return {
            "version": SPEC_VERSION,
            "model": self.model,
            "plan_digest": self.plan_digest,
            "params": self.params.to_json(),
            "input_shape": list(self.input_shape),
            "n_outputs": self.n_outputs,
            "batch": self.batch,
            "input_slots": [_run_lengths(row) for row in self.input_slots],
            "output_slots": self.output_slots.tolist(),
            "n_output_ciphertexts": self.n_output_ciphertexts,
            "input_scale": self.input_scale,
            "output_scale": self.output_scale,
            "output_level": self.output_level,
            "key_levels": self.key_levels.to_json(),
            "input_range": list(self.input_range),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ClientSpec:
        """Read what ``to_json`` wrote; raises FileFormatError for anything else."""
        try:
            if data["version"] != SPEC_VERSION:
                raise FileFormatError(
                    f"client spec version {data['version']!r}, this build reads {SPEC_VERSION}: "
                    "update the older side"
                )
            params = CKKSParams.from_json(data["params"])
            batch = _integer(data["batch"])
            width = params.slots // batch if 0 < batch <= params.slots else 0
            rows = data["input_slots"]
            if (
                not isinstance(rows, list)
                or not 0 < len(rows) <= MAX_CIPHERTEXTS
                # Run lengths are short: a few kilobytes could ask for a gigabyte.
                or len(rows) * width > MAX_INPUT_SLOTS
            ):
                raise FileFormatError("client spec with an invalid input slots")
            return cls(
                model=str(data["model"]),
                plan_digest=str(data["plan_digest"]),
                params=params,
                input_shape=tuple(_integer(v) for v in data["input_shape"]),
                n_outputs=_integer(data["n_outputs"]),
                batch=batch,
                input_slots=np.stack([_from_run_lengths(row, width) for row in rows]),
                output_slots=np.array([_integer(v) for v in data["output_slots"]], dtype=np.int32),
                n_output_ciphertexts=_integer(data["n_output_ciphertexts"]),
                input_scale=float(data["input_scale"]),
                output_scale=float(data["output_scale"]),
                output_level=_integer(data["output_level"]),
                key_levels=KeyLevels.from_json(data["key_levels"]),
                input_range=(float(data["input_range"][0]), float(data["input_range"][1])),
            )
        except WireError as error:
            raise FileFormatError("client spec with an invalid key levels") from error
        except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
            raise FileFormatError(f"not a client spec: {type(error).__name__}") from error
        except ParameterError as error:
            raise FileFormatError(f"client spec with refused parameters: {error}") from error


def expected_query(spec: ClientSpec, keys_digest: str) -> Expected:
    """The one envelope that a query for ``spec`` under these keys can be."""
    return Expected.query(
        spec.params,
        plan_digest=spec.plan_digest,
        keys_digest=keys_digest,
        count=spec.n_input_ciphertexts,
        scale=spec.input_scale,
    )


def expected_reply(spec: ClientSpec, keys_digest: str) -> Expected:
    """The one envelope that a reply to such a query can be."""
    return Expected.reply(
        spec.params,
        plan_digest=spec.plan_digest,
        keys_digest=keys_digest,
        count=spec.n_output_ciphertexts,
        scale=spec.output_scale,
        level=spec.output_level,
    )


def _integer(value: object) -> int:
    if type(value) is not int or abs(value) >= 1 << 31:
        raise TypeError("expected a 32-bit integer")
    return value


def _run_lengths(row: IndexArray) -> list[list[int]]:
    """[start, step, count] runs: most layouts are a few arithmetic progressions."""
    runs: list[list[int]] = []
    values = row.tolist()
    i = 0
    while i < len(values):
        step = values[i + 1] - values[i] if i + 1 < len(values) else 0
        count = 1
        while i + count < len(values) and values[i + count] == values[i] + step * count:
            count += 1
        runs.append([values[i], step, count])
        i += count
    return runs


def _from_run_lengths(runs: object, width: int) -> IndexArray:
    if not isinstance(runs, list) or len(runs) > width:
        raise TypeError("expected a list of runs")
    total = 0
    parts = []
    for run in runs:
        start, step, count = (_integer(v) for v in run)
        total += count
        if count < 1 or total > width or abs(start + step * (count - 1)) >= 1 << 31:
            raise ValueError("runs do not fill the slots")
        parts.append(start + step * np.arange(count, dtype=np.int64))
    if total != width:
        raise ValueError("runs do not fill the slots")
    return np.concatenate(parts).astype(np.int32)
