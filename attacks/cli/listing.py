"""``he-infer attacks``: the catalogue and the published systems, as tables or as JSON."""

from __future__ import annotations

from attacks.catalogue import ATTACKS
from attacks.systems import SYSTEMS
from he_infer.cli.console import print_json, print_table


def print_catalogue(*, as_json: bool) -> int:
    """Print every attack of an audit, then every published system; returns the exit code."""
    if as_json:
        print_json(
            {
                "attacks": [entry.to_json(name) for name, entry in ATTACKS.items()],
                "systems": [system.to_json() for system in SYSTEMS],
            }
        )
        return 0
    print("Attacks of an audit (he-infer audit --attacks NAME, or a family, or all):\n")
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
    print(
        "\nciphertext, poisoning and remedies are suites of an audit, with a section of the report "
        "for each."
        "\n\nPublished systems, and what runs each (benchmarks from a checkout):"
    )
    for system in SYSTEMS:
        print(f"\n{system.title}\n    {system.reference}")
        print(f"    threat model  {system.threat_model}\n    command       {system.command}")
        print(f"    code          {system.code}")
    return 0
