"""Defences around the audit's own targets: oracles and shadows answer through them alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from attacks.audit.bench.state import StateStore, TrialName
from attacks.audit.bench.trials import Target, TrialRunner
from attacks.audit.config import AuditConfig
from attacks.audit.section import AuditSetting
from attacks.audit.sections.remedies import DefendedTarget, Option, measure
from attacks.core.entry import EXTRACTION, MEMBERSHIP, Allowance
from attacks.core.oracle import Answer, MeteredOracle, Oracle, OracleInfo
from attacks.core.records import Records
from attacks.defences.serving import ServingDefence, serving_defences
from attacks.membership.setting import MembershipData, ShadowAnswers
from attacks.oracles.twins import POLYNOMIAL

RECORDS, CLASSES, SHADOWS, POPULATION = 40, 3, 4, 10


class Lookup(MeteredOracle):
    """Logits are the record itself."""

    def __init__(self) -> None:
        super().__init__(
            OracleInfo(
                name="lookup",
                kind="plaintext",
                input_shape=(CLASSES,),
                classes=CLASSES,
                low=-9.0,
                high=9.0,
                answers=frozenset({"logits", "labels"}),
            )
        )

    def _answer(self, records: NDArray[np.float64]) -> Answer:
        return Answer.of_logits(records)


class Guarded:
    """A target with made-up shadows, whose oracle is a lookup."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        pool = Records(
            inputs=rng.normal(size=(RECORDS, CLASSES)), labels=rng.integers(0, CLASSES, RECORDS)
        )
        masks = np.stack([rng.permutation(RECORDS) < RECORDS // 2 for _ in range(SHADOWS)])
        self.membership = MembershipData(
            pool=pool,
            is_member=rng.permutation(RECORDS) < RECORDS // 2,
            shadows=ShadowAnswers(
                logits=rng.normal(size=(SHADOWS, RECORDS, CLASSES)), is_member=masks
            ),
            population=pool.select(slice(0, POPULATION)),
            population_logits=rng.normal(size=(SHADOWS, POPULATION, CLASSES)),
        )

    def oracle(self, twin: str) -> Oracle:
        assert twin == POLYNOMIAL
        return Lookup()

    def data(self, twin: str, family: str) -> Any:
        assert twin == POLYNOMIAL
        return self.membership if family == MEMBERSHIP else "stealing"

    def allowance(self, twin: str, budget: int) -> Allowance:
        return Allowance(budget=budget, info=self.oracle(twin).info, candidates=1, population=1)


def defended(defence: ServingDefence | None) -> tuple[DefendedTarget, MembershipData]:
    target: Target = Guarded()
    return DefendedTarget(target, defence, np.random.default_rng([1, 2])), target.data(
        POLYNOMIAL, MEMBERSHIP
    )


def test_without_a_defence_nothing_changes() -> None:
    target, data = defended(None)
    assert target.data("none", MEMBERSHIP) is data
    records = np.eye(CLASSES)
    np.testing.assert_array_equal(target.oracle("none").query(records).require_logits(), records)


def test_shadows_answer_through_the_defence_record_by_record() -> None:
    target, data = defended(serving_defences()["scaling"])
    found = target.data("scaling", MEMBERSHIP)
    for before, after in (
        (data.shadows.logits, found.shadows.logits),
        (data.population_logits, found.population_logits),
    ):
        factors = after / before
        assert after.shape == before.shape
        # One factor a record and model, drawn anew for each of them.
        np.testing.assert_allclose(factors, factors[..., :1] * np.ones(CLASSES), rtol=1e-9)
        assert factors.min() >= 0.5 and factors.max() <= 2.0
        assert len(np.unique(factors[..., 0].round(9))) == before[..., 0].size
    assert (found.shadows.is_member == data.shadows.is_member).all()


def test_other_families_get_what_they_got() -> None:
    target, _ = defended(serving_defences()["noise"])
    assert target.data("noise", EXTRACTION) == "stealing"


def test_the_defence_is_around_the_oracle() -> None:
    target, _ = defended(serving_defences()["shift"])
    records = np.tile(np.array([1.0, 2.0, 3.0]), (50, 1))
    answers = target.oracle("shift").query(records).require_logits()
    np.testing.assert_allclose(np.diff(answers, axis=1), 1.0)
    assert answers[:, 0].std() > 0.5


@pytest.mark.parametrize("skipped", [(), ("membership",)])
def test_an_option_that_cannot_be_tried_refuses_with_its_reason(
    tmp_path: Path, skipped: tuple[str, ...]
) -> None:
    store = StateStore(tmp_path, "k" * 64, description={})
    config = AuditConfig(model="m", data="d", out=tmp_path)
    absent = Option(
        name="dp-sgd", title="DP", cost="", budget=1, bench=None, reason="absent", skipped=skipped
    )
    nothing: Any = None  # what an option that is refused never asks for
    runner = TrialRunner(store=store, seed=config.seed)
    setting = AuditSetting(config=config, chosen={}, subject=nothing, bench=nothing, runner=runner)
    cells = measure([absent], setting, (3,))
    assert cells[TrialName(twin="dp-sgd", attack="accuracy", target=3)].reason == "absent"
    assert (TrialName(twin="dp-sgd", attack="lira-fixed", target=3) in cells) == (not skipped)
