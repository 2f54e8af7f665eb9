"""What evaluation costs on this machine: measured, written to a file and read from it."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

from he_infer.errors import FileFormatError
from he_infer.runtime.backends.choose import backend_class
from he_infer.runtime.costs import CostModel


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
