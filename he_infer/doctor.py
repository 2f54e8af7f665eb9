"""What this machine has, and how fast SEAL's primitives are on it."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np

from he_infer import datasets
from he_infer.costs import CostModel
from he_infer.errors import DataError, FileFormatError
from he_infer.params import CKKSParams

TENSEAL_FLOOR: Final = (0, 3, 18)
CPU_FEATURES: Final = ("aes", "avx2", "avx512f", "avx512ifma", "neon", "asimd")
COMPILERS: Final = ("c++", "g++", "clang++", "cmake", "ninja")
# 128-bit at N = 8192; about what a network of depth six uses.
TIMING_BITS: Final = (30, 25, 25, 25, 25, 25, 25)
REPEATS: Final = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the machine offers. ``data``: where each data set was found, "" if it was not."""

    python: str
    system: str
    tenseal: str
    tenseal_is_safe: bool
    torch: str
    cpu: str
    cpu_features: tuple[str, ...]
    cores: int
    memory_gb: float
    compilers: tuple[str, ...]
    data: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrimitiveTimings:
    """Medians of SEAL's primitives in milliseconds, one thread, at the top level."""

    n: int
    primes: int
    rotate_ms: float
    relinearize_ms: float
    multiply_plain_ms: float
    add_ms: float
    rescale_ms: float

    def cost_model(self) -> CostModel:
        """The constants that reproduce these timings; see CostModel for the counts."""
        transforms = self.primes + self.primes**2 + 2 * (self.primes + 2)
        share = (self.n * math.log2(self.n)) / (8192 * 13)
        words = 2 * self.primes * self.n
        return CostModel(
            transform_us=self.rotate_ms * 1e3 / transforms / share,
            word_ns=self.multiply_plain_ms * 1e6 / words,
            add_ns=self.add_ms * 1e6 / words,
        )

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def inspect_machine() -> Machine:
    """Look around; measures nothing and changes nothing."""
    tenseal = metadata.version("tenseal")
    info = _processor()
    return Machine(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        tenseal=tenseal,
        tenseal_is_safe=_release(tenseal) >= TENSEAL_FLOOR,
        torch=metadata.version("torch"),
        cpu=info.get("model name", platform.processor() or platform.machine()),
        cpu_features=tuple(f for f in CPU_FEATURES if f in _flags(info)),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else _cores(),
        memory_gb=round(_memory_bytes() / 1e9, 1),
        compilers=tuple(name for name in COMPILERS if shutil.which(name)),
        data=find_data(),
    )


def find_data() -> dict[str, str]:
    """Where the full data sets are; the MNIST test images and digits come with the package."""
    found = {"mnist/test": "in the package", "digits": "with scikit-learn"}
    for name, load in (("mnist", datasets.mnist), ("fashion-mnist", datasets.fashion_mnist)):
        try:
            load()
            found[name] = str(datasets.default_folder())
        except DataError:
            found[name] = ""
    return found


def time_primitives(*, repeats: int = REPEATS) -> PrimitiveTimings:
    """Time rotate, relinearise, ciphertext × plaintext, add and rescale; takes about a second."""
    from he_infer.backends.seal import SealBackend
    from he_infer.keys import SecretKeys

    params = CKKSParams.from_bits(8192, TIMING_BITS, special_bits=30)
    secret = SecretKeys.generate(params)
    plain = SealBackend(params)
    backend = plain.with_keys(plain.load_keys(secret.evaluation_keys([1])))
    values = np.linspace(-1.0, 1.0, params.slots)
    scale = 2.0**25
    fresh = backend.import_ciphertext(secret.encrypt(values[None], scale)[0])
    weight = backend.encode(values, level=params.max_level, scale=scale)
    product = backend.multiply(fresh, fresh)
    scaled = backend.multiply_plain(fresh, weight)
    return PrimitiveTimings(
        n=params.n,
        primes=len(params.primes),
        rotate_ms=_median_ms(lambda: backend.rotate(fresh, 1), repeats),
        relinearize_ms=_median_ms(lambda: backend.relinearize(product), repeats),
        multiply_plain_ms=_median_ms(lambda: backend.multiply_plain(fresh, weight), repeats),
        add_ms=_median_ms(lambda: backend.add(fresh, fresh), repeats),
        rescale_ms=_median_ms(lambda: backend.rescale(scaled), repeats),
    )


def write_costs(path: Path, model: CostModel) -> None:
    """Store a cost model for ``he-infer compile --costs``."""
    path.write_text(json.dumps(dataclasses.asdict(model), indent=2) + "\n", encoding="utf-8")


def read_costs(path: Path) -> CostModel:
    """Read what :func:`write_costs` wrote; raises FileFormatError for anything else."""
    names = {field.name for field in dataclasses.fields(CostModel)}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FileFormatError(f"{path} is no file of measured costs: {error}") from error
    if not isinstance(values, dict) or set(values) != names:
        raise FileFormatError(f"{path} must hold exactly {', '.join(sorted(names))}")
    if not all(type(v) in (int, float) and 0 < v < math.inf for v in values.values()):
        raise FileFormatError(f"{path}: every cost must be a positive number")
    return CostModel(**values)


def _median_ms(run: Callable[[], object], repeats: int) -> float:
    run()  # the first call allocates
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def _release(version: str) -> tuple[int, ...]:
    digits = [part for part in version.split("+")[0].split(".") if part.isdigit()]
    return tuple(int(part) for part in digits)


def _processor() -> dict[str, str]:
    """The first processor's fields from Linux's /proc/cpuinfo; empty elsewhere."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n", 1)[0]
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def _flags(info: dict[str, str]) -> set[str]:
    return set(info.get("flags", info.get("Features", "")).split())


def _cores() -> int:
    return os.cpu_count() or 1


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 0  # unknown on this system
