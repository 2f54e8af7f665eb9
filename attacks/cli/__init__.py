"""The commands that the attack suite adds to he-infer: ``audit`` and ``attacks``.

Nothing heavy is imported before a command runs: the parser is built for every he-infer command.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

# Flags by the name of the setting: type, metavariable, help. A TOML file takes the same names.
_SETTINGS: tuple[tuple[str, type, str, str], ...] = (
    ("model", str, "NAME|FILE.py:FACTORY", "a model of the zoo, or a function that makes one"),
    ("weights", Path, "FILE", "safetensors; extraction is tried on these weights too"),
    ("data", str, "NAME|FILE.npz|FOLDER", "digits, iris, breast-cancer, mnist-test, mnist, "
     "fashion-mnist; or arrays inputs and labels"),
    ("attacks", str, "LIST", "all, membership, extraction, or names from `he-infer attacks`"),
    ("budget", int, "RECORDS", "what each attack may ask of each target (default 4096)"),
    ("per_request", int, "RECORDS", "what a request is packed for (default: the budget)"),
    ("epsilon", float, "SIZE", "how far evasion moves a record's values (default: a tenth of the "
     "interval of inputs)"),
    ("evasion_records", int, "RECORDS", "that evasion moves (default 48)"),
    ("evasion_queries", int, "QUERIES", "that evasion may ask about each of them (default 200)"),
    ("targets", int, "K", "models that are attacked (default 4)"),
    ("shadows", int, "M", "shadow models at least, for each target (default 16)"),
    ("pool", int, "RECORDS", "members are drawn from so many (default: 60 %% of the data, at most "
     "4000)"),
    ("epochs", int, "N", "of training (default 60)"),
    ("batch", int, "RECORDS", "in a training step (default 32)"),
    ("rate", float, "RATE", "peak learning rate (default 0.005)"),
    ("weight_decay", float, "DECAY", "on matrices (default 0.0001)"),
    ("fine_tune_epochs", int, "N", "of the polynomial twin (default 30)"),
    ("seed", int, "SEED", "of everything that is drawn (default 0)"),
    ("jobs", int, "N", "processes that train (default 1)"),
    ("out", Path, "DIR", "for audit.json, report.html and the state to resume from"),
)  # fmt: skip


def add_commands(commands: Any) -> None:
    """Add ``audit`` and ``attacks`` to argparse's subparsers; he-infer calls this."""
    audit = commands.add_parser(
        "audit",
        help="attack a model in the clear and through its encrypted service, write a report",
        description="Trains the model and its polynomial twin from scratch on known members, runs "
        "every attack on both, on the simulated and on the real encrypted service, and writes "
        "audit.json and report.html. Run again with the same settings, it resumes.",
    )
    for name, kind, value, text in _SETTINGS:
        audit.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar=value, help=text)
    audit.add_argument("--config", type=Path, metavar="FILE.toml", help="the same settings; flags "
                       "given as well come first")  # fmt: skip
    audit.add_argument("--json", action="store_true", help="print audit.json, not the summary")
    audit.add_argument("--cluster", metavar="ADDRESS", help="train shadow models on a Ray cluster")
    audit.set_defaults(run=_run_audit)

    catalogue = commands.add_parser(
        "attacks", help="list the attacks: name, reference, what the oracle must answer"
    )
    catalogue.add_argument("--json", action="store_true", help="print JSON, not tables")
    catalogue.set_defaults(run=_run_attacks)


def settings_in(options: argparse.Namespace) -> dict[str, Any]:
    """The settings that flags were given for."""
    given = {name: getattr(options, name) for name, _, _, _ in _SETTINGS}
    return {name: value for name, value in given.items() if value is not None}


def _run_audit(options: argparse.Namespace) -> int:
    from attacks.cli.audit import run_audit_command

    return run_audit_command(
        settings_in(options), options.config, as_json=options.json, cluster=options.cluster
    )


def _run_attacks(options: argparse.Namespace) -> int:
    from attacks.cli.listing import print_catalogue

    return print_catalogue(as_json=options.json)
