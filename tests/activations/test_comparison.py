"""The comparison report: rows, notes, formats and the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from he_infer.activations.approx import METHODS, minimax, relu, softplus, taylor
from he_infer.activations.comparison import (
    Comparison,
    ComparisonRow,
    compare_methods,
    format_json,
    format_markdown,
    main,
    smoothed_taylor,
    train_relu_network,
)
from he_infer.activations.convert import PolynomializeConfig, TrainingData
from he_infer.errors import InputError


def small_task() -> tuple[nn.Module, TrainingData]:
    """A fixed random ReLU network, with its own answers as labels: its accuracy is 1."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    inputs = np.random.default_rng(1).normal(size=(400, 6)).astype(np.float32)
    with torch.no_grad():
        labels = model(torch.from_numpy(inputs)).argmax(dim=1).numpy()
    return model, TrainingData(inputs=inputs, labels=labels)


def test_one_row_per_method_and_degree() -> None:
    model, data = small_task()
    calls: list[tuple[str, int, int]] = []
    comparison = compare_methods(
        model,
        data.inputs,
        data,
        {"minimax": minimax, "taylor": taylor},
        (2, 8),
        config=PolynomializeConfig(epochs=3),
        seed=0,
        training=data,
        progress=lambda *call: calls.append(call),
    )
    assert [(row.method, row.degree) for row in comparison.rows] == [
        ("minimax", 2),
        ("minimax", 8),
        ("taylor", 2),
        ("taylor", 8),
    ]
    assert calls[-1] == ("compare methods", 4, 4)
    assert comparison.original_accuracy == 1.0
    low, high, *refused = comparison.rows
    assert low.sup_error is not None and high.sup_error is not None
    assert high.sup_error < low.sup_error
    assert low.accuracy_replaced is not None and high.accuracy_replaced is not None
    assert high.accuracy_replaced >= max(0.9, low.accuracy_replaced)
    assert low.accuracy_finetuned is not None and low.accuracy_finetuned > 0.8
    for row in refused:  # ReLU has no Taylor series at zero
        assert row.accuracy_replaced is None and "Taylor series" in row.note


def test_without_training_there_is_no_finetuned_figure() -> None:
    model, data = small_task()
    comparison = compare_methods(
        model, data.inputs, data, {"minimax": minimax}, (4,), config=PolynomializeConfig(), seed=0
    )
    assert comparison.rows[0].accuracy_finetuned is None
    assert comparison.n_training == 0


def test_divergence_becomes_a_note() -> None:
    model, data = small_task()
    config = PolynomializeConfig(learning_rate=1e7, coefficient_rate=1e7, range_weight=0.0)
    comparison = compare_methods(
        model, data.inputs, data, {"minimax": minimax}, (7,), config=config, seed=0, training=data
    )
    (row,) = comparison.rows
    assert row.accuracy_replaced is not None
    assert (row.accuracy_finetuned is None) == ("not finite" in row.note)


def test_labels_methods_and_degrees_are_required() -> None:
    model, data = small_task()
    unlabelled = TrainingData(inputs=data.inputs)
    config = PolynomializeConfig()
    with pytest.raises(InputError):
        compare_methods(model, data.inputs, unlabelled, METHODS, (2,), config=config, seed=0)
    with pytest.raises(InputError):
        compare_methods(model, data.inputs, data, {}, (2,), config=config, seed=0)
    with pytest.raises(InputError):
        compare_methods(model, data.inputs, data, METHODS, (), config=config, seed=0)


def test_smoothed_taylor_measures_its_error_against_relu() -> None:
    interval = (-2.0, 2.0)
    smooth = taylor(softplus, interval=interval, degree=4)
    got = smoothed_taylor(relu, interval=interval, degree=4)
    assert got.coefficients == smooth.coefficients
    # At zero softplus is log 2 and ReLU is 0; its series errs most there on this interval.
    assert got.sup_error == pytest.approx(np.log(2.0), rel=1e-6)


def test_formats() -> None:
    row = ComparisonRow(
        method="composite_minimax",
        degree=7,
        fitted_degree=6,
        sup_error=0.25,
        outside=0.0,
        accuracy_replaced=0.5,
        accuracy_finetuned=None,
        note="why",
    )
    comparison = Comparison(
        original_accuracy=0.75, n_test=100, n_calibration=10, n_training=0, seed=1, rows=(row,)
    )
    table = format_markdown(comparison)
    assert "| composite_minimax | 7 (uses 6) | 0.25 | 50.00 | – | 0.00 | why |" in table
    assert table.startswith("Original network: 75.00 % of 100 test records")
    assert json.loads(format_json(comparison))["rows"][0]["fitted_degree"] == 6


def test_training_is_repeatable() -> None:
    inputs = np.random.default_rng(0).random((64, 1, 28, 28), dtype=np.float32)
    data = TrainingData(inputs=inputs, labels=np.arange(64, dtype=np.int64) % 10)
    first, second = (train_relu_network(data, epochs=1, seed=5) for _ in range(2))
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.slow
def test_the_command_writes_both_reports(tmp_path: Path, data_folder: Path) -> None:
    written = tmp_path / "figures.json", tmp_path / "table.md"
    options = ["--json", str(written[0]), "--markdown", str(written[1]), "--degrees", "2"]
    sizes = ["--train", "3000", "--finetune", "1000", "--data", str(data_folder)]
    assert main([*options, *sizes]) == 0
    figures = json.loads(written[0].read_text(encoding="utf-8"))
    assert len(figures["rows"]) == len(METHODS)
    assert written[1].read_text(encoding="utf-8").count("\n") == len(METHODS) + 4


def test_the_command_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--data", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("error: ")
