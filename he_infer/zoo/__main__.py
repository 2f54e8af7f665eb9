"""Train, check and store the models of the zoo.

python -m he_infer.zoo validate mnist-lola --seed 1     # holds out 5,000 training images
python -m he_infer.zoo train mnist-lola --seed 1        # weights and card into the package
python -m he_infer.zoo test mnist-lola                  # the stored weights, test set
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path
from typing import Final

import torch
from torch import nn

from he_infer import zoo
from he_infer.activations.forward import count_correct
from he_infer.datasets import Dataset, wilson_interval
from he_infer.errors import HEInferError, TrainingError
from he_infer.zoo.training import TrainingResult, activation_ranges

HELD_OUT: Final = 5_000
SELECTION: Final = (
    "Recipes were chosen by their accuracy on training records held out from training ({held_out} "
    "of them; for digits four folds), with seed 1 throughout. The chosen recipe then ran on all "
    "training records and the weights of its last step were kept. No recipe, seed or checkpoint "
    "was chosen by its accuracy on the test set."
)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code, 1 for an error with a way out."""
    parser = argparse.ArgumentParser(
        prog="python -m he_infer.zoo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for command, purpose in (
        ("validate", "train on all but held-out training records, score those"),
        ("train", "train on the whole training set, write weights and card"),
        ("test", "score the stored weights on the test set"),
    ):
        sub = commands.add_parser(command, help=purpose)
        sub.add_argument("name", choices=zoo.NAMES, help="a model of the zoo")
        if command != "test":
            sub.add_argument("--seed", type=int, default=1, help="of training (default 1)")
            sub.add_argument("--data", type=Path, help="folder with the IDX files")
        if command == "train":
            sub.add_argument(
                "--out", type=Path, default=Path(__file__).parent, help="folder to write into"
            )
    options = parser.parse_args(arguments)
    name: str = options.name
    torch.set_num_threads(1)  # the weights depend on the order of summation
    try:
        if options.command == "test":
            report("test", zoo.load(name), name, zoo.test_set(name))
            return 0
        data = zoo.training_set(name, options.data)
        if options.command == "validate":
            validate(name, options.seed, data)
        else:
            result = zoo.train(name, seed=options.seed, data=data, progress=draw)
            store(name, result, data, options.out)
    except HEInferError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def validate(name: str, seed: int, data: Dataset) -> None:
    """Score a run that never saw the last ``held_out_count`` training records."""
    kept = len(data) - held_out_count(data)
    result = zoo.train(name, seed=seed, data=data.select(slice(kept)), progress=draw)
    report("held out", result.model, name, data.select(slice(kept, None)))
    describe(result, name, data)


def store(name: str, result: TrainingResult, data: Dataset, folder: Path) -> None:
    """Write weights and card; raises TrainingError below the recipe's floor."""
    correct, n_test = report("test", result.model, name, zoo.test_set(name))
    describe(result, name, data)
    if correct / n_test < result.recipe.accuracy_floor:
        raise TrainingError(
            f"{name}: {correct} of {n_test} correct, below the floor of "
            f"{result.recipe.accuracy_floor:.1%}: nothing was written"
        )
    weights = result.weights()
    card = zoo.Card(
        name=name,
        recipe=result.recipe,
        seed=result.seed,
        n_train=result.records,
        n_test=n_test,
        correct=correct,
        accuracy=correct / n_test,
        accuracy_interval=wilson_interval(correct, n_test),
        selection=SELECTION.format(held_out=f"{held_out_count(data):,}"),
        activation_ranges=activation_ranges(result.model, zoo.inputs(name, data)),
        command=f"python -m he_infer.zoo train {name} --seed {result.seed}",
        weights_sha256=hashlib.sha256(weights).hexdigest(),
    )
    for part, suffix, content in (
        ("weights", "safetensors", weights),
        ("cards", "json", card.to_json().encode()),
    ):
        (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / part / f"{name}.{suffix}").write_bytes(content)


def held_out_count(data: Dataset) -> int:
    """5,000 records, or a fifth of a smaller set."""
    return min(HELD_OUT, len(data) // 5)


def report(what: str, model: nn.Module, name: str, data: Dataset) -> tuple[int, int]:
    """Print how many of ``data`` the model answers correctly; returns (correct, records)."""
    correct, count = count_correct(model, zoo.inputs(name, data), data.labels), len(data)
    low, high = wilson_interval(correct, count)
    print(f"{what}: {correct}/{count} = {correct / count:.2%} (95 %: {low:.2%} … {high:.2%})")
    return correct, count


def describe(result: TrainingResult, name: str, data: Dataset) -> None:
    """Print the first and the last loss, and the range of every activation's inputs."""
    print(f"loss: {result.losses[0]:.4f} → {result.losses[-1]:.4f}")
    for layer, (low, high) in activation_ranges(result.model, zoo.inputs(name, data)).items():
        print(f"{layer}: inputs {low:.2f} … {high:.2f}")


def draw(stage: str, done: int, total: int) -> None:
    """Progress as one line on stderr, every hundred steps."""
    if done == total or done % 100 == 0:
        print(f"\r{stage}: {done}/{total}", end="\n" if done == total else "", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
