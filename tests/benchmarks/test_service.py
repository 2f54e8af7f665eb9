"""The claims about the service, in the version of a few minutes; its timings are not judged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.service.run import CLAIMS
from benchmarks.tables import with_table

# On a machine that others use as well, these say more about the machine.
TIMED = {"overhead", "two-workers", "overload", "slow-clients", "ciphertexts"}


def test_the_documented_table_is_the_record() -> None:
    root = Path(__file__).resolve().parents[2]
    page = (root / "docs" / "service.md").read_text(encoding="utf-8")
    assert with_table(page, root / "docs" / "measurements" / "service.json", "claims") == page


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CLAIMS.keys() - TIMED))
def test_the_claim_holds(name: str, tmp_path: Path) -> None:
    path = tmp_path / "service.json"
    assert main(["service", "--quick", "--only", name, "--json", str(path)]) == 0
    rows = json.loads(path.read_text())
    assert rows and all(set(row) == {"name", "bar", "figure", "holds"} for row in rows)
    assert all(row["holds"] is not False for row in rows)
