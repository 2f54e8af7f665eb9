"""What has to be known to repeat an audit: code, versions, machine and command line."""

from __future__ import annotations

import hashlib
import platform
import shlex
from importlib import metadata
from pathlib import Path
from typing import Final

import attacks
import he_infer
from attacks.audit.config import AuditConfig
from he_infer.runtime.machine import inspect_machine

PACKAGES: Final = ("numpy", "scipy", "scikit-learn", "torch", "tenseal", "joblib", "safetensors")


def code_digest() -> str:
    """SHA-256 of the sources of both packages: figures of other code are not mixed with these."""
    found = hashlib.sha256()
    for package in (attacks, he_infer):
        folder = Path(package.__path__[0])
        for path in sorted(folder.rglob("*.py")):
            found.update(path.relative_to(folder).as_posix().encode())
            found.update(path.read_bytes())
    return found.hexdigest()


def versions() -> dict[str, str]:
    """Python and the packages that figures depend on."""
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in PACKAGES},
    }


def machine() -> str:
    """Processor, cores and memory in a line."""
    found = inspect_machine()
    return f"{found.cpu}, {found.cores} cores, {found.memory_gb} GB, {found.system}"


def command_of(config: AuditConfig) -> str:
    """The command line that runs the same audit."""
    words = ["he-infer", "audit"]
    for name, value in config.to_json().items():
        if value is None:
            continue
        text = ",".join(value) if isinstance(value, list) else str(value)
        words += [f"--{name.replace('_', '-')}", text]
    return shlex.join(words)
