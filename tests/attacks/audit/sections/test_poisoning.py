"""The audit's poisoned target: one network on all four twins, kept in the audit's state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attacks.audit.bench.data import load_records, split_records
from attacks.audit.bench.models import read_subject
from attacks.audit.bench.state import StateStore
from attacks.audit.bench.trained import TrainedBench
from attacks.audit.bench.trials import TrialRunner
from attacks.audit.config import AuditConfig
from attacks.audit.document.codec import from_json, to_json
from attacks.audit.document.records import AuditRecord, Finding, PoisoningRecord
from attacks.audit.section import AuditSetting
from attacks.audit.sections.poisoning import SECTION
from attacks.catalogue import choose
from attacks.errors import AuditError
from attacks.oracles.twins import TWINS
from attacks.report.page import render
from tests.attacks.audit.records import record
from tests.attacks.report.made_up import audit, estimate

FIGURES = ("poison_success", "accuracy", "clean_poison_success", "clean_accuracy")


def made_up(success: float, clean: float = 0.01) -> dict[str, Any]:
    return {
        "name": "backdoor",
        "title": "Backdoor trigger",
        "reference": "Somebody et al. 2020",
        "threat_model": "training-time adversary",
        "share": 0.04,
        "notes": ["records with <b>2</b> values set"],
        "figures": {
            twin: {
                "poison_success": estimate(success),
                "accuracy": estimate(0.95),
                "clean_poison_success": estimate(clean, 0.005),
                "clean_accuracy": estimate(0.96),
                "accuracy_change": estimate(-0.01),
                "poison_success_served": estimate(0.0),
            }
            for twin in TWINS
        },
    }


def test_poisoning_is_a_suite_and_no_row_of_the_catalogue() -> None:
    assert choose(("poisoning",)) == ()


def findings(*checks: dict[str, Any]) -> list[Finding]:
    read = tuple(from_json(PoisoningRecord, check) for check in checks)
    return list(SECTION.findings(record(poisoning=read)))


def test_findings_follow_from_the_figures() -> None:
    assert findings() == []
    (bad,) = findings(made_up(0.9))
    assert bad.severity == "medium" and "Encryption changed nothing" in bad.text
    (good,) = findings(made_up(0.01))
    assert good.severity == "ok"
    changed = made_up(0.9)
    changed["figures"]["encrypted"]["poison_success_served"] = estimate(-0.3)
    (found,) = findings(changed)
    assert "Encryption changed it for Backdoor trigger" in found.text


def test_the_report_shows_every_twin_and_escapes_what_it_is_given() -> None:
    document = audit()
    assert "Poisoned training sets" not in render(document)
    document["poisoning"] = [made_up(0.9)]
    page = render(document)
    assert "Poisoned training sets" in page and "without poison 1.0 %" in page
    assert "<b>2</b>" not in page and "training-time adversary" in page


@pytest.mark.parametrize("missing", FIGURES)
def test_a_document_without_a_figure_is_refused(missing: str) -> None:
    document = audit()
    document["poisoning"] = [made_up(0.9)]
    del document["poisoning"][0]["figures"]["encrypted"][missing]
    with pytest.raises(
        AuditError, match=rf"poisoning\[0\]\.figures\.encrypted\.{missing}: missing"
    ):
        from_json(AuditRecord, document)


@pytest.mark.slow
def test_poison_is_the_same_on_all_twins(tmp_path: Path) -> None:
    """With a real server; seconds of training and two requests for each poisoned network."""
    config = AuditConfig(
        model="digits-mlp",
        data="digits",
        out=tmp_path,
        budget=256,
        targets=1,
        shadows=2,
        epochs=15,
        fine_tune_epochs=10,
    )
    name, records = load_records(config.data)
    split = split_records(name, records, pool=0, rng=np.random.default_rng(0))
    subject = read_subject(config, split)
    bench = TrainedBench(subject, config)
    store = StateStore(tmp_path, "k" * 64, description={})
    runner = TrialRunner(store=store, seed=config.seed)
    setting = AuditSetting(config=config, chosen={}, subject=subject, bench=bench, runner=runner)
    checks = SECTION.run(setting, record()).poisoning
    assert [each.name for each in checks] == ["label-flipping", "backdoor"]
    for each in checks:
        assert set(each.figures) == set(TWINS)
        served = each.figures["encrypted"].poison_success_served
        assert served.low <= 0 <= served.high
    backdoor = checks[1].figures["encrypted"]
    assert backdoor.poison_success.low > 0.8 > 0.1 > backdoor.clean_poison_success.high
    assert store.finished() == 1
    again = SECTION.run(setting, record()).poisoning
    assert to_json(again) == to_json(checks)
