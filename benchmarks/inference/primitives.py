"""Primitive operations, ours beside SEAL's in one run, and how far ours are from their floor.

The floor is what the counted transforms and words would take at the speed of this machine's
best run of one transform and of one pass over memory: no implementation of the same counts on
the same kernels is faster.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np

from benchmarks import record
from benchmarks.inference.options import numbers_of
from benchmarks.record import Outcome, Timing, timed
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
class Primitive:
    """Medians in microseconds. ``seal_us``: None where SEAL has no such operation.

    ``floor_us``: from counts. ``ratio``: SEAL's time over ours.
    """

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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--n", type=numbers_of, default=(8192,), help="ring degrees, a list")
    parser.add_argument(
        "--path",
        type=lambda text: tuple(text.split(",")),
        default=("best",),
        help="of the native evaluator: scalar, avx2, ifma or best, a list",
    )
    parser.add_argument("--repeats", type=int, default=101, help="runs of each operation")


def run(options: argparse.Namespace) -> Outcome:
    """Every primitive at each ring degree of ``--n`` on each of ``--path``."""
    found = [
        each
        for n in options.n
        for path in options.path
        for each in timings(n, path=path, repeats=options.repeats)
    ]
    return Outcome(document=[dataclasses.asdict(each) for each in found], lines=lines(found))


@dataclass(frozen=True, slots=True)
class _Side:
    """One library with its operands: a query, its square before relinearisation, a plaintext."""

    backend: Any
    query: Any
    squared: Any
    plain: Any


def timings(n: int, *, path: str, repeats: int) -> list[Primitive]:
    """Time every primitive at ring degree ``n`` on one path; raises BackendError for others."""
    if n not in CHAINS:
        raise BackendError(f"primitives are timed at N = {sorted(CHAINS)}, not {n}")
    bits, special = CHAINS[n]
    params = CKKSParams.from_bits(n, bits, special_bits=special)
    level, primes = params.max_level, len(params.primes)
    secret = SecretKeys.generate(params)
    keys = secret.evaluation_keys(list(range(1, HOISTED + 1)))
    slots = np.random.default_rng(0).uniform(-1, 1, params.slots)
    (query,) = secret.encrypt(slots[None], SCALE)

    def side(bare: NativeBackend | SealBackend) -> _Side:
        backend: Any = bare
        backend = backend.with_keys(backend.load_keys(keys))
        held = backend.import_ciphertext(query)
        plain = backend.encode(slots, level=level, scale=SCALE)
        return _Side(backend, held, backend.multiply(held, held), plain)

    mine, theirs = side(NativeBackend(params, path=path)), side(SealBackend(params))
    backend = mine.backend
    core: Any = native.core
    engine = core.Engine(n, key_moduli(params), backend.path)
    residues = np.random.default_rng(0).integers(0, params.primes[-2], (1, n), dtype=np.uint64)

    def transform(forward: bool) -> Callable[[], object]:
        return lambda: engine.transform_rows(residues, primes - 2, forward)

    def hoisted(rotations: int) -> Callable[[], object]:
        group = Group(tuple(Product(0, k, lambda: 1.0) for k in range(rotations + 1)), then=0)
        linear = LinearMap(
            level=level, scale=SCALE, targets=((group,),), folds=(), scalars=False, repeats=True
        )
        prepared = backend.prepare(linear)
        return lambda: backend.apply(prepared, [mine.query])

    forward, inverse = (_spread(transform(way), repeats) for way in (True, False))
    ntt = min(forward.min, inverse.min)
    passed = _spread(lambda: np.add(mine.query.handle.residues, 1), repeats)
    word = passed.min / (2 * primes * n)
    digits = (primes + primes**2) * ntt
    key_words = 2 * primes * (primes + 1) * n * word
    divided = 2 * (primes + 1) * ntt
    key_switch = digits + key_words + divided
    few, many = (_us(hoisted(count), repeats) for count in (1, HOISTED))
    both: list[tuple[str, Callable[[_Side], object], float | None]] = [
        ("rotate", lambda s: s.backend.rotate(s.query, 1), key_switch),
        ("relinearise", lambda s: s.backend.relinearize(s.squared), key_switch),
        ("rescale", lambda s: s.backend.rescale(s.query), 2 * primes * ntt),
        (
            "ciphertext × plaintext",
            lambda s: s.backend.multiply_plain(s.query, s.plain),
            3 * primes * n * word,
        ),
        ("square", lambda s: s.backend.multiply(s.query, s.query), 5 * primes * n * word),
        ("encode", lambda s: s.backend.encode(slots, level=level, scale=SCALE), None),
        ("expand a seeded query", lambda s: s.backend.import_ciphertext(query), None),
    ]
    medians: list[tuple[str, float, float | None, float | None]] = [
        (name, _us(partial(work, mine), repeats), _us(partial(work, theirs), repeats), floor)
        for name, work, floor in both
    ]
    medians.insert(1, ("one more hoisted rotation", (many - few) / (HOISTED - 1), None, key_words))
    medians[:0] = [
        ("forward NTT", forward.median, None, ntt),
        ("inverse NTT", inverse.median, None, ntt),
    ]
    return [
        Primitive(
            name=name,
            n=n,
            primes=primes,
            path=backend.path,
            ours_us=ours,
            seal_us=seal,
            floor_us=floor,
            ratio=None if seal is None else seal / ours,
            repeats=repeats,
            host=record.host(),
            commit=record.commit(),
        )
        for name, ours, seal, floor in medians
    ]


def lines(rows: Sequence[Primitive]) -> list[str]:
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


def _us(run: Callable[[], object], repeats: int) -> float:
    """The median of ``run`` in microseconds."""
    return _spread(run, repeats).median


def _spread(run: Callable[[], object], repeats: int) -> Timing:
    """Microseconds of ``run``, after one run that is not timed."""
    run()
    return Timing.of([1e3 * timed(run)[1] for _ in range(repeats)])
