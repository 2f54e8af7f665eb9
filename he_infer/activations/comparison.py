"""Compares approximation methods on one network: accuracy by method and degree.

    python -m he_infer.activations.comparison --json FILE --markdown FILE

trains a small ReLU network on MNIST, replaces its activations by every method at every degree,
and writes both reports.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from he_infer.activations.approx import (
    METHODS,
    Function,
    Interval,
    Method,
    Polynomial,
    relu,
    softplus,
    taylor,
)
from he_infer.activations.approx.polynomial import fitted
from he_infer.activations.convert import (
    PolynomializeConfig,
    PolynomializeReport,
    TrainingData,
    polynomialize,
)
from he_infer.activations.forward import count_correct
from he_infer.datasets import mnist, wilson_interval
from he_infer.errors import ApproximationError, HEInferError, InputError, TrainingError
from he_infer.progress import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonRow:
    """One method at one degree; accuracies are fractions of the test records.

    ``sup_error``: the largest error of the fitted polynomials, over the network's activations.
    ``outside``: the largest fraction of calibration inputs off an interval, after fine-tuning
    where there was any. ``degree`` was asked for. ``fitted_degree`` came back, because composite
    polynomials exist for some degrees only. A figure that is missing is None, and ``note`` says
    why.
    """

    method: str
    degree: int
    fitted_degree: int | None = None
    sup_error: float | None = None
    outside: float | None = None
    accuracy_replaced: float | None = None
    accuracy_finetuned: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All rows, and the accuracy of the network as it was given."""

    original_accuracy: float
    n_test: int
    n_calibration: int
    n_training: int
    seed: int
    rows: tuple[ComparisonRow, ...]


