"""What this machine has: its processor, its compilers, the evaluators that run, and data sets."""

from __future__ import annotations

import dataclasses
import os
import platform
import shutil
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from he_infer import datasets
from he_infer.errors import DataError
from he_infer.runtime.backends.choose import backend_class

TENSEAL_FLOOR: Final = (0, 3, 18)
CPU_FEATURES: Final = ("aes", "avx2", "avx512f", "avx512ifma", "avx512_vbmi", "neon", "asimd")
COMPILERS: Final = ("c++", "g++", "clang++", "cmake", "ninja")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the machine offers.

    ``evaluator``: the arithmetic paths of the backend that serves here, best first, if it has
    several. ``data``: where each data set was found, "" if it was not.
    """

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
    evaluator: tuple[str, ...]
    data: dict[str, str]

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
        cores=len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1,
        memory_gb=round(_memory_bytes() / 1e9, 1),
        compilers=tuple(name for name in COMPILERS if shutil.which(name)),
        evaluator=backend_class().paths(),
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
    """How many this process may use, which containers restrict; all of them elsewhere."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 0  # unknown on this system
