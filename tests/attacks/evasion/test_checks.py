"""The sanity checks hold on honest models and flag gradients that were masked on purpose."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from torch import nn

from attacks.core.wrappers import LabelsOnly
from attacks.errors import DataSplitError
from attacks.evasion.checks import TELLING, TITLES, Check, SanityChecks
from tests.attacks.evasion.flat_models import Quantised, Scaled, digits, digits_oracle, oracle_of

NAMES = {
    "pgd_over_fgsm",
    "apgd_over_pgd",
    "more_steps",
    "more_epsilon",
    "unbounded_fools_all",
    "gradients_present",
    "gradients_over_queries",
}


def _checks(model: nn.Module, count: int = 80) -> dict[str, Check]:
    data = dataclasses.replace(digits(count), model=model)
    result = SanityChecks().run(oracle_of(model, (64,)), data, np.random.default_rng(0))
    failed = {note.split(":")[0] for note in result.notes}
    found = {check.name: check for check in result.artifact}
    assert failed == {name for name, check in found.items() if not check.holds}
    assert result.figure.value == pytest.approx(1 - len(failed) / len(found))
    return found


def test_what_a_masked_gradient_fails_are_checks() -> None:
    assert TITLES.keys() == NAMES
    assert TELLING == {"unbounded_fools_all", "gradients_present", "gradients_over_queries"}


def test_all_checks_hold_on_an_honest_model() -> None:
    found = _checks(digits().require_model())
    assert found.keys() == NAMES
    assert all(check.holds for check in found.values()), found
    assert found["unbounded_fools_all"].figure.value == 1.0


def test_a_gradient_of_zero_is_flagged() -> None:
    found = _checks(Quantised(digits().require_model(), 16))
    assert not found["gradients_present"].holds
    assert not found["unbounded_fools_all"].holds
    assert not found["gradients_over_queries"].holds


def test_saturated_logits_are_flagged() -> None:
    found = _checks(Scaled(digits().require_model(), 1e6))
    assert not found["gradients_present"].holds
    assert found["gradients_present"].figure.value > 0.5
    # Ratios of logits see through it, so the attacks themselves still find what is there.
    assert found["unbounded_fools_all"].holds


def test_labels_alone_leave_the_comparison_with_asking_out() -> None:
    result = SanityChecks().run(LabelsOnly(digits_oracle()), digits(20), np.random.default_rng(0))
    assert {check.name for check in result.artifact} == NAMES - {"gradients_over_queries"}
    with pytest.raises(DataSplitError, match="at least 4 steps"):
        SanityChecks(steps=3)
