"""One target in four forms, which show what the polynomial and what encryption changes.

plaintext-relu ──replacement──► plaintext-polynomial ──compile──► simulated ──serve──► encrypted
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from attacks.core.arrays import Floats
from attacks.core.oracle import Oracle
from attacks.errors import AuditError
from attacks.oracles.plaintext import TorchOracle
from attacks.oracles.remote import RemoteOracle
from attacks.oracles.simulated import SimulatedOracle
from he_infer.activations.layer import PolynomialActivation
from he_infer.client.client import Client
from he_infer.compiler.batching import compile_for_records
from he_infer.errors import HEInferError
from he_infer.plan.plan import Plan
from he_infer.server import BackgroundServer

RELU: Final = "plaintext-relu"
POLYNOMIAL: Final = "plaintext-polynomial"
SIMULATED: Final = "simulated"
ENCRYPTED: Final = "encrypted"
TWINS: Final = (RELU, POLYNOMIAL, SIMULATED, ENCRYPTED)
# Of these two the polynomial network is the model; they differ in how it is evaluated.
SERVED: Final = (SIMULATED, ENCRYPTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFacts:
    """What the report says about the compiled plan."""

    poly_degree: int
    coeff_bits: tuple[int, ...]
    batch: int
    levels: int
    security_bits: int


class Twins:
    """The four oracles of one target; a context manager, since one of them is a server.

    ``sample``: the training inputs (B, *input_shape) that the plan is calibrated on.
    ``records``: how many records the attacks will ask about at once; decides the packing.
    ``oracle`` hands out a *new* oracle, with an empty ledger, for the model named; the plan and the
    server behind it are made when they are first needed and shared.
    """

    def __init__(
        self,
        *,
        relu: nn.Module,
        polynomial: nn.Module,
        sample: Floats,
        records: int,
        low: float,
        high: float,
        seed: int,
    ) -> None:
        self._modules = {RELU: relu, POLYNOMIAL: polynomial}
        self._sample = sample.astype(np.float32)
        self._records = records
        self._low, self._high = low, high
        self._seed = seed
        self._plan: Plan | None = None
        self._client: Client | None = None
        self._exits = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._client = None
        self._exits.close()

    @property
    def plan(self) -> Plan:
        """Compiled on first use; AuditError if the polynomial network cannot be compiled."""
        if self._plan is None:
            try:
                self._plan = compile_for_records(
                    self._modules[POLYNOMIAL], self._sample, records=self._records, name="target"
                )
            except HEInferError as error:
                raise AuditError(f"the polynomial twin cannot be compiled: {error}") from error
        return self._plan

    @property
    def polynomial(self) -> nn.Module:
        return self._modules[POLYNOMIAL]

    def network(self, twin: str) -> nn.Module:
        """What a twin computes, in the clear: the ReLU network, or for all others the polynomial
        one."""
        return self._modules[RELU if twin == RELU else POLYNOMIAL]

    @property
    def sample(self) -> NDArray[np.float32]:
        """The training inputs (B, *input_shape)."""
        return self._sample

    def answers(self, records: Floats) -> Floats:
        """The polynomial twin's logits (B, classes), in the clear."""
        with torch.no_grad():
            found = self.polynomial.eval()(torch.as_tensor(records, dtype=torch.float32))
        return np.asarray(found.numpy(), dtype=np.float64)

    def facts(self) -> PlanFacts:
        params = self.plan.params
        return PlanFacts(
            poly_degree=params.n,
            coeff_bits=tuple(int(prime).bit_length() for prime in params.primes),
            batch=self.plan.batch,
            levels=params.max_level,
            security_bits=params.security_bits,
        )

    def oracle(self, twin: str) -> Oracle:
        """A fresh oracle for one of TWINS; AuditError for another name.

        All encrypted ones share a connection and a set of keys: ask them one after the other.
        """
        if twin in self._modules:
            return TorchOracle(
                self._modules[twin],
                name=twin,
                input_shape=self._sample.shape[1:],
                low=self._low,
                high=self._high,
            )
        if twin == SIMULATED:
            rng = np.random.default_rng([self._seed, 1])
            return SimulatedOracle(
                self.plan, rng=rng, name=SIMULATED, low=self._low, high=self._high
            )
        if twin == ENCRYPTED:
            return RemoteOracle(self._connect(), name=ENCRYPTED, low=self._low, high=self._high)
        raise AuditError(f"no twin is called {twin!r}: there are {', '.join(TWINS)}")

    def _connect(self) -> Client:
        """The client of a server on loopback, both started on first use, keys uploaded."""
        if self._client is None:
            server = self._exits.enter_context(BackgroundServer.of_plans([self.plan]))
            connection = Client.connect(server.url, model=self.plan.name)
            client = self._exits.enter_context(connection)
            client.upload_keys()
            self._client = client
        return self._client


def relu_original(model: nn.Module) -> nn.Module:
    """The same network, untrained weights kept, with a ReLU for every polynomial activation."""
    network = copy.deepcopy(model)
    if isinstance(network, PolynomialActivation):
        return nn.ReLU()
    found: Mapping[str, nn.Module] = dict(network.named_modules(remove_duplicate=False))
    for path, layer in found.items():
        if isinstance(layer, PolynomialActivation):
            parent, _, name = path.rpartition(".")
            setattr(network.get_submodule(parent), name, nn.ReLU())
    return network
