"""A trained model through compile, HTTP, SEAL and back, against its plaintext self."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from he_infer import zoo
from he_infer.client.client import Client
from he_infer.client.transport import HttpTransport
from he_infer.compiler.pipeline import compile
from he_infer.errors import (
    BackendError,
    InputError,
    MismatchError,
    OutOfRangeError,
    ParameterError,
    RefusedError,
    ServiceError,
)
from he_infer.keys.secret import SecretKeys
from he_infer.plan.plan import Plan
from he_infer.server import BackgroundServer, Settings
from he_infer.server.state import key_index
from he_infer.server.workers.plan_host import PlanHost

RECORDS = 5


@pytest.fixture(scope="module")
def plan() -> Plan:
    return compile(zoo.load("digits-mlp"), zoo.sample("digits-mlp", 256), name="digits")


@pytest.fixture(scope="module")
def server(plan: Plan) -> Iterator[BackgroundServer]:
    with BackgroundServer.of_plans([plan]) as running:
        yield running


@pytest.fixture(scope="module")
def keys(plan: Plan) -> SecretKeys:
    return SecretKeys.generate(plan.params)


@pytest.fixture(scope="module")
def records() -> np.ndarray:
    return np.asarray(zoo.test_set("digits-mlp").inputs())[:RECORDS].reshape(RECORDS, -1)


@pytest.fixture
def client(server: BackgroundServer, keys: SecretKeys) -> Iterator[Client]:
    with Client.connect(server.url, model="digits", keys=keys) as connected:
        yield connected


def plaintext_logits(records: np.ndarray) -> np.ndarray:
    import torch

    with torch.no_grad():
        return np.asarray(zoo.load("digits-mlp")(torch.from_numpy(records)).numpy())


def test_labels_equal_the_plaintext_models(client: Client, records: np.ndarray) -> None:
    seen: list[tuple[str, int, int]] = []
    client._progress = lambda stage, done, total: seen.append((stage, done, total))
    prediction = client.predict(records)
    expected = plaintext_logits(records)
    assert prediction.logits.shape == expected.shape
    assert np.abs(prediction.logits - expected).max() < 1e-2
    assert (prediction.labels == expected.argmax(axis=1)).all()
    assert prediction.queries == -(-RECORDS // client.spec.batch)
    assert prediction.timings.evaluate_ms > 0
    assert prediction.timings.exchange_ms > prediction.timings.evaluate_ms
    assert prediction.bytes_sent > prediction.bytes_received > 0
    assert {"queries", "upload query"} <= {stage for stage, _, _ in seen}


def test_keys_are_sent_once_and_again_when_the_server_lost_them(
    client: Client, server: BackgroundServer, records: np.ndarray
) -> None:
    client.predict(records[0])
    assert client.upload_keys() is False
    assert client.delete_keys() is True
    client.predict(records[0])
    client._uploaded = True
    with server.state.database.transaction() as connection:
        assert key_index.delete_keys(connection, "anonymous", client._made_keys().digest)
    assert client.predict(records[0]).labels.shape == (1,)


def test_a_second_client_with_the_same_keys_skips_the_upload(
    client: Client, server: BackgroundServer, keys: SecretKeys
) -> None:
    client.upload_keys()
    made = client._made_keys()
    with Client.connect(server.url, model="digits", keys=keys, evaluation_keys=made) as second:
        assert second.upload_keys() is False


def test_other_evaluation_keys_give_noise_never_a_crash(
    server: BackgroundServer, keys: SecretKeys, records: np.ndarray, plan: Plan
) -> None:
    strangers = SecretKeys.generate(plan.params).evaluation_keys(plan.key_levels)
    with Client.connect(server.url, model="digits", keys=keys, evaluation_keys=strangers) as mixed:
        logits = mixed.predict(records[0]).logits
    assert np.abs(logits - plaintext_logits(records[:1])).max() > 1.0


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((2, 63), np.float32),
        np.zeros((0, 64), np.float32),
        np.full((1, 64), np.nan),
        np.full((1, 64), "a"),
        np.zeros((1, 64), np.complex128),
        np.float32(3.0),
    ],
)
def test_unusable_records_are_refused_before_anything_is_sent(
    client: Client, bad: np.ndarray
) -> None:
    with pytest.raises(InputError):
        client.predict(bad)


def test_values_out_of_range_warn_or_are_refused(
    server: BackgroundServer, keys: SecretKeys, client: Client, records: np.ndarray
) -> None:
    far = records[:1] + 0.5
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        client.predict(far)
    assert len([w for w in caught if "outside the calibrated range" in str(w.message)]) == 1
    with (
        Client.connect(server.url, model="digits", keys=keys, strict=True) as strict,
        pytest.raises(OutOfRangeError),
    ):
        strict.predict(far)


def test_a_pinned_plan_and_an_unknown_model(server: BackgroundServer, keys: SecretKeys) -> None:
    with pytest.raises(MismatchError):
        Client.connect(server.url, model="digits", keys=keys, plan_digest="0" * 64)
    with HttpTransport(server.url) as transport, pytest.raises(RefusedError) as refused:
        Client.connect(transport, model="nobody", keys=keys)
    assert (refused.value.status, refused.value.code) == (404, "unknown_model")


@pytest.mark.parametrize("settings", [{"backend": "seal"}, {"threads_per_evaluation": 2}])
def test_the_backend_and_its_threads_are_settings(
    plan: Plan, records: np.ndarray, settings: dict[str, Any]
) -> None:
    records = records[:2]
    with BackgroundServer.of_plans([plan], settings=Settings(**settings)) as server:
        with Client.connect(server.url, model=plan.name) as client:
            found = client.predict(records).logits
    assert np.abs(found - plaintext_logits(records)).max() < 2.0**-8


def test_settings_of_the_backend_are_refused_by_name(plan: Plan) -> None:
    with pytest.raises(BackendError, match="no encrypted backend is called 'gpu'"):
        BackgroundServer.of_plans([plan], settings=Settings(backend="gpu"))
    with pytest.raises(ParameterError, match="threads_per_evaluation = 0"):
        Settings(threads_per_evaluation=0)


def test_a_plan_that_exceeds_the_memory_is_refused_before_it_is_encoded(plan: Plan) -> None:
    with pytest.raises(ServiceError, match=r"encoded weights of digits take .* GB, the limit is"):
        PlanHost(plan, memory_limit_bytes=1000)
