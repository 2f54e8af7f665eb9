"""Plan files: a safetensors container with a JSON header, in canonical form.

The file is trusted input of the party that serves the model, but it is still read strictly:
version, types and shapes are checked, and nothing in it is executed.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Final

import numpy as np

from he_infer.errors import FileFormatError, HEInferError, VersionError
from he_infer.plan import canonical
from he_infer.plan.plan import Plan

_KEY: Final = "he_infer"
_SUM: Final = "sha256"


def save_plan(plan: Plan, path: str | Path) -> None:
    """Write a plan to a file; raises OSError.

    The file is replaced in one step: a reader sees the old file or the whole new one.
    """
    from safetensors.numpy import save

    header, tensors = canonical.encode(plan)
    summed = {**header, _SUM: canonical.checksum(header, tensors)}
    data = save(
        {name: np.ascontiguousarray(t) for name, t in tensors.items()},
        # One entry: safetensors does not keep the order of several.
        metadata={_KEY: json.dumps(summed, sort_keys=True)},
    )
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=target.name)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    os.replace(temporary, target)


def load_plan(path: str | Path) -> Plan:
    """Read a plan file; raises FileFormatError or VersionError."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors: canonical.Tensors = {name: file.get_tensor(name) for name in file.keys()}
        header = json.loads(metadata[_KEY])
        if not isinstance(header, dict) or header.get("format") != canonical.FORMAT:
            raise FileFormatError(f"{path} is not a plan file")
        if header.get("version") != canonical.VERSION:
            raise VersionError(
                f"{path} has plan format {header.get('version')!r}, this build reads "
                f"{canonical.VERSION}: compile the model again"
            )
        # A flipped bit in a weight would otherwise give wrong answers without a word.
        if header.pop(_SUM) != canonical.checksum(header, tensors):
            raise FileFormatError(f"{path} is damaged (checksum): compile the model again")
        plan: Plan = canonical.decode(Plan, header["plan"], "plan", tensors)
        return plan
    except FileNotFoundError as error:
        raise FileFormatError(f"no plan file at {path}: run he-infer compile first") from error
    except (FileFormatError, VersionError):
        raise
    except (
        SafetensorError,
        HEInferError,  # contents that contradict each other
        OSError,
        LookupError,
        ValueError,
        TypeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise FileFormatError(
            f"{path} is not a readable plan file ({type(error).__name__}): compile the model again"
        ) from error
