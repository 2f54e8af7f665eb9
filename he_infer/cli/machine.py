"""Commands about this machine: doctor and demo."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final, TextIO

from he_infer.cli.console import print_facts, print_json, progress_bars, warn
from he_infer.cli.options import add_command, add_json
from he_infer.runtime.backends import choose

# Packages above this one end the demonstration with what they add; see run_epilogues.
DEMO_GROUP: Final = "he_infer.demo"


def add_commands(commands: Any) -> None:
    """Add the two parsers to argparse's subparsers."""
    doctor = add_command(
        commands,
        "doctor",
        run_doctor,
        summary="say what this machine has and how fast it is",
        example="doctor --save-costs costs.json",
    )
    doctor.add_argument("--no-timing", action="store_true", help="do not time SEAL's primitives")
    doctor.add_argument("--save-costs", type=Path, help="write costs for he-infer compile --costs")
    add_json(doctor)

    demo = add_command(
        commands,
        "demo",
        run_demo,
        summary="start a server, send encrypted MNIST digits to it, show the answers",
        example="demo --images 3 --batch 0 --no-audit",
    )
    demo.add_argument("--model", default="tutorial-cnn", help="a model of the zoo for MNIST")
    demo.add_argument("--images", type=int, default=10, help="images sent one by one (default 10)")
    demo.add_argument(
        "--batch", type=int, default=1000, help="images in one query, 0 for none (default 1000)"
    )
    demo.add_argument(
        "--out", type=Path, default=Path("demo/demo.json"), help="file for the figures"
    )
    demo.add_argument("--no-audit", action="store_true", help="stop before the audit")
    add_json(demo)


def run_doctor(options: argparse.Namespace) -> int:
    from he_infer.cli import doctor
    from he_infer.runtime.machine import inspect_machine

    machine = inspect_machine()
    costs = None
    if options.save_costs is not None or not options.no_timing:
        costs = doctor.measure_costs()
    if options.save_costs is not None:
        doctor.write_costs(options.save_costs, costs or choose.backend_class().costs)
    if not machine.tenseal_is_safe:
        warn("this TenSEAL has known holes: pip install 'tenseal>=0.3.18'")
    if options.json:
        measured = None if costs is None else dataclasses.asdict(costs)
        print_json({"machine": machine.to_json(), "costs": measured})
        return 0
    facts = [
        ("python", f"{machine.python} on {machine.system}"),
        ("tenseal", f"{machine.tenseal} ({'fine' if machine.tenseal_is_safe else 'too old'})"),
        ("torch", machine.torch),
        ("processor", machine.cpu),
        ("features", ", ".join(machine.cpu_features) or "none that matters here"),
        ("cores", str(machine.cores)),
        ("memory", f"{machine.memory_gb} GB"),
        ("compilers", ", ".join(machine.compilers) or "none"),
        ("evaluator", choose.summary()),
        *[(f"data: {name}", place or "not found") for name, place in machine.data.items()],
    ]
    print_facts(facts)
    if costs is not None:
        print("\nwhat evaluation costs here, one thread, for the planner:")
        print_facts(
            [
                ("NTT, N = 8192", f"{costs.transform_us:.1f} µs"),
                ("a word of a key", f"{costs.key_word_ns:.2f} ns"),
                ("ciphertext × plaintext", f"{costs.word_ns:.2f} ns a word"),
                ("a word of a plaintext", f"{costs.plain_word_ns:.2f} ns"),
                ("a word times a number", f"{costs.number_word_ns:.2f} ns"),
                ("add, lift, permute", f"{costs.add_ns:.2f} ns a word"),
                ("in and out", f"{costs.ciphertext_ms:.2f} ms a ciphertext"),
            ]
        )
    if options.save_costs is not None:
        print(f"\ncosts: {options.save_costs}")
    return 0


def run_demo(options: argparse.Namespace) -> int:
    from he_infer.cli import demo
    from he_infer.cli.demo_report import render

    with progress_bars() as progress:
        report = demo.run(
            demo.DemoConfig(model=options.model, images=options.images, batch=options.batch),
            progress=progress,
        )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    demo.write(report, options.out)
    if options.json:
        print_json(report.to_json())
    else:
        print(render(report))
        print(f"\nfigures: {options.out}")
    if not options.no_audit:
        run_epilogues(options.out.parent, to=sys.stderr if options.json else sys.stdout)
    return 0


def run_epilogues(folder: Path, *, to: TextIO) -> None:
    """What installed packages add to the demonstration: each writes to ``folder``, returns text.

    One that cannot be loaded or fails costs a warning, not the demonstration.
    """
    for plugin in entry_points(group=DEMO_GROUP):
        try:
            with progress_bars() as progress:
                text = plugin.load()(folder, progress=progress)
        except Exception as error:  # another package's code: any exception is possible
            warn(f"{plugin.name} after the demonstration failed: {error}")
        else:
            print(f"\n{text}", file=to)
