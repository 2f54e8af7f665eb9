"""Replacing activations by polynomials, and what fine-tuning gets back."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from he_infer.activations.approx import taylor
from he_infer.activations.comparison import relu_network
from he_infer.activations.convert import PolynomializeConfig, TrainingData, polynomialize, predict
from he_infer.activations.layer import PolynomialActivation
from he_infer.datasets import digits
from he_infer.errors import ApproximationError, InputError, TrainingError

PLAIN = PolynomializeConfig(epochs=0, epochs_per_site=0)


def sample(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@cache
def digits_task() -> tuple[nn.Module, TrainingData, TrainingData]:
    """A ReLU network trained on the digits: (model, training, test)."""
    train, test = digits()
    training = TrainingData(inputs=train.flat_inputs(), labels=train.labels)
    testing = TrainingData(inputs=test.flat_inputs(), labels=test.labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10)
        )
    inputs, labels = torch.from_numpy(training.inputs), torch.from_numpy(train.labels)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(150):
        optimiser.zero_grad()
        torch.autograd.backward(functional.cross_entropy(model(inputs), labels))
        optimiser.step()
    return model.eval(), training, testing


def accuracy(model: nn.Module, data: TrainingData) -> float:
    guess = predict(model, torch.from_numpy(data.inputs)).argmax(dim=1).numpy()
    return float(np.mean(guess == data.labels))


class TestReplacement:
    def test_every_kind_of_activation_module(self) -> None:
        kinds = [nn.ReLU(), nn.Sigmoid(), nn.Tanh(), nn.GELU(), nn.SiLU(), nn.Softplus()]
        layers: list[nn.Module] = [m for kind in kinds for m in (nn.Linear(6, 6), kind)]
        model = nn.Sequential(*layers)
        x = sample(200, 6)
        network, report = polynomialize(model, x, config=replace(PLAIN, degree=8), rng=rng())
        assert [site.function for site in report.sites] == [type(k).__name__ for k in kinds]
        assert sum(isinstance(m, PolynomialActivation) for m in network.modules()) == 6
        assert report.left == ()
        with torch.no_grad():
            before, after = model(torch.from_numpy(x)), network(torch.from_numpy(x))
        # Errors pass through layers with gains of about one: their sum bounds the outcome.
        bound = 3 * sum(site.sup_error for site in report.sites)
        assert float((before - after).abs().max()) <= bound

    def test_the_error_on_the_sample_is_within_the_reported_bound(self) -> None:
        model = nn.Sequential(nn.Linear(5, 7), nn.ReLU())
        x = sample(300, 5)
        network, report = polynomialize(model, x, config=PLAIN, rng=rng())
        with torch.no_grad():
            gap = (model(torch.from_numpy(x)) - network(torch.from_numpy(x))).abs().max()
        (site,) = report.sites
        assert float(gap) <= site.sup_error + 1e-5
        assert site.outside == 0.0
        assert site.interval[0] <= site.seen[0] < site.seen[1] <= site.interval[1]

    def test_a_variant_with_parameters_is_approximated_as_itself(self) -> None:
        model = nn.Sequential(nn.Linear(5, 5), nn.LeakyReLU(0.3), nn.Softplus(beta=3))
        x = sample(200, 5)
        network, report = polynomialize(model, x, config=replace(PLAIN, degree=12), rng=rng())
        assert len(report.sites) == 2
        with torch.no_grad():
            gap = (model(torch.from_numpy(x)) - network(torch.from_numpy(x))).abs().max()
        assert float(gap) <= 2 * sum(site.sup_error for site in report.sites) + 1e-5

    def test_functional_calls_become_modules(self) -> None:
        class Functional(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

            def forward(self, x: Tensor) -> Tensor:
                x = functional.relu(self.a(x), inplace=True)
                x = torch.tanh(self.b(x)).relu()
                return functional.gelu(self.c(x))

        model = Functional()
        x = sample(100, 4)
        network, report = polynomialize(model, x, config=replace(PLAIN, degree=9), rng=rng())
        assert [s.function for s in report.sites] == ["ReLU", "Tanh", "ReLU", "GELU"]
        with torch.no_grad():
            gap = (model(torch.from_numpy(x)) - network(torch.from_numpy(x))).abs().max()
        assert float(gap) <= 3 * sum(site.sup_error for site in report.sites)

    def test_one_module_called_twice_gets_two_polynomials(self) -> None:
        class Shared(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.b, self.act = nn.Linear(4, 6), nn.Linear(6, 3), nn.ReLU()

            def forward(self, x: Tensor) -> Tensor:
                y: Tensor = self.act(10 * self.b(self.act(self.a(x))))
                return y

        _, report = polynomialize(Shared(), sample(100, 4), config=PLAIN, rng=rng())
        assert len(report.sites) == 2
        assert report.sites[0].interval != report.sites[1].interval

    def test_one_module_called_twice_out_of_sight_is_refused(self) -> None:
        class Hidden(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.act = nn.Linear(4, 4), nn.ReLU()

            def forward(self, x: Tensor) -> Tensor:
                y: Tensor = self.act(self.a(x))
                return torch.as_tensor(self.act(y) if bool(y.sum() > 0) else y)

        with pytest.raises(ApproximationError, match="called more than once"):
            polynomialize(Hidden(), sample(50, 4), config=PLAIN, rng=rng())

    def test_what_cannot_be_replaced_is_listed(self) -> None:
        class Branching(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.act = nn.Linear(4, 4), nn.ReLU()

            def forward(self, x: Tensor) -> Tensor:
                y = self.act(self.a(x))
                return torch.as_tensor(y if y.sum() > 0 else -y)

        _, report = polynomialize(Branching(), sample(50, 4), config=PLAIN, rng=rng())
        assert len(report.sites) == 1
        assert "cannot be traced" in report.left[0]
        pooled = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2))
        _, report = polynomialize(pooled, sample(9, 1, 8, 8), config=PLAIN, rng=rng())
        assert "MaxPool2d" in report.left[0]

    def test_the_original_is_left_alone(self) -> None:
        model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
        model.train()
        before = {k: v.clone() for k, v in model.state_dict().items()}
        x = sample(64, 4)
        config = PolynomializeConfig(epochs=1)
        polynomialize(model, x, config=config, training=TrainingData(inputs=x), rng=rng())
        assert model.training and isinstance(model[1], nn.ReLU)
        assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())

    def test_an_inserted_batch_norm_changes_nothing_before_training(self) -> None:
        model = relu_network().eval()
        x = np.abs(sample(64, 1, 28, 28))
        config = PLAIN
        bare, _ = polynomialize(model, x, config=config, rng=rng())
        normed, _ = polynomialize(
            model, x, config=config, training=TrainingData(inputs=x), rng=rng()
        )
        assert not any(isinstance(m, nn.BatchNorm2d) for m in bare.modules())
        assert sum(isinstance(m, nn.BatchNorm2d) for m in normed.modules()) == 1
        inputs = torch.from_numpy(x)
        torch.testing.assert_close(
            predict(normed, inputs), predict(bare, inputs), rtol=0, atol=1e-4
        )

    def test_no_second_batch_norm(self) -> None:
        model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU()).eval()
        x = sample(64, 4)
        network, _ = polynomialize(
            model, x, config=PLAIN, training=TrainingData(inputs=x), rng=rng()
        )
        assert sum(isinstance(m, nn.BatchNorm1d) for m in network.modules()) == 1


class TestFineTuning:
    def test_it_recovers_the_accuracy_of_the_original(self) -> None:
        model, training, test = digits_task()
        config = PolynomializeConfig(epochs=12, epochs_per_site=4, batch_size=64)
        bare, _ = polynomialize(model, training.inputs, config=config, rng=rng())
        tuned, report = polynomialize(
            model, training.inputs, config=config, training=training, rng=rng()
        )
        original, replaced, after = (accuracy(m, test) for m in (model, bare, tuned))
        assert original > 0.93
        assert after >= original - 0.02  # about one standard error on 360 test digits
        assert after > replaced
        assert len(report.losses) == 16 and report.losses[-1] < report.losses[0]
        assert all(site.outside < 0.01 for site in report.sites)

    def test_distillation_needs_no_labels(self) -> None:
        model, training, test = digits_task()
        config = PolynomializeConfig(epochs=12, epochs_per_site=4, batch_size=64)
        tuned, _ = polynomialize(
            model,
            training.inputs,
            config=config,
            training=TrainingData(inputs=training.inputs),
            rng=rng(),
        )
        assert accuracy(tuned, test) >= accuracy(model, test) - 0.03

    def test_the_same_seed_gives_the_same_network(self) -> None:
        model, training, _ = digits_task()
        config = PolynomializeConfig(epochs=1)
        first, second = (
            polynomialize(model, training.inputs, config=config, training=training, rng=rng())[0]
            for _ in range(2)
        )
        pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)

    def test_quadratics_stay_curved(self) -> None:
        model, training, _ = digits_task()
        config = PolynomializeConfig(epochs=3, coefficient_rate=0.3, min_leading=0.5)
        start, _ = polynomialize(model, training.inputs, config=PLAIN, rng=rng())
        first = next(m for m in start.modules() if isinstance(m, PolynomialActivation))
        tuned, _ = polynomialize(
            model, training.inputs, config=config, training=training, rng=rng()
        )
        layer = next(m for m in tuned.modules() if isinstance(m, PolynomialActivation))
        floor = 0.5 * float(first.coefficients.detach()[0, -1].abs())
        assert float(layer.coefficients.detach()[:, -1].abs().min()) >= 0.999 * floor


class TestRefusals:
    def test_nothing_to_replace(self) -> None:
        with pytest.raises(ApproximationError, match="no activation"):
            polynomialize(nn.Linear(3, 2), sample(5, 3), config=PLAIN, rng=rng())

    @pytest.mark.parametrize(
        "calibration",
        [np.zeros((0, 3), dtype=np.float32), np.full((4, 3), np.nan, dtype=np.float32)],
    )
    def test_bad_calibration(self, calibration: NDArray[np.float32]) -> None:
        model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
        with pytest.raises(InputError, match="calibration"):
            polynomialize(model, calibration, config=PLAIN, rng=rng())

    def test_a_method_that_has_no_polynomial(self) -> None:
        model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
        config = replace(PLAIN, method=taylor)
        with pytest.raises(ApproximationError, match="no Taylor series"):
            polynomialize(model, sample(99, 3), config=config, rng=rng())

    def test_divergence_is_reported(self) -> None:
        model, training, _ = digits_task()
        config = PolynomializeConfig(
            degree=6, epochs=5, learning_rate=1e6, coefficient_rate=1e6, range_weight=0.0
        )
        with pytest.raises((TrainingError, ApproximationError), match="not finite"):
            polynomialize(model, training.inputs, config=config, training=training, rng=rng())

    @pytest.mark.parametrize(
        "change",
        [
            {"margin": 0.9},
            {"batch_size": 0},
            {"temperature": math.nan},
            {"learning_rate": -1.0},
            {"epochs": -1},
            {"min_leading": 2.0},
        ],
    )
    def test_bad_settings(self, change: dict[str, float]) -> None:
        with pytest.raises(TrainingError, match=next(iter(change))):
            PolynomializeConfig(**change)  # type: ignore[arg-type]

    def test_labels_that_do_not_fit(self) -> None:
        with pytest.raises(TrainingError, match="labels"):
            TrainingData(inputs=sample(5, 3), labels=np.zeros(4, dtype=np.int64))
