"""Rows on evasion: the judge of the peers' examples is ours, and absent packages are said to be."""

from __future__ import annotations

import numpy as np
import pytest

from attacks.core.records import Records
from attacks.evasion.gradient.pgd import PGD
from attacks.evasion.norms import L2, Linf
from benchmarks.leakage.evasion import attacks, peers
from benchmarks.leakage.evasion.peers import GRADIENTS, Ground, Match
from benchmarks.leakage.reference import GROUPS

SMALL = Ground(name="digits-mlp", side=8, records=60, epsilon=0.1)


def _match(theirs: peers.Theirs, shown: str = "") -> Match:
    return Match(
        name="PGD",
        source="somebody",
        ground=SMALL,
        norm=Linf(),
        ours=PGD(steps=30),
        theirs=theirs,
        shown=shown,
    )


def _ours(records: Records, epsilon: float) -> peers.Array:
    del epsilon
    data = SMALL.data(Linf())
    result = PGD(steps=30).run(SMALL.oracle(), data, np.random.default_rng(0))
    moved: peers.Array = result.artifact.moved[result.artifact.right]
    assert len(moved) == len(records)
    return moved


def test_the_same_examples_agree_and_none_do_not() -> None:
    same = peers._compare(_match(_ours), 0).to_json()
    assert same["holds"] is True and same["ours"] == same["reference"]
    assert "their seconds over ours" in same["reason"]
    still = peers._compare(_match(lambda records, _: records.inputs), 0).to_json()
    assert still["holds"] is False and still["reference"] == 0.0
    shown = peers._compare(_match(_ours, shown="shown, not judged"), 0).to_json()
    assert shown["holds"] is None and "not judged" in shown["reason"]


def test_examples_beyond_epsilon_do_not_count() -> None:
    def twice(records: Records, epsilon: float) -> peers.Array:
        moved = _ours(records, epsilon)
        return np.asarray(records.inputs + 2 * (moved - records.inputs))

    row = peers._compare(_match(twice), 0).to_json()
    assert row["reference"] == 0.0 and row["ours"] > 0.5


def test_a_package_that_is_absent_is_said_to_be() -> None:
    def absent(records: object, epsilon: float) -> peers.Array:
        raise ImportError("no such package", name="somepackage")

    row = peers._compare(_match(absent), 0).to_json()
    assert row["holds"] is None and "somepackage is not installed" in row["reason"]


def test_a_ball_of_equal_volume_is_taken_in_l2() -> None:
    data = GRADIENTS.data(L2())
    assert data.norm.name == "L2" and data.epsilon == pytest.approx(L2().equivalent(0.1, 64))


def test_the_group_is_one_of_the_reference_rows() -> None:
    assert GROUPS["evasion"] is attacks.rows


@pytest.mark.slow
def test_gradient_attacks_agree_with_the_packages() -> None:
    pytest.importorskip("foolbox", reason="compares with Foolbox, pip install 'he-infer[peers]'")
    pytest.importorskip("art", reason="compares with ART, pip install 'he-infer[peers]'")
    matches = peers._matches(Linf(), 0)[:3]
    assert all(peers._compare(match, 0).holds for match in matches)


@pytest.mark.slow
def test_rows_of_the_twins_hold() -> None:
    rows = attacks.twin_rows()
    assert len(rows) == 3 and all(row.holds for row in rows)
