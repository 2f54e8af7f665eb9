"""Real keys, real ciphertexts: the bench that attacks on ciphertexts run on, in this process.

Encryption, evaluation and decryption are those of the service, behind its strict parser and
without its HTTP, which changes no byte of an envelope.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from attacks.ciphertext.key_recovery import Seen
from attacks.core.arrays import Complexes, Floats
from he_infer.client.release import release
from he_infer.keys.secret import SecretKeys
from he_infer.plan import ir
from he_infer.plan.client_spec import expected_query, expected_reply
from he_infer.plan.plan import Plan
from he_infer.plan.privacy import FunctionPrivacy
from he_infer.server.workers.plan_host import PlanHost
from he_infer.wire import Ciphertext, read_envelope, write_envelope


class PlanChannel:
    """One client of one plan; ``host`` may be shared. Slots may hold complex values."""

    def __init__(self, plan: Plan, *, backend: str = "auto") -> None:
        self.spec = plan.client_spec
        self._host = PlanHost(plan, backend=backend)
        self._keys = SecretKeys.generate(plan.params)
        evaluation = self._keys.evaluation_keys(plan.key_levels)
        self._digest = evaluation.digest
        self._loaded = self._host.load_keys([evaluation.to_bytes()], self._digest)
        self.evaluate_ms = float("nan")

    @property
    def inputs(self) -> int:
        return self.spec.n_input_ciphertexts

    @property
    def outputs(self) -> int:
        return self.spec.n_output_ciphertexts

    @property
    def slots(self) -> int:
        return self.spec.params.slots

    @property
    def batch(self) -> int:
        return self.spec.batch

    @property
    def input_slots(self) -> NDArray[np.int32]:
        return self.spec.input_slots

    @property
    def output_slots(self) -> NDArray[np.int32]:
        return self.spec.output_slots

    @property
    def input_range(self) -> tuple[float, float]:
        return self.spec.input_range

    def ask(self, slots: Complexes) -> Complexes:
        replies = self.answer(self.query(slots))
        return np.stack([self._keys.decrypt(reply) for reply in replies])

    def query(self, slots: Complexes) -> bytes:
        """The envelope of a query; real slots are encrypted as the client library does it."""
        expected = expected_query(self.spec, self._digest)
        if np.isrealobj(slots) or not slots.imag.any():
            frames = self._keys.encrypt(np.ascontiguousarray(slots.real), self.spec.input_scale)
        else:
            frames = self._keys.encrypt_complex(slots, self.spec.input_scale)
        return write_envelope(frames, expected)

    def answer(self, envelope: bytes) -> list[Ciphertext]:
        """What the service replies, parsed as the client library does it."""
        query = self._host.parse_query(envelope, self._digest)
        start = time.perf_counter()
        reply = self._host.evaluate(query, self._loaded)
        self.evaluate_ms = 1e3 * (time.perf_counter() - start)
        self._host.make_ready(self._loaded)  # as workers do between queries
        expected = expected_reply(self.spec, self._digest)
        frames = read_envelope(reply, expected, limit_bytes=expected.total_bytes)
        return [frame for frame in frames if isinstance(frame, Ciphertext)]

    def decrypt(self, reply: Ciphertext) -> Complexes:
        return self._keys.decrypt(reply)


class PlanBench:
    """A compiled plan, its undefended twin, and its likes, for ``attacks.ciphertext.suite``.

    ``undefended``: the same network compiled with ``FunctionPrivacy.unchecked()``; ``records``
    and ``classes``: what observed queries hold.
    """

    def __init__(
        self,
        plan: Plan,
        undefended: Plan,
        *,
        records: Floats,
        classes: NDArray[np.int64],
        backend: str = "auto",
    ) -> None:
        self._plan = plan
        self._undefended = undefended
        self._records = records
        self._classes = classes
        self._backend = backend

    @cached_property
    def defended(self) -> PlanChannel:
        return PlanChannel(self._plan, backend=self._backend)

    @cached_property
    def control(self) -> PlanChannel:
        return PlanChannel(self._undefended, backend=self._backend)

    @property
    def bias(self) -> Floats:
        output = self._plan.graph.output
        assert isinstance(output, ir.Affine)
        return output.bias

    @property
    def records_carried(self) -> int:
        return self._plan.batch

    @property
    def records_charged(self) -> int:
        return self._plan.records_charged

    def exact(self, slots: Complexes) -> Floats:
        spec = self._plan.client_spec
        by_slot = slots.real.reshape(spec.n_input_ciphertexts, -1, spec.batch)
        used = spec.input_slots >= 0
        records = np.zeros((spec.batch, int(np.prod(spec.input_shape))))
        records[:, spec.input_slots[used]] = by_slot[used].T
        return ir.evaluate(self._plan.graph, records)[self._plan.graph.output.name].reshape(-1)

    def alike(self, *, defended: bool) -> tuple[PlanChannel, PlanChannel]:
        plan = self._plan if defended else replace(self._plan, privacy=_BARE)
        first, second = (PlanChannel(each, backend=self._backend) for each in (plan, heavier(plan)))
        return first, second

    def timers(self) -> tuple[Callable[[], float], Callable[[], float]]:
        def timer(channel: PlanChannel) -> Callable[[], float]:
            zeros = np.zeros((channel.inputs, channel.slots), dtype=np.complex128)
            envelope = channel.query(zeros)

            def once() -> float:
                channel.answer(envelope)
                return channel.evaluate_ms

            return once

        first, second = self.alike(defended=True)
        return timer(first), timer(second)

    def _query(self, index: int, factor: float = 1.0) -> bytes:
        """The envelope of one record, times ``factor``."""
        slots = self.defended.spec.pack(self._records[index : index + 1]) * factor
        return self.defended.query(slots.astype(np.complex128))

    def seen(self, count: int) -> Sequence[Seen]:
        found = []
        for index in range(count):
            reply = self.defended.answer(self._query(index))[0]
            found.append(
                Seen(
                    c0=np.ascontiguousarray(reply.residues[0, 0]),
                    c1=np.ascontiguousarray(reply.residues[1, 0]),
                    slots=self.defended.decrypt(reply),
                    scale=reply.scale,
                    q=self._plan.params.primes[0],
                )
            )
        return found

    def released(self, seen: Seen) -> Complexes:
        return (release(seen.slots.real) + 1j * release(seen.slots.imag)).astype(np.complex128)

    def observed(self, count: int) -> tuple[list[bytes], list[float], NDArray[np.int64]]:
        channel, envelopes, times = self.defended, [], []
        chosen = np.arange(count) % len(self._records)
        for index in chosen:
            envelope = self._query(int(index))
            channel.answer(envelope)
            envelopes.append(envelope)
            times.append(channel.evaluate_ms)
        return envelopes, times, self._classes[chosen]

    def reply_shapes(self, count: int) -> set[tuple[int, float, int]]:
        shapes = set()
        for index in range(count):
            for reply in self.defended.answer(self._query(index, 2.0 ** (index - 2))):
                shapes.add((reply.level, reply.scale, reply.residues.nbytes))
        return shapes


_BARE = FunctionPrivacy(real_part=False, flooding_std=0.0)


def heavier(plan: Plan, factor: float = 4.0) -> Plan:
    """A plan of the same shape whose first layer's weights are ``factor`` times as large.

    On a record of zeros only biases count, so both answer it alike.
    """
    first = next(node for node in plan.graph if isinstance(node, ir.Affine))
    changed = replace(first, matrices=tuple(matrix * factor for matrix in first.matrices))
    nodes = tuple(changed if node is first else node for node in plan.graph)
    source = plan.packing.input
    matrix = None if source.first_matrix is None else source.first_matrix * factor
    packing = replace(plan.packing, input=replace(source, first_matrix=matrix))
    return replace(plan, graph=ir.Graph(nodes=nodes), packing=packing)