def compare_methods(
    model: nn.Module,
    calibration: NDArray[np.float32],
    test: TrainingData,
    methods: Mapping[str, Method],
    degrees: Sequence[int],
    *,
    config: PolynomializeConfig,
    seed: int,
    training: TrainingData | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Polynomialize ``model`` by every method at every degree and measure the accuracy.

    ``config`` gives everything but method and degree. Without ``training`` there is no
    fine-tuning column. Every row starts from the same seed. A method that cannot build its
    polynomial, or whose fine-tuning diverges, becomes a row with a note.
    Raises InputError without test labels, methods or degrees.
    """
    if test.labels is None or not methods or not degrees:
        raise InputError("expected labelled test records, at least one method and one degree")
    rows = []
    total = len(methods) * len(degrees)
    for name, method in methods.items():
        for degree in degrees:
            chosen = replace(config, method=method, degree=degree)
            rows.append(_row(name, model, calibration, test, chosen, seed, training))
            if progress is not None:
                progress("compare methods", len(rows), total)
    return Comparison(
        original_accuracy=_accuracy(model, test),
        n_test=len(test.inputs),
        n_calibration=len(calibration),
        n_training=0 if training is None else len(training.inputs),
        seed=seed,
        rows=tuple(rows),
    )


def smoothed_taylor(function: Function, /, *, interval: Interval, degree: int) -> Polynomial:
    """Taylor's method with softplus in place of ReLU, which has no series at its kink.

    The error is still measured against ``function`` itself.
    """
    smooth = softplus if function is relu else function
    polynomial = taylor(smooth, interval=interval, degree=degree)
    return fitted(function, np.asarray(polynomial.coefficients), interval)


def format_json(comparison: Comparison) -> str:
    """The whole comparison as JSON, every field under its own name."""
    return json.dumps(asdict(comparison), indent=2, allow_nan=False) + "\n"


def format_markdown(comparison: Comparison) -> str:
    """A Markdown table, one line per method and degree, accuracies in percent."""
    correct = round(comparison.original_accuracy * comparison.n_test)
    low, high = wilson_interval(correct, comparison.n_test)
    lines = [
        f"Original network: {_percent(comparison.original_accuracy)} % of "
        f"{comparison.n_test} test records (95 % interval {_percent(low)}–{_percent(high)}).",
        "",
        "| method | degree | largest error | replaced, % | fine-tuned, % | outside, % | note |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in comparison.rows:
        degree = str(row.degree)
        if row.fitted_degree not in (None, row.degree):
            degree += f" (uses {row.fitted_degree})"
        error = "–" if row.sup_error is None else f"{row.sup_error:.3g}"
        lines.append(
            f"| {row.method} | {degree} | {error} | {_percent(row.accuracy_replaced)} "
            f"| {_percent(row.accuracy_finetuned)} | {_percent(row.outside)} | {row.note} |"
        )
    return "\n".join(lines) + "\n"


def _percent(fraction: float | None) -> str:
    return "–" if fraction is None else f"{100 * fraction:.2f}"


def _row(
    name: str,
    model: nn.Module,
    calibration: NDArray[np.float32],
    test: TrainingData,
    config: PolynomializeConfig,
    seed: int,
    training: TrainingData | None,
) -> ComparisonRow:
    row = ComparisonRow(method=name, degree=config.degree)

    def convert(data: TrainingData | None) -> tuple[nn.Module, PolynomializeReport]:
        rng = np.random.default_rng(seed)
        return polynomialize(model, calibration, config=config, rng=rng, training=data)

    try:
        network, report = convert(None)
        row = replace(
            row,
            fitted_degree=max(site.degree for site in report.sites),
            sup_error=max(site.sup_error for site in report.sites),
            outside=max(site.outside for site in report.sites),
            accuracy_replaced=_accuracy(network, test),
        )
        if training is None:
            return row
        network, report = convert(training)
    except (ApproximationError, TrainingError) as error:
        return replace(row, note=" ".join(str(error).split()).replace("|", "/"))
    return replace(
        row,
        outside=max(site.outside for site in report.sites),
        accuracy_finetuned=_accuracy(network, test),
    )


def _accuracy(model: nn.Module, test: TrainingData) -> float:
    assert test.labels is not None
    was_training = model.training
    correct = count_correct(model, test.inputs, test.labels)
    model.train(was_training)
    return correct / len(test.inputs)


def relu_network() -> nn.Sequential:
    """The tutorial network with ReLU and without batch norm: conv 7x7/3 · 256→64 · 64→10."""
    return nn.Sequential(
        nn.Conv2d(1, 4, kernel_size=7, stride=3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def train_relu_network(data: TrainingData, *, epochs: int, seed: int) -> nn.Sequential:
    """Train relu_network from scratch by AdamW; the same seed gives the same weights."""
    if data.labels is None:
        raise InputError("training from scratch needs labels")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # layers draw their first weights from the global stream
        model = relu_network()
    rng = np.random.default_rng(seed)
    inputs, labels = torch.from_numpy(data.inputs), torch.from_numpy(data.labels)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    steps = max(1, epochs * math.ceil(len(inputs) / 128))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(epochs):
        order = torch.from_numpy(rng.permutation(len(inputs)))
        for chosen in torch.split(order, 128):
            loss = functional.cross_entropy(model(inputs[chosen]), labels[chosen])
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
    return model.eval()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the MNIST comparison; needs the full data set (HE_INFER_DATA or --data)."""
    parser = argparse.ArgumentParser(
        prog="python -m he_infer.activations.comparison",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--markdown", type=Path, help="write the table here, instead of printing")
    parser.add_argument("--data", type=Path, help="folder with the MNIST IDX files")
    parser.add_argument("--degrees", type=int, nargs="+", default=[2, 4, 6], help="to compare")
    parser.add_argument("--train", type=int, default=24_000, help="training records")
    parser.add_argument("--finetune", type=int, default=12_000, help="fine-tuning records")
    parser.add_argument("--seed", type=int, default=0, help="of training")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        train, test = mnist(options.data)
        training = TrainingData(
            inputs=train.inputs()[: options.train], labels=train.labels[: options.train]
        )
        model = train_relu_network(training, epochs=6, seed=options.seed)
        comparison = compare_methods(
            model,
            training.inputs[:1000],
            TrainingData(inputs=test.inputs(), labels=test.labels),
            {**METHODS, "taylor": smoothed_taylor},
            options.degrees,
            config=PolynomializeConfig(epochs_per_site=1, epochs=3),
            seed=options.seed,
            training=TrainingData(
                inputs=training.inputs[: options.finetune],
                labels=train.labels[: options.finetune],
            ),
        )
    except HEInferError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.json is not None:
        options.json.write_text(format_json(comparison), encoding="utf-8")
    if options.markdown is not None:
        options.markdown.write_text(format_markdown(comparison), encoding="utf-8")
    else:
        print(format_markdown(comparison), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
