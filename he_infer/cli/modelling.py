"""Commands that work on models: models, train, approximate, compile."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any, Final

from he_infer.cli.console import print_json, print_table, progress_bars, warn
from he_infer.cli.options import add_command, add_json
from he_infer.errors import InputError
from he_infer.plan.privacy import PERTURBATIONS, FunctionPrivacy

CHECKED: Final = 64
LEAST_AGREEMENT: Final = 0.99


def add_commands(commands: Any) -> None:
    """Add the four parsers to argparse's subparsers."""
    from he_infer import zoo
    from he_infer.activations import approx

    models = add_command(
        commands,
        "models",
        run_models,
        summary="list the trained models of the zoo with their measured accuracy",
        example="models",
    )
    add_json(models)

    train = add_command(
        commands,
        "train",
        run_train,
        summary="train a model of the zoo from scratch",
        example="train digits-mlp --seed 1 --out digits.safetensors",
    )
    train.add_argument("name", choices=zoo.NAMES, help="a model of the zoo")
    train.add_argument("--seed", type=int, default=1, help="of weights and batches (default 1)")
    train.add_argument("--data", type=Path, help="folder with the MNIST IDX files")
    train.add_argument("--out", type=Path, help="weights file (default: NAME.safetensors)")
    add_json(train)

    approximate = add_command(
        commands,
        "approximate",
        run_approximate,
        summary="compare polynomial approximations of an activation",
        example="approximate relu --low -4 --high 4 --degrees 2 4 6",
    )
    approximate.add_argument("function", help=", ".join(approx.FUNCTIONS))
    approximate.add_argument(
        "--low", type=float, default=-4.0, help="start of the interval (default -4)"
    )
    approximate.add_argument(
        "--high", type=float, default=4.0, help="end of the interval (default 4)"
    )
    approximate.add_argument(
        "--degrees", type=int, nargs="+", default=[2, 4, 6], help="to compare (default 2 4 6)"
    )
    add_json(approximate)

    compile_ = add_command(
        commands,
        "compile",
        run_compile,
        summary="compile a model into a plan, and say what it will cost",
        example="compile --model mine.py:build --sample inputs.npy --out mine.heplan",
    )
    compile_.add_argument(
        "--model", required=True, help="a zoo name, or path/to/file.py:factory (the file is run)"
    )
    compile_.add_argument("--weights", type=Path, help="safetensors to load into the model")
    compile_.add_argument("--sample", type=Path, help=".npy with typical inputs, for calibration")
    compile_.add_argument("--name", help="name of the served model (default: the model's)")
    size = compile_.add_mutually_exclusive_group()
    size.add_argument(
        "--batch", type=int, default=1, help="records per query, a power of two (default 1)"
    )
    size.add_argument("--records", type=int, help="choose the batch that answers these soonest")
    compile_.add_argument(
        "--method",
        choices=sorted(approx.METHODS),
        default="least_squares",
        help="for activations that are not polynomials (default least_squares)",
    )
    compile_.add_argument(
        "--degree", type=int, default=3, help="of those approximations (default 3)"
    )
    compile_.add_argument("--precision-bits", type=int, help="bits after the point in the outputs")
    neutral = FunctionPrivacy()
    for name, text in PERTURBATIONS.items():
        option = f"--{name.replace('_', '-')}"
        compile_.add_argument(option, type=float, default=getattr(neutral, name), help=text)
    compile_.add_argument("--costs", type=Path, help="costs measured by he-infer doctor")
    compile_.add_argument("--seed", type=int, default=0, help="of the simulated noise (default 0)")
    compile_.add_argument("--describe", action="store_true", help="print every step as well")
    compile_.add_argument("--out", type=Path, help="plan file (default: NAME.heplan)")
    add_json(compile_)


