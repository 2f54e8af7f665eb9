"""What a measurement writes down, how stages are timed, and on which machine and commit."""

from __future__ import annotations

import dataclasses
import json
import math
import platform
import resource
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from he_infer.errors import InputError
from he_infer.params import MAX_LOG_QP

T = TypeVar("T")
CHECKOUT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """The spread over ``repeats`` runs of one stage, in the unit of the given times."""

    median: float
    min: float
    max: float
    repeats: int

    @classmethod
    def of(cls, times: Sequence[float]) -> Timing:
        if not times:
            raise InputError("no run was timed: ask for at least one repeat")
        return cls(
            median=statistics.median(times),
            min=min(times),
            max=max(times),
            repeats=len(times),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one command measured.

    ``document``: what ``--json`` writes. ``lines``: the same for people. ``holds``: False if a
    bar was missed, which the exit status tells. ``table``: the kind of table (one of
    ``benchmarks.tables.TABLES``) that ``--table`` rewrites from the document.
    """

    document: Any
    lines: Sequence[str] = ()
    holds: bool = True
    table: str = ""


def write_json(path: Path, document: Any) -> None:
    """Write a record; raises InputError if the file cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(document, indent=2, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One engine on one case. Times in milliseconds, sizes in bytes of one query of ``batch``.

    ``security_bits``: by the 2024 guidelines that this package holds to; 0 is below 128.
    ``max_error``: largest absolute logit error against the float64 plaintext network, over
    ``records`` inputs. ``label_agreement`` is with that network, ``accuracy`` with the true
    labels (None where the weights are random). ``predicted_ms``: of the evaluation, by the cost
    model with its default constants; None for engines that have none. ``ratio_evaluate``: this
    engine's median evaluation time over that of the first record in the file.
    """

    engine: str
    case: str
    backend: str
    threads: int
    batch: int
    records: int
    n: int
    log_qp: float | None
    security_bits: int | None
    keygen_ms: float
    encrypt_ms: float
    evaluate_ms: Timing
    decrypt_ms: float
    key_bytes: int
    upload_bytes: int
    download_bytes: int
    max_error: float
    label_agreement: float
    accuracy: float | None
    images_per_s: float
    images_per_s_end_to_end: float
    peak_rss_mb: float
    host: str
    commit: str
    predicted_ms: float | None = None
    ratio_evaluate: float = 1.0
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def with_ratios(records: Sequence[Record]) -> list[Record]:
    """The same records, each with its evaluation time divided by the first one's."""
    if not records:
        return []
    base = records[0].evaluate_ms.median / records[0].batch
    return [
        dataclasses.replace(r, ratio_evaluate=r.evaluate_ms.median / r.batch / base)
        for r in records
    ]


def lines_of(records: Sequence[Record]) -> list[str]:
    """One line for each record; the JSON file has every field."""
    lines = []
    for r in records:
        accuracy_text = "" if r.accuracy is None else f", accuracy {r.accuracy:.2%}"
        predicted = ""
        if r.predicted_ms is not None:
            share = r.predicted_ms / r.evaluate_ms.median - 1
            predicted = f", predicted {r.predicted_ms:.1f} ms ({share:+.0%})"
        modulus = "modulus unstated,"
        if r.log_qp is not None:
            modulus = f"log2(QP)={r.log_qp:.0f} {r.security_bits or '<128'} bits,"
        threads = "" if r.threads == 1 else f", {r.threads} threads"
        lines.append(
            f"{r.engine} ({r.backend}{threads}) {r.case}: N={r.n} {modulus} "
            f"keygen {r.keygen_ms:.0f} ms, "
            f"encrypt {r.encrypt_ms:.1f} ms, evaluate {r.evaluate_ms.median:.1f} ms "
            f"(min {r.evaluate_ms.min:.1f}, max {r.evaluate_ms.max:.1f}, {r.evaluate_ms.repeats} "
            f"times), decrypt {r.decrypt_ms:.1f} ms, keys {r.key_bytes / 1e6:.1f} MB, up "
            f"{r.upload_bytes / 1e3:.0f} kB, down {r.download_bytes / 1e3:.0f} kB, max error "
            f"{r.max_error:.2g}, labels {r.label_agreement:.2%}{accuracy_text}, "
            f"{r.images_per_s:.1f} images/s ({r.images_per_s_end_to_end:.1f} end to end), "
            f"ratio {r.ratio_evaluate:.2f}{predicted}"
        )
    return lines


def chosen(given: str | None, known: Iterable[str], option: str) -> list[str]:
    """The names that an option lists, separated by commas; all of ``known`` without one.

    Raises InputError for a name that is not known.
    """
    names = list(known)
    picked = [name.strip() for name in (given or "").split(",") if name.strip()]
    unknown = [name for name in picked if name not in names]
    if unknown or (given and not picked):
        raise InputError(f"{option} takes {', '.join(names)}, got {', '.join(unknown) or given!r}")
    return picked or names


def timed(run: Callable[[], T]) -> tuple[T, float]:
    """The result of ``run`` and its wall-clock time in milliseconds."""
    start = time.perf_counter()
    result = run()
    return result, (time.perf_counter() - start) * 1e3


def security_bits(n: int, log_qp: float | None) -> int | None:
    """128, 192 or 256 by the 2024 guidelines; 0 if below 128 or for an unknown ring degree.

    None if the modulus is not known.
    """
    if log_qp is None:
        return None
    # Rounded to whole bits as CKKSParams does, since the primes are close to powers of two.
    total, table = math.ceil(log_qp - 1e-3), MAX_LOG_QP.get(n, {})
    return max((bits for bits, most in table.items() if total <= most), default=0)


def peak_rss_mb() -> float:
    """The largest resident set of this process so far, in MB (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def host() -> str:
    """The processor's model; never the machine's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def commit() -> str:
    """The checked-out commit, with ``+changes`` if files differ from it; empty outside git."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        return head + ("+changes" if _git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()
