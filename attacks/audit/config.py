"""What an audit is asked to do: one frozen configuration, from flags, a TOML file or both.

Flags come first where both give a setting.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_type_hints

from attacks.audit.document.codec import to_json
from attacks.errors import AuditError

STATE_FORMAT: Final = 1
# What changes no figure: where results go and how many processes make them.
_OUTSIDE_THE_KEY: Final = frozenset({"out", "jobs"})


def _within(low: float, high: float, *, default: Any) -> Any:
    """A field whose value must lie between ``low`` and ``high``."""
    return dataclasses.field(default=default, metadata={"range": (low, high)})


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditConfig:
    """The settings of an audit. Raises AuditError naming the field, what came and what is allowed.

    - ``model``: a name of the zoo or ``path/to/file.py:factory``; ``weights``: safetensors.
    - ``data``: a name that ``attacks.audit.bench.data`` knows, a ``.npz`` file or a folder.
    - ``attacks``: "all", "membership", "extraction", "evasion", "ciphertext", "poisoning",
      "remedies", or names of the catalogue.
    - ``budget``: records that each attack may ask of each target.
    - ``per_request``: records that the service is packed for; 0 takes the whole budget. Attacks
      that ask a few records at a time are quicker with fewer.
    - ``epsilon``: how far evasion moves a value, in input units; 0 takes a tenth of the interval
      that the inputs span. It moves ``evasion_records`` and may ask ``evasion_queries`` about each.
    - ``targets``: models that are attacked; ``shadows``: the least number of shadow models that
      each is judged by. All are trained on half of the same ``pool`` of records; 0 chooses its
      size by the data.
    - ``epochs``, ``batch``, ``rate``, ``weight_decay``: of the training of ReLU models;
      ``fine_tune_epochs``: of their polynomial twins.
    - ``jobs``: processes that train; ``out``: the folder of the results.
    """

    model: str
    data: str
    out: Path
    weights: Path | None = None
    attacks: tuple[str, ...] = ("all",)
    budget: int = _within(1, 10_000_000, default=4096)
    per_request: int = _within(0, 10_000_000, default=0)
    epsilon: float = _within(0.0, 1e9, default=0.0)
    evasion_records: int = _within(1, 100_000, default=48)
    evasion_queries: int = _within(3, 1_000_000, default=200)
    targets: int = _within(1, 1_000, default=4)
    shadows: int = _within(2, 10_000, default=16)
    pool: int = _within(0, 10_000_000, default=0)
    epochs: int = _within(1, 100_000, default=60)
    batch: int = _within(2, 100_000, default=32)
    rate: float = _within(1e-8, 10.0, default=5e-3)
    weight_decay: float = _within(0.0, 10.0, default=1e-4)
    fine_tune_epochs: int = _within(1, 100_000, default=30)
    seed: int = _within(0, 2**32 - 1, default=0)
    jobs: int = _within(1, 1_000, default=1)

    def __post_init__(self) -> None:
        if not self.model or not self.data:
            raise AuditError("an audit needs a model and data: give --model and --data")
        if not self.attacks:
            raise AuditError("attacks names nothing: give all, membership, extraction or a list")
        for field in dataclasses.fields(self):
            if "range" not in field.metadata:
                continue
            (low, high), value = field.metadata["range"], getattr(self, field.name)
            if not (math.isfinite(value) and low <= value <= high):
                raise AuditError(f"{field.name} must lie between {low:g} and {high:g}, got {value}")
        if self.pool and self.pool < 4 * self.batch:
            raise AuditError(
                f"a pool of {self.pool} trains each model on half of it: at least "
                f"{4 * self.batch} are needed for batches of {self.batch}"
            )

    @property
    def evasion_budget(self) -> int:
        """Records that an attack by evasion may ask of a target."""
        return self.evasion_records * self.evasion_queries

    @property
    def packed_for(self) -> int:
        """Records that a request is packed for."""
        return self.per_request or self.budget

    @property
    def models(self) -> int:
        """How many models are trained: an even number, and ``shadows`` for every target.

        Memberships are drawn in opposite pairs, and a target is not judged by its opposite.
        """
        wanted = self.shadows + max(self.targets, 2)
        return wanted + wanted % 2

    def to_json(self) -> dict[str, Any]:
        return dict(to_json(self))

    def key(self, contents: Mapping[str, str]) -> str:
        """The hash that saved trials are filed under; ``contents``: digests of files and data.

        It leaves the list of attacks out, so that an audit can be extended by another attack.
        """
        fields = {k: v for k, v in self.to_json().items() if k not in _OUTSIDE_THE_KEY}
        del fields["attacks"]
        text = json.dumps([STATE_FORMAT, fields, dict(contents)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


_KINDS: Final = get_type_hints(AuditConfig)
_PATHS: Final = frozenset({"out", "weights"})


def read_toml(path: Path) -> dict[str, Any]:
    """The settings of an audit file, relative paths resolved against its folder.

    Keys stand at the top level or in one table ``[audit]``. Raises AuditError for a file that
    cannot be read, an unknown key (with the nearest known name) or a value of the wrong type.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AuditError(f"cannot read {path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise AuditError(f"{path} is not TOML: {error}") from error
    table = content.pop("audit", {})
    if not isinstance(table, dict):
        raise AuditError(f"{path}: audit must be a table of settings")
    twice = sorted(table.keys() & content.keys())
    if twice:
        raise AuditError(f"{path}: {twice[0]} stands both in [audit] and outside of it")
    settings = {name: checked(name, value, str(path)) for name, value in (content | table).items()}
    for name in _PATHS & settings.keys():
        settings[name] = path.parent / settings[name]
    for name in ("model", "data"):
        settings |= {name: _beside(settings[name], path.parent)} if name in settings else {}
    return settings


def checked(name: str, value: Any, where: str) -> Any:
    """``value`` as the field ``name`` takes it; AuditError, naming ``where``, if it does not."""
    if name not in _KINDS:
        near = difflib.get_close_matches(name.replace("-", "_"), _KINDS, n=1, cutoff=0.5)
        hint = f": did you mean {near[0]!r}?" if near else f": known are {', '.join(_KINDS)}"
        raise AuditError(f"{where}: unknown setting {name!r}{hint}")
    if name == "attacks":
        names = value.split(",") if isinstance(value, str) else value
        if not isinstance(names, (list, tuple)) or not all(isinstance(n, str) for n in names):
            raise AuditError(f"{where}: attacks is a comma-separated string or a list of names")
        return tuple(n.strip() for n in names if n.strip())
    kind = _KINDS[name]
    if kind in (int, float):
        if isinstance(value, bool) or not isinstance(value, (int, kind)):
            number = "a whole number" if kind is int else "a number"
            raise AuditError(f"{where}: {name} must be {number}, got {value!r}")
        return kind(value)
    if not isinstance(value, (str, Path)):
        raise AuditError(f"{where}: {name} must be text, got {value!r}")
    return Path(value) if name in _PATHS else str(value)


def config_of(settings: Mapping[str, Any]) -> AuditConfig:
    """The configuration these settings give, by field name.

    Raises AuditError for what is missing or out of range, and for an unknown name.
    """
    known = {name: checked(name, value, "audit") for name, value in settings.items()}
    missing = [f"--{name}" for name in ("model", "data", "out") if name not in known]
    if missing:
        raise AuditError(f"an audit needs {' and '.join(missing)}, as flags or in a TOML file")
    return AuditConfig(**known)


def _beside(reference: str, folder: Path) -> str:
    """A model or data reference that is a file beside the TOML file, else as it is."""
    name, colon, factory = reference.rpartition(":")
    path = folder / (name if colon else reference)
    if not (path.is_file() if colon else path.exists()):
        return reference
    return f"{path}{colon}{factory}" if colon else str(path)