def run_models(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from he_infer import zoo

    cards = [zoo.card(name) for name in zoo.NAMES]
    if options.json:
        print_json([asdict(card) for card in cards])
        return 0
    rows = [
        [
            card.name,
            card.recipe.data,
            f"{card.accuracy:.2%}",
            f"{card.accuracy_interval[0]:.2%} … {card.accuracy_interval[1]:.2%}",
            f"{card.n_test:,}",
        ]
        for card in cards
    ]
    print_table(["model", "data", "accuracy", "95 % interval", "test records"], rows)
    return 0


def run_train(options: argparse.Namespace) -> int:
    from he_infer import zoo
    from he_infer.activations.forward import count_correct

    data = zoo.training_set(options.name, options.data)
    with progress_bars() as progress:
        result = zoo.train(options.name, seed=options.seed, data=data, progress=progress)
    test = zoo.test_set(options.name)
    correct = count_correct(result.model, zoo.inputs(options.name, test), test.labels)
    out = options.out or Path(f"{options.name}.safetensors")
    out.write_bytes(result.weights())
    facts = {
        "model": options.name,
        "seed": options.seed,
        "training_records": result.records,
        "correct": correct,
        "test_records": len(test),
        "accuracy": correct / len(test),
        "weights": str(out),
    }
    if options.json:
        print_json(facts)
    else:
        print(f"{correct} of {len(test)} test records correct ({correct / len(test):.2%})")
        print(f"weights: {out}")
    return 0


def run_approximate(options: argparse.Namespace) -> int:
    from he_infer.activations import approx
    from he_infer.errors import ApproximationError

    if options.function not in approx.FUNCTIONS:
        names = ", ".join(sorted(approx.FUNCTIONS))
        raise InputError(f"no function is called {options.function!r}: choose one of {names}")
    function = approx.FUNCTIONS[options.function]
    interval = (options.low, options.high)
    results: list[dict[str, Any]] = []
    for name, method in approx.METHODS.items():
        for degree in options.degrees:
            row: dict[str, Any] = {"method": name, "degree": degree, "sup_error": None, "note": ""}
            try:
                row["sup_error"] = method(function, interval=interval, degree=degree).sup_error
            except ApproximationError as error:
                row["note"] = str(error)
            results.append(row)
    if options.json:
        print_json({"function": options.function, "interval": interval, "results": results})
        return 0
    print(f"largest error of {options.function} on [{options.low:g}, {options.high:g}]\n")
    cells = {(r["method"], r["degree"]): r["sup_error"] for r in results}
    print_table(
        ["method", *[f"degree {degree}" for degree in options.degrees]],
        [
            [name, *[_error(cells[name, degree]) for degree in options.degrees]]
            for name in approx.METHODS
        ],
    )
    print("\n– : the method has no polynomial of that degree for this function")
    return 0


def _error(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def run_compile(options: argparse.Namespace) -> int:
    import numpy as np

    from he_infer import zoo
    from he_infer.activations import approx
    from he_infer.cli.doctor import read_costs
    from he_infer.cli.sources import load_model, load_sample
    from he_infer.compiler import pipeline as compiler
    from he_infer.compiler.batching import compile_for_records
    from he_infer.compiler.report import compile_report
    from he_infer.plan.file import save_plan
    from he_infer.runtime.costs import CostModel
    from he_infer.runtime.describe import describe

    model = load_model(options.model, options.weights)
    sample = load_sample(options.model, options.sample)
    if options.model in zoo.NAMES and options.sample is None:
        check = zoo.inputs(options.model, zoo.test_set(options.model))[:CHECKED]
    else:
        # Ranges that are checked on the records they came from would always look perfect.
        held_out = max(1, len(sample) // 4)
        sample, check = sample[:-held_out], sample[-held_out:][:CHECKED]
    name = options.name or options.model.rpartition(":")[2]
    cost = read_costs(options.costs) if options.costs else CostModel()
    precision = options.precision_bits
    if precision is None:
        precision = compiler.DEFAULT_PRECISION_BITS
    if options.records is None:
        compile_ = partial(compiler.compile, batch=options.batch)
    else:
        compile_ = partial(compile_for_records, records=options.records)
    plan = compile_(
        model,
        sample,
        name=name,
        precision_bits=precision,
        approximation=compiler.Approximation(
            method=approx.METHODS[options.method], degree=options.degree
        ),
        cost=cost,
        privacy=FunctionPrivacy.for_precision(
            precision, **{name: getattr(options, name) for name in PERTURBATIONS}
        ),
    )
    rng = np.random.default_rng(options.seed)
    report = compile_report(plan, check, rng=rng, records=CHECKED, cost=cost, model=model)
    if report.predicted_label_agreement < LEAST_AGREEMENT:
        way_out = (
            "lower --noise-std if that is too few"
            if plan.privacy.noise_std
            else f"raise --precision-bits above {precision}"
        )
        share = f"{report.predicted_label_agreement:.1%}"
        warn(f"only {share} of the labels survive the noise: {way_out}")
    out = options.out or Path(f"{name}.heplan")
    save_plan(plan, out)
    if options.json:
        print_json({**report.to_json(), "plan": str(out)})
        return 0
    if options.describe:
        print(describe(plan) + "\n")
    print(report.text())
    print(f"\nplan: {out}")
    return 0
