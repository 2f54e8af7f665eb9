"""Primitive operations, ours beside SEAL's in one run, and how far ours are from their floor.

The floor is what the counted transforms and words would take at the speed of this machine's
best run of one transform and of one pass over memory: no implementation of the same counts on
the same kernels is faster.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks import record
from he_infer import native
from he_infer.errors import BackendError
from he_infer.keys.secret import SecretKeys
from he_infer.params import CKKSParams
from he_infer.runtime.backends.linear import Group, LinearMap, Product
from he_infer.runtime.backends.native import NativeBackend
from he_infer.runtime.backends.seal import SealBackend
from he_infer.wire.types import key_moduli

CHAINS: Final = {
    4096: ((36, 30), 38),
    8192: ((33, 50, 50, 23), 50),
    16384: ((33, 50, 50, 50, 23), 50),
}
SCALE: Final = 2.0**23
HOISTED: Final = 8  # rotations of one ciphertext, to find the cost of one more


@dataclass(frozen=True, slots=True, kw_only=True)
class PrimitiveRow:
    """Medians in microseconds. ``seal_us``: None where SEAL has no such operation; ``floor_us``:
    from counts. ``ratio``: SEAL's over ours."""

    name: str
    n: int
    primes: int
    path: str
    ours_us: float
    seal_us: float | None
    floor_us: float | None
    ratio: float | None
    repeats: int
    host: str
    commit: str


def run(n: int, *, path: str, repeats: int) -> list[PrimitiveRow]:
    """Time every primitive at ring degree ``n`` on one path; raises BackendError for others."""
    if n not in CHAINS:
        raise BackendError(f"primitives are timed at N = {sorted(CHAINS)}, not {n}")
    bits, special = CHAINS[n]
    params = CKKSParams.from_bits(n, bits, special_bits=special)
    level, primes = params.max_level, len(params.primes)
    secret = SecretKeys.generate(params)
    keys = secret.evaluation_keys(list(range(1, HOISTED + 1)))
    bare, bare_seal = NativeBackend(params, path=path), SealBackend(params)
    ours = bare.with_keys(bare.load_keys(keys))
    seal = bare_seal.with_keys(bare_seal.load_keys(keys))
    slots = np.random.default_rng(0).uniform(-1, 1, params.slots)
    (query,) = secret.encrypt(slots[None], SCALE)
    a, b = ours.import_ciphertext(query), seal.import_ciphertext(query)
    p, q = (backend.encode(slots, level=level, scale=SCALE) for backend in (ours, seal))
    a3, b3 = ours.multiply(a, a), seal.multiply(b, b)
    core: Any = native.core
    engine = core.Engine(n, key_moduli(params), ours.path)
    residues = np.random.default_rng(0).integers(0, params.primes[-2], (1, n), dtype=np.uint64)

    def transform(forward: bool) -> Callable[[], object]:
        return lambda: engine.transform_rows(residues, primes - 2, forward)

    def hoisted(rotations: int) -> Callable[[], object]:
        group = Group(tuple(Product(0, k, lambda: 1.0) for k in range(rotations + 1)), then=0)
        linear = LinearMap(
            level=level, scale=SCALE, targets=((group,),), folds=(), scalars=False, repeats=True
        )
        prepared = ours.prepare(linear)
        return lambda: ours.apply(prepared, [a])

    forward = _us(transform(True), repeats)
    inverse = _us(transform(False), repeats)
    ntt = min(forward.best, inverse.best)
    word = _us(lambda: np.add(a.value.residues, 1), repeats).best / (2 * primes * n)
    digits = (primes + primes**2) * ntt
    key_words = 2 * primes * (primes + 1) * n * word
    divided = 2 * (primes + 1) * ntt
    few, many = hoisted(1), hoisted(HOISTED)
    timed: list[tuple[str, _Timed, _Timed | None, float | None]] = [
        ("forward NTT", forward, None, ntt),
        ("inverse NTT", inverse, None, ntt),
        (
            "rotate",
            _us(lambda: ours.rotate(a, 1), repeats),
            _us(lambda: seal.rotate(b, 1), repeats),
            digits + key_words + divided,
        ),
        (
            "one more hoisted rotation",
            (_us(many, repeats) - _us(few, repeats)) / (HOISTED - 1),
            None,
            key_words,
        ),
        (
            "relinearise",
            _us(lambda: ours.relinearize(a3), repeats),
            _us(lambda: seal.relinearize(b3), repeats),
            digits + key_words + divided,
        ),
        (
            "rescale",
            _us(lambda: ours.rescale(a), repeats),
            _us(lambda: seal.rescale(b), repeats),
            2 * primes * ntt,
        ),
        (
            "ciphertext × plaintext",
            _us(lambda: ours.multiply_plain(a, p), repeats),
            _us(lambda: seal.multiply_plain(b, q), repeats),
            3 * primes * n * word,
        ),
        (
            "square",
            _us(lambda: ours.multiply(a, a), repeats),
            _us(lambda: seal.multiply(b, b), repeats),
            5 * primes * n * word,
        ),
        (
            "encode",
            _us(lambda: ours.encode(slots, level=level, scale=SCALE), repeats),
            _us(lambda: seal.encode(slots, level=level, scale=SCALE), repeats),
            None,
        ),
        (
            "expand a seeded query",
            _us(lambda: ours.import_ciphertext(query), repeats),
            _us(lambda: seal.import_ciphertext(query), repeats),
            None,
        ),
    ]
    return [
        PrimitiveRow(
            name=name,
            n=n,
            primes=primes,
            path=ours.path,
            ours_us=mine.median,
            seal_us=None if theirs is None else theirs.median,
            floor_us=floor,
            ratio=None if theirs is None else theirs.median / mine.median,
            repeats=repeats,
            host=record.host(),
            commit=record.commit(),
        )
        for name, mine, theirs, floor in timed
    ]


def write(path: Path, rows: Sequence[PrimitiveRow]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps([dataclasses.asdict(row) for row in rows], indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def lines(rows: Sequence[PrimitiveRow]) -> list[str]:
    """A table as text: microseconds, ours, SEAL's, the floor and the ratio."""
    found = [f"{'':28}{'N':>6} {'primes':>6} {'path':>7} {'ours':>9} {'SEAL':>9} {'floor':>9}"]
    for r in rows:
        seal = "–" if r.seal_us is None else f"{r.seal_us:.1f}"
        floor = "–" if r.floor_us is None else f"{r.floor_us:.1f}"
        ratio = "" if r.ratio is None else f"  {r.ratio:.1f}×"
        found.append(
            f"{r.name:28}{r.n:>6} {r.primes:>6} {r.path:>7} {r.ours_us:>9.1f} {seal:>9} "
            f"{floor:>9}{ratio}"
        )
    return found


@dataclass(frozen=True, slots=True)
class _Timed:
    median: float
    best: float

    def __sub__(self, other: _Timed) -> _Timed:
        return _Timed(self.median - other.median, self.best - other.best)

    def __truediv__(self, by: float) -> _Timed:
        return _Timed(self.median / by, self.best / by)


def _us(run: Callable[[], object], repeats: int) -> _Timed:
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e6)
    return _Timed(statistics.median(times), min(times))
