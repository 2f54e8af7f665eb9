"""``python -m benchmarks latency|throughput|accuracy|leakage … --json FILE``.

    python -m benchmarks primitives --n 8192 --path ifma,scalar
    python -m benchmarks latency --case tutorial-cnn --threads 1,2 --against tenseal,seal
    python -m benchmarks throughput --case mnist-lola --threads 2 --batch 4096
    python -m benchmarks accuracy --case mnist-lola --backend simulated --records 1000
    python -m benchmarks accuracy --case tutorial-cnn --http --batch 1024 --records 1000
    python -m benchmarks leakage --reference
    python -m benchmarks service --quick
    python -m benchmarks sizing --case tutorial-cnn
    python -m benchmarks defences --json FILE
    python -m benchmarks leakage --paired --data digits,mnist,fashion-mnist

Peers run on one thread: TenSEAL's context and torch are told so.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import record
from benchmarks.inference import accuracy, cases, latency, primitives, throughput
from benchmarks.record import Record
from benchmarks.service import sizing
from he_infer.compiler.pipeline import DEFAULT_PRECISION_BITS
from he_infer.errors import HEInferError
from he_infer.runtime.backends.choose import ENCRYPTED, IN_THE_CLEAR


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if options.measurement == "service":
        from benchmarks.service.run import run

        only = None if options.only is None else options.only.split(",")
        holds = run(options.json, quick=options.quick, only=only)
        if options.table is not None and options.json is not None:
            from benchmarks.tables import rewrite

            rewrite(options.table, options.json, "claims")
        return 0 if holds else 1
    if options.measurement == "sizing":
        return sizing.main(options)
    if options.measurement == "defences":
        from benchmarks.defences import run as defences

        return defences.main(options)
    if options.measurement == "leakage":
        from benchmarks.leakage import run as leakage

        return leakage.main(options)
    if options.measurement == "primitives":
        return _primitives(options)
    import torch

    most = options.threads
    torch.set_num_threads(max(most) if isinstance(most, tuple) else most)
    rng = np.random.default_rng(options.seed)
    try:
        records = _run(options, rng)
        if options.json is not None:
            record.write(options.json, records)
    except HEInferError as error:
        print(f"benchmarks: error: {error}", file=sys.stderr)
        return 2
    for line in summary(records):
        print(line)
    return 0


def _run(options: argparse.Namespace, rng: np.random.Generator) -> list[Record]:
    case = cases.load(options.case)
    if options.measurement == "latency":
        return latency.run(
            case,
            backend=options.backend,
            precision_bits=options.precision_bits,
            threads=options.threads,
            repeats=options.repeats,
            against=options.against,
            rng=rng,
        )
    if options.measurement == "throughput":
        return throughput.run(
            case,
            backend=options.backend,
            precision_bits=options.precision_bits,
            threads=options.threads,
            batch=options.batch,
            repeats=options.repeats,
            rng=rng,
        )
    return accuracy.run(
        case,
        backend=options.backend,
        precision_bits=options.precision_bits,
        threads=options.threads,
        batch=options.batch,
        records=options.records,
        through_http=options.http,
        rng=rng,
    )


def _primitives(options: argparse.Namespace) -> int:
    try:
        rows = [
            row
            for n in options.n
            for path in options.path
            for row in primitives.run(n, path=path, repeats=options.repeats)
        ]
        if options.json is not None:
            primitives.write(options.json, rows)
    except HEInferError as error:
        print(f"benchmarks: error: {error}", file=sys.stderr)
        return 2
    for line in primitives.lines(rows):
        print(line)
    return 0


def numbers_of(text: str) -> tuple[int, ...]:
    """A comma-separated list of positive numbers; ValueError for anything else."""
    counts = tuple(int(part) for part in text.split(","))
    if min(counts) < 1:
        raise ValueError("at least 1")
    return counts


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="measurement", required=True)
    sub = commands.add_parser("primitives")
    sub.add_argument("--n", type=numbers_of, default=(8192,), help="ring degrees, a list")
    sub.add_argument("--path", type=lambda s: tuple(s.split(",")), default=("best",))
    sub.add_argument("--repeats", type=int, default=101)
    sub.add_argument("--json", type=Path, help="write the rows here")
    for name in ("latency", "throughput", "accuracy"):
        sub = commands.add_parser(name)
        sub.add_argument("--case", choices=cases.NAMES, required=True)
        sub.add_argument(
            "--backend",
            choices=(*IN_THE_CLEAR, *ENCRYPTED),
            default=next(iter(ENCRYPTED)),
        )
        sub.add_argument(
            "--threads",
            type=numbers_of if name == "latency" else int,
            default=(1,) if name == "latency" else 1,
            help="threads of each evaluation; latency takes a list",
        )
        sub.add_argument("--precision-bits", type=int, default=DEFAULT_PRECISION_BITS)
        sub.add_argument("--seed", type=int, default=0, help="of simulated noise")
        sub.add_argument("--json", type=Path, help="write the records here")
        if name == "latency":
            sub.add_argument("--repeats", type=int, default=20)
            sub.add_argument(
                "--against",
                type=latency.parse_peers,
                default=(),
                help=f"comma-separated, of {', '.join(latency.PEERS)}",
            )
        if name == "throughput":
            sub.add_argument("--repeats", type=int, default=1)
            sub.add_argument("--batch", type=int, default=2048, help="images per query")
        if name == "accuracy":
            sub.add_argument("--batch", type=int, default=1, help="images per query")
            sub.add_argument("--records", type=int, default=1000)
            sub.add_argument("--http", action="store_true", help="through a server, on SEAL")
    add_leakage(commands)
    add_service(commands)
    add_defences(commands)
    sizing.add_parser(commands)
    return parser


def add_service(commands: Any) -> None:
    """The parser of the claims about the service."""
    sub = commands.add_parser("service")
    sub.add_argument("--json", type=Path)
    sub.add_argument("--quick", action="store_true", help="a minute or two, for every commit")
    sub.add_argument("--only", help="names of claims, separated by commas")
    sub.add_argument("--table", type=Path, help="page whose table is rewritten from the record")


def add_defences(commands: Any) -> None:
    """The parser of what defences of a served model cost thief and owner."""
    sub = commands.add_parser("defences")
    sub.add_argument("--only", help="names of defences, separated by commas; all by default")
    sub.add_argument("--attacks", help="names of attackers, separated by commas; all by default")
    sub.add_argument("--noise-std", type=float, default=0.5)
    sub.add_argument("--most", type=int, default=32000, help="records an attacker may ask")
    sub.add_argument(
        "--live", type=Path, help="repeat a record's cheapest thieves against the served plans"
    )
    sub.add_argument(
        "--more", type=float, default=1.0, help="so many times the records of --live's record"
    )
    sub.add_argument("--labels", type=int, nargs="*", default=[16000], help="labels-only budgets")
    sub.add_argument("--repeats", type=int, default=15, help="timed evaluations of each plan")
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--threads", type=int, default=1)
    sub.add_argument("--json", type=Path, help="write the result here")


def add_leakage(commands: Any) -> None:
    """Its options, without importing what takes seconds to import."""
    sub = commands.add_parser("leakage")
    what = sub.add_mutually_exclusive_group(required=True)
    what.add_argument("--reference", action="store_true", help="published figures, reproduced")
    what.add_argument("--paired", action="store_true", help="every attack on every twin")
    sub.add_argument(
        "--groups", help="reference: a list, all by default; others in the JSON file stay"
    )
    sub.add_argument("--table", type=Path, help="reference: page whose table is rewritten")
    sub.add_argument("--data", default="digits,mnist,fashion-mnist", help="paired: which data sets")
    sub.add_argument("--small", action="store_true", help="paired: a minute's worth, on digits")
    sub.add_argument(
        "--work", type=Path, default=Path("records/leakage"), help="paired: resumes what is there"
    )
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--threads", type=int, default=1)
    sub.add_argument("--json", type=Path, help="write the result here")


def summary(records: Sequence[Record]) -> list[str]:
    """One line per record for people; the JSON file has every field."""
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


if __name__ == "__main__":
    sys.exit(main())
