"""The options that latency, throughput and accuracy share, and what follows from them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from benchmarks.inference import cases
from benchmarks.inference.cases import Case
from benchmarks.inference.compiled import compiled_engine
from benchmarks.inference.engine import Engine
from benchmarks.record import Outcome, Record, lines_of, with_ratios
from he_infer.compiler.pipeline import DEFAULT_PRECISION_BITS
from he_infer.compiler.pipeline import compile as compile_model
from he_infer.plan.plan import Plan
from he_infer.runtime.backends.choose import ENCRYPTED, IN_THE_CLEAR

BACKENDS: Final = (*IN_THE_CLEAR, *ENCRYPTED)


def numbers_of(text: str) -> tuple[int, ...]:
    """A comma-separated list of positive numbers; ValueError for anything else."""
    counts = tuple(int(part) for part in text.split(","))
    if min(counts) < 1:
        raise ValueError("at least 1")
    return counts


def add_case_arguments(parser: argparse.ArgumentParser) -> None:
    """The network, the backend, the precision and the seed."""
    parser.add_argument("--case", choices=cases.NAMES, required=True, help="network and its data")
    parser.add_argument(
        "--backend", choices=BACKENDS, default=next(iter(ENCRYPTED)), help="what evaluates"
    )
    parser.add_argument(
        "--precision-bits", type=int, default=DEFAULT_PRECISION_BITS, help="that the plan keeps"
    )
    parser.add_argument("--seed", type=int, default=0, help="of simulated noise")


def plan_of(case: Case, options: argparse.Namespace, *, batch: int = 1) -> Plan:
    """The case compiled for queries of ``batch`` records."""
    return compile_model(
        case.model,
        case.sample,
        name=case.name,
        batch=batch,
        precision_bits=options.precision_bits,
    )


def engine_of(plan: Plan, options: argparse.Namespace, *, threads: int = 1) -> Engine[Any, Any]:
    """The plan on the chosen backend."""
    rng = np.random.default_rng(options.seed)
    return compiled_engine(plan, options.backend, rng, threads=threads)


def outcome_of(records: Sequence[Record]) -> Outcome:
    """Records with their ratios to the first one, as JSON and as lines."""
    compared = with_ratios(records)
    return Outcome(document=[each.to_json() for each in compared], lines=lines_of(compared))
