"""Norms: projections are nearest points, directions are steepest, balls are filled evenly."""

from __future__ import annotations

import math

import pytest
import torch

from attacks.evasion.norms import L2, Linf, Norm

BOTH = pytest.mark.parametrize("norm", [Linf(), L2()], ids=["Linf", "L2"])


def _drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    stream = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=stream, dtype=torch.float64)


@BOTH
def test_a_projection_is_inside_and_nearer_than_any_other_point_of_the_ball(norm: Norm) -> None:
    change, epsilon = 2 * _drawn(20, 2, 3), 0.7
    found = norm.project(change, epsilon)
    assert (norm.size(found) <= epsilon * (1 + 1e-12)).all()
    inside = norm.size(change) <= epsilon
    assert torch.equal(found[inside], change[inside])
    stream = torch.Generator().manual_seed(1)
    for _ in range(50):
        other = norm.random(change, epsilon, stream)
        nearer = L2().size(change - other) < L2().size(change - found) - 1e-12
        assert not nearer.any()


@BOTH
def test_no_change_of_size_one_rises_more_than_the_steepest(norm: Norm) -> None:
    gradient = _drawn(1, 3, 4)
    best = norm.steepest(gradient)
    assert norm.size(best).item() == pytest.approx(1.0)
    others = _drawn(500, 3, 4, seed=2)
    others = others / norm.size(others).reshape(-1, 1, 1)
    assert (others * gradient).sum(dim=(1, 2)).max() <= (best * gradient).sum()
    assert torch.equal(norm.steepest(torch.zeros(2, 3)), torch.zeros(2, 3))


def test_the_steepest_direction_survives_tiny_gradients() -> None:
    gradient = 1e-200 * _drawn(4, 5)
    assert torch.allclose(L2().size(L2().steepest(gradient)), torch.ones(4, dtype=torch.float64))


@BOTH
def test_random_changes_fill_the_ball_by_volume(norm: Norm) -> None:
    stream = torch.Generator().manual_seed(3)
    like = torch.zeros(4000, 3, dtype=torch.float64)
    sizes = norm.size(norm.random(like, 2.0, stream))
    # Of a ball in three dimensions an eighth lies within half the radius.
    assert (sizes <= 2.0).all()
    assert (sizes <= 1.0).double().mean().item() == pytest.approx(1 / 8, abs=0.02)


@pytest.mark.parametrize("features", [1, 2, 3, 64, 784])
def test_equivalent_balls_have_equal_volume(features: int) -> None:
    radius = L2().equivalent(0.1, features)
    log_volume = (
        features / 2 * math.log(math.pi)
        + features * math.log(radius)
        - math.lgamma(features / 2 + 1)
    )
    assert log_volume == pytest.approx(features * math.log(0.2))
    assert Linf().equivalent(0.1, features) == 0.1
