"""The rows on defences: complete, honest where data or packages are absent, as they should be."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from attacks.training.variants import TRAINING_DEFENCES
from benchmarks.leakage.defences import detection, full_mnist, robust, training
from benchmarks.leakage.reference import GROUPS
from he_infer import datasets
from he_infer.errors import DataError


def test_the_group_is_there() -> None:
    assert GROUPS["robustness"] is robust.rows


def test_every_training_defence_has_a_source() -> None:
    names = {defence.name for defence in TRAINING_DEFENCES}
    assert training._SOURCES.keys() == names
    assert training._SIGNS.keys() <= names


def test_without_the_full_mnist_the_rows_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> Any:
        raise DataError("no MNIST here")

    monkeypatch.setattr(datasets, "mnist", absent)
    rows = [row.to_json() for row in full_mnist.rows()]
    assert len(rows) == 2
    assert all(row["holds"] is None and "no MNIST here" in row["reason"] for row in rows)


@pytest.mark.slow
def test_without_opacus_the_rows_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opacus.accountants.utils", None)
    monkeypatch.setattr(training, "MODELS", 6)
    private = [defence for defence in TRAINING_DEFENCES if defence.private is not None]
    monkeypatch.setattr(training, "TRAINING_DEFENCES", private)
    rows = [row.to_json() for row in training.rows()]
    assert len(rows) == len(private)
    assert all("he-infer[dp]" in row["reason"] for row in rows)


@pytest.mark.slow
def test_detection_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    case = detection.digits_case()
    small = replace(case, judged=case.judged.select(slice(0, 60)))
    from attacks.defences.detection_density import DensityDetector
    from attacks.evasion.norms import Linf

    rows = detection.judged(
        small,
        DensityDetector.fitted(small.fit),
        "somebody",
        Linf(),
        0.2,
        bypass=detection._KNOWN,
    )
    assert [row.to_json()["holds"] for row in rows] == [None, None, True]


@pytest.mark.slow
def test_adversarial_rows() -> None:
    found = robust.adversarial_rows("digits", *robust.digits())
    rows = [row.to_json() for row in found]
    assert [row["holds"] for row in rows] == [True] * 3
    polynomial, simulated = rows[1]["ours"], rows[2]["ours"]
    # The plan answers as the network does, but for records on a border.
    assert np.isclose(polynomial, simulated, atol=0.01)
