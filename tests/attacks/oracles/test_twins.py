"""One target in four forms: they agree where they must, and the server ends with them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from torch import nn

from attacks.audit.document.codec import to_json
from attacks.core.records import Records
from attacks.errors import AuditError
from attacks.oracles.recipes import standard_recipe
from attacks.oracles.twins import (
    ENCRYPTED,
    POLYNOMIAL,
    RELU,
    SERVED,
    SIMULATED,
    TWINS,
    Twins,
    relu_original,
)
from attacks.training.recipe import TrainedTwins, train_twins
from attacks.training.stack import membership_masks
from he_infer import datasets
from he_infer.activations.layer import PolynomialActivation
from he_infer.client.client import Client
from he_infer.errors import ServiceError
from he_infer.zoo.architectures import ARCHITECTURES, build, quadratic

RECORDS = 256


@pytest.fixture(scope="module")
def pool() -> Records:
    train, _ = datasets.digits()
    return Records(inputs=train.flat_inputs()[:800].astype(np.float64), labels=train.labels[:800])


@pytest.fixture(scope="module")
def trained(pool: Records) -> TrainedTwins:
    masks = membership_masks(2, len(pool), np.random.default_rng(0))
    return train_twins(standard_recipe("digits"), pool, masks, seeds=[0, 1])


def opened(trained: TrainedTwins, pool: Records) -> Twins:
    return Twins(
        relu=trained.relu.module(0),
        polynomial=trained.polynomial.module(0),
        sample=pool.inputs,
        records=RECORDS,
        low=0.0,
        high=1.0,
        seed=0,
    )


@pytest.fixture(scope="module")
def twins(trained: TrainedTwins, pool: Records) -> Iterator[Twins]:
    with opened(trained, pool) as context:
        yield context


def test_the_served_forms_answer_what_the_polynomial_does(twins: Twins, pool: Records) -> None:
    rng = np.random.default_rng(1)
    uniform = rng.uniform(size=(64, 64))
    corners = rng.integers(0, 2, size=(64, 64)).astype(np.float64)
    for records in (pool.inputs[:64], uniform, corners):
        exact = twins.oracle(POLYNOMIAL).query(records).require_logits()
        for twin in SERVED:
            served = twins.oracle(twin).query(records).require_logits()
            assert np.abs(served - exact).max() < 2.0**-8
            assert np.abs(served - exact).max() > 0


def test_plaintext_forms_are_the_trained_networks(
    twins: Twins, trained: TrainedTwins, pool: Records
) -> None:
    for twin, stack in ((RELU, trained.relu), (POLYNOMIAL, trained.polynomial)):
        answer = twins.oracle(twin).query(pool.inputs[:50]).require_logits()
        np.testing.assert_allclose(answer, stack.logits(pool.inputs[:50])[0], atol=1e-10)


def test_the_relu_form_is_another_network(twins: Twins, pool: Records) -> None:
    relu = twins.oracle(RELU).query(pool.inputs[:64])
    polynomial = twins.oracle(POLYNOMIAL).query(pool.inputs[:64])
    assert np.abs(relu.require_logits() - polynomial.require_logits()).max() > 0.01
    assert (relu.labels == polynomial.labels).mean() > 0.9


@pytest.mark.parametrize("twin", TWINS)
def test_every_oracle_starts_with_an_empty_ledger(twins: Twins, pool: Records, twin: str) -> None:
    for _ in range(2):
        oracle = twins.oracle(twin)
        assert oracle.info.name == twin and oracle.info.classes == 10
        assert oracle.ledger.spent.records == 0
        oracle.query(pool.inputs[:3])
        assert oracle.ledger.spent.records == 3


def test_a_request_carries_as_many_records_as_were_announced(twins: Twins, pool: Records) -> None:
    oracle = twins.oracle(ENCRYPTED)
    oracle.query(pool.inputs[:RECORDS])
    assert oracle.ledger.spent.requests == -(-RECORDS // twins.plan.batch) <= 4
    assert oracle.ledger.spent.bytes_sent > 0


def test_facts_describe_the_plan(twins: Twins) -> None:
    facts = twins.facts()
    assert facts.security_bits == 128
    assert facts.batch == twins.plan.batch
    assert to_json(facts)["coeff_bits"] == list(facts.coeff_bits)
    assert sum(facts.coeff_bits) <= 214 and facts.poly_degree in (4096, 8192)


def test_an_unknown_twin_is_refused(twins: Twins) -> None:
    with pytest.raises(AuditError, match="no twin is called 'plain'"):
        twins.oracle("plain")


def test_plaintext_forms_start_no_server(trained: TrainedTwins, pool: Records) -> None:
    with opened(trained, pool) as context:
        context.oracle(RELU).query(pool.inputs[:1])
        context.oracle(POLYNOMIAL).query(pool.inputs[:1])
        assert context._plan is None and context._client is None


def test_the_server_ends_with_the_context(
    trained: TrainedTwins, pool: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls: list[str] = []
    connect = Client.connect

    def noting(server: str, *, model: str) -> Client:
        urls.append(server)
        return connect(server, model=model)

    monkeypatch.setattr(Client, "connect", noting)
    with opened(trained, pool) as context:
        context.oracle(ENCRYPTED).query(pool.inputs[:1])
        context.oracle(ENCRYPTED).query(pool.inputs[:1])
    assert len(urls) == 1, "every encrypted oracle uses one connection"
    with pytest.raises(ServiceError):
        connect(urls[0], model="target")


def test_what_cannot_be_compiled_is_named(trained: TrainedTwins, pool: Records) -> None:
    broken = nn.Sequential(nn.Linear(64, 8), nn.Softmax(dim=1), nn.Linear(8, 10))
    context = Twins(
        relu=trained.relu.module(0),
        polynomial=broken,
        sample=pool.inputs,
        records=1,
        low=0.0,
        high=1.0,
        seed=0,
    )
    with context, pytest.raises(AuditError, match="cannot be compiled"):
        context.oracle(SIMULATED)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_the_relu_original_has_no_polynomials(name: str) -> None:
    model = build(name, quadratic)
    original = relu_original(model)
    quadratics = sum(isinstance(layer, PolynomialActivation) for layer in model.modules())
    assert quadratics > 0
    assert not any(isinstance(layer, PolynomialActivation) for layer in original.modules())
    assert sum(isinstance(layer, nn.ReLU) for layer in original.modules()) == quadratics


def test_a_shared_polynomial_is_replaced_everywhere() -> None:
    shared = PolynomialActivation.quadratic(4)
    model = nn.Sequential(nn.Linear(4, 4), shared, nn.Linear(4, 4), shared)
    original = relu_original(model)
    for path in ("1", "3"):
        assert isinstance(original.get_submodule(path), nn.ReLU)
