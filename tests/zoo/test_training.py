"""Recipes run end to end on little data, and give the same weights for the same seed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from he_infer import datasets, zoo
from he_infer.activations.forward import count_correct, predict
from he_infer.activations.layer import PolynomialActivation
from he_infer.errors import DataError, TrainingError
from he_infer.zoo import __main__ as command_line
from he_infer.zoo import training
from he_infer.zoo.architectures import quadratic
from he_infer.zoo.augment import augment
from he_infer.zoo.recipes import Augmentation, Recipe
from he_infer.zoo.training import TrainingResult

NO_MOTION = Augmentation(rotate_degrees=0, translate_pixels=0, scale=0, shear_degrees=0)


def short(name: str, *, epochs: int) -> Recipe:
    return replace(zoo.recipe(name), epochs=epochs, settle_epochs=0)


def train_digits(seed: int, *, epochs: int = 8) -> TrainingResult:
    return training.run(
        short("digits-mlp", epochs=epochs),
        seed=seed,
        data=datasets.digits()[0],
        activation=quadratic,
    )


def weights(result: TrainingResult) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = result.model.state_dict()
    return state


def test_a_seed_determines_the_weights_and_leaves_the_global_stream_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, again, other = train_digits(1), train_digits(1), train_digits(2)
    assert torch.equal(torch.rand(1), expected)
    for key, value in weights(first).items():
        assert torch.equal(value, weights(again)[key])
    assert not torch.equal(weights(first)["dense1.weight"], weights(other)["dense1.weight"])
    assert first.losses == again.losses
    assert len(first.losses) == 8
    assert first.losses[-1] < first.losses[0]


def test_a_short_run_learns_digits() -> None:
    test = datasets.digits()[1]
    result = train_digits(1, epochs=20)
    assert not result.model.training
    correct = count_correct(result.model, zoo.inputs("digits-mlp", test), test.labels)
    assert correct / len(test) > 0.85


def test_training_keeps_quadratics_curved() -> None:
    recipe = replace(short("digits-mlp", epochs=2), min_leading=0.2, max_shift=0.5)
    result = training.run(recipe, seed=1, data=datasets.digits()[0], activation=quadratic)
    for layer in result.model.modules():
        if isinstance(layer, PolynomialActivation):
            _, b, a = layer.coefficients.detach().unbind(dim=1)
            assert float(a.abs().min()) >= 0.2 * (1 - 1e-6)
            assert float((b / (2 * a)).abs().max()) <= 0.5 * (1 + 1e-6)


def test_range_penalty_narrows_the_inputs() -> None:
    data = datasets.digits()[0]
    widths = []
    for weight in (0.0, 100.0):
        recipe = replace(short("digits-mlp", epochs=8), range_limit=1.5, range_weight=weight)
        model = training.run(recipe, seed=1, data=data, activation=quadratic).model
        low, high = training.activation_ranges(model, zoo.inputs("digits-mlp", data))["act1"]
        widths.append(high - low)
    assert widths[1] < 0.8 * widths[0]


def test_the_relu_twin_trains_by_the_same_recipe() -> None:
    data = datasets.digits()[0].select(slice(256))
    seen: list[tuple[str, int, int]] = []
    result = zoo.train_relu_twin(
        "digits-mlp", seed=1, data=data, progress=lambda *report: seen.append(report)
    )
    kinds = {type(layer) for layer in result.model.modules()}
    assert torch.nn.ReLU in kinds
    assert PolynomialActivation not in kinds
    steps = result.recipe.epochs * (len(data) // result.recipe.batch)
    assert [done for _, done, _ in seen] == list(range(1, steps + 1))
    assert seen[-1] == ("train digits-mlp", steps, steps)


def test_convolutional_recipes_run_on_a_few_images() -> None:
    # Test images only feed the machinery here: nothing of this run is kept.
    few = datasets.mnist_test().select(slice(256))
    for name in ("tutorial-cnn", "mnist-lola", "mnist-deep"):
        result = training.run(short(name, epochs=1), seed=1, data=few, activation=quadratic)
        assert np.isfinite(result.losses[0])
        images = torch.from_numpy(zoo.inputs(name, few))
        assert predict(result.model, images).shape == (256, 10)


def test_data_that_do_not_fit_are_refused() -> None:
    digits = datasets.digits()[0]
    with pytest.raises(DataError, match="do not fit inputs"):
        zoo.train("mnist-lola", seed=1, data=digits)
    with pytest.raises(DataError, match="do not fill a batch"):
        zoo.train("digits-mlp", seed=1, data=digits.select(slice(10)))
    wrong = replace(digits, labels=digits.labels + 1)
    with pytest.raises(DataError, match="labels must lie"):
        zoo.train("digits-mlp", seed=1, data=wrong)


def test_divergence_is_reported() -> None:
    recipe = replace(short("digits-mlp", epochs=1), peak_rate=1e30)
    with pytest.raises(TrainingError, match="not finite"):
        training.run(recipe, seed=1, data=datasets.digits()[0], activation=quadratic)


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 0}, {"settle_epochs": 999}, {"batch": 1}, {"peak_rate": 0.0},
        {"range_limit": 0.0}, {"max_shift": 0.0}, {"min_leading": 0.0},
        {"label_smoothing": 1.0}, {"weight_decay": -1.0},
    ],
)  # fmt: skip
def test_recipes_are_validated(change: dict[str, float]) -> None:
    with pytest.raises(TrainingError):
        replace(zoo.recipe("digits-mlp"), **change)  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match="bounds"):
        replace(NO_MOTION, scale=1.0)


def test_augmentation_without_motion_is_the_identity() -> None:
    images = torch.from_numpy(datasets.mnist_test().select(slice(4)).inputs())
    moved = augment(images, NO_MOTION, torch.Generator().manual_seed(1))
    torch.testing.assert_close(moved, images, atol=1e-4, rtol=0)


def test_augmentation_moves_by_at_most_its_bound() -> None:
    image = torch.zeros(200, 1, 28, 28)
    image[:, :, 14, 14] = 1.0
    bounds = replace(NO_MOTION, translate_pixels=2.0)
    moved = augment(image, bounds, torch.Generator().manual_seed(1))
    places = torch.arange(28.0)
    mass = moved.sum(dim=(1, 2, 3))
    rows = (moved.sum(dim=(1, 3)) * places).sum(dim=1) / mass - 14
    columns = (moved.sum(dim=(1, 2)) * places).sum(dim=1) / mass - 14
    for shift in (rows, columns):
        # 200 uniform draws all miss the outer tenth with probability 0.9^200 < 1e-9.
        assert 1.8 < float(shift.abs().max()) <= 2.0 + 1e-3


@pytest.mark.slow
def test_command_line_stores_weights_and_card(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line.main(["train", "digits-mlp", "--out", str(tmp_path)]) == 0
    assert command_line.main(["test", "digits-mlp"]) == 0
    assert (tmp_path / "weights" / "digits-mlp.safetensors").stat().st_size > 8_000
    assert '"seed": 1' in (tmp_path / "cards" / "digits-mlp.json").read_text(encoding="utf-8")
    assert capsys.readouterr().out.count("/359") == 2


def test_command_line_names_missing_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line.main(["train", "mnist-lola", "--data", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "HE_INFER_DATA" in error
