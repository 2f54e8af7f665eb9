"""What this machine has, which evaluator it runs, and what evaluation costs on it."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
import shutil
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from he_infer import datasets
from he_infer.errors import DataError, FileFormatError
from he_infer.runtime.backends.choose import backend_class
from he_infer.runtime.costs import CostModel

TENSEAL_FLOOR: Final = (0, 3, 18)
CPU_FEATURES: Final = ("aes", "avx2", "avx512f", "avx512ifma", "avx512_vbmi", "neon", "asimd")
COMPILERS: Final = ("c++", "g++", "clang++", "cmake", "ninja")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the machine offers. ``evaluator``: the arithmetic paths of the backend that serves
    here, best first, if it has several. ``data``: where each data set was found, "" if not."""

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
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else _cores(),
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


def measure_costs() -> CostModel | None:
    """The constants of the backend that serves here; None where it does not hoist rotations."""
    if not backend_class().costs.hoisting:
        return None
    from he_infer.runtime.machine_costs import fit, measure

    return fit(measure(repeats=7))


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
    if type(values["hoisting"]) is not bool:
        raise FileFormatError(f"{path}: hoisting must be true or false")
    costs = [value for name, value in values.items() if name != "hoisting"]
    if not all(type(v) in (int, float) and 0 < v < math.inf for v in costs):
        raise FileFormatError(f"{path}: every cost must be a positive number")
    return CostModel(**values)


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
