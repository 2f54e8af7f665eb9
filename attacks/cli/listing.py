"""``he-infer attacks``: the catalogue as a table or as JSON."""

from __future__ import annotations

from attacks.catalogue import ATTACKS
from he_infer.cli.console import print_json, print_table


def print_catalogue(*, as_json: bool) -> int:
    """Print every attack; returns the exit code."""
    if as_json:
        print_json([entry.to_json(name) for name, entry in ATTACKS.items()])
        return 0
    print_table(
        ["name", "family", "needs", "threat model", "what it is", "reference"],
        [
            [
                name,
                entry.family,
                entry.needs_text,
                entry.threat_model,
                entry.title,
                entry.reference,
            ]
            for name, entry in ATTACKS.items()
        ],
    )
    print("\nciphertext  attacks on what replies carry beside the answers; see docs/auditing.md")
    return 0
