"""A compiled plan as a host, on an encrypted backend.

It parses what clients send strictly and returns envelopes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from typing import Final

from he_infer.errors import MismatchError, ServiceError
from he_infer.keys.evaluation import EvaluationKeys
from he_infer.plan.client_spec import expected_query, expected_reply
from he_infer.plan.plan import Plan, encoded_bytes
from he_infer.progress import Progress
from he_infer.runtime.backends.base import LoadedKeys
from he_infer.runtime.backends.choose import AUTO, encrypted_backend
from he_infer.runtime.executor import Executor
from he_infer.server.settings import Settings
from he_infer.server.workers.hosting import Buffer, HostFacts, Query
from he_infer.wire import (
    NO_DIGEST,
    Expected,
    Frame,
    FrameReader,
    read_envelope,
    write_envelope,
)

_WORD_BYTES: Final = 8


class PlanHost:
    """One plan with its weights encoded; ``evaluate`` may run in several threads.

    ``backend``: auto, or a name in ``runtime.backends.choose``; ``threads``: of each evaluation.

    Encoding happens here, once: it takes seconds and the memory that the plan states. Raises
    ServiceError, before it starts, if that exceeds ``memory_limit_bytes`` (None: the machine's).
    """

    def __init__(
        self,
        plan: Plan,
        *,
        backend: str = AUTO,
        threads: int = 1,
        memory_limit_bytes: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        limit = _physical_memory_bytes() if memory_limit_bytes is None else memory_limit_bytes
        evaluator = encrypted_backend(plan.params, backend, threads=threads)
        if (needed := encoded_bytes(plan, packed=evaluator.packed)) > limit:
            raise ServiceError(
                f"the encoded weights of {plan.name} take {needed / 1e9:.1f} GB, the limit is "
                f"{limit / 1e9:.1f} GB: use smaller layers, another batch size or more memory"
            )
        self._plan = plan
        self._spec = plan.client_spec
        self._backend = evaluator
        self._executor = Executor(plan, self._backend, progress=progress)
        self._keys_expected = Expected.evaluation_keys(plan.params, plan.key_levels)
        self.facts = facts_of(plan)

    def parse_query(self, query: Buffer, keys_digest: str) -> Query:
        """Check a whole envelope, bound to these keys; raises WireError."""
        expected = expected_query(self._spec, keys_digest)
        frames = read_envelope(query, expected, limit_bytes=expected.total_bytes)
        return Query(keys_digest=keys_digest, inputs=frames)

    def load_keys(self, blocks: Iterable[bytes], digest: str) -> LoadedKeys:
        """Parse an envelope of evaluation keys as it is read, and expand them; raises WireError."""
        reader = FrameReader(self._keys_expected, limit_bytes=self._keys_expected.total_bytes)
        found = hashlib.sha256()
        frames: list[Frame] = []
        for block in blocks:
            found.update(block)
            frames += reader.feed(block)
        reader.finish()
        if found.hexdigest() != digest:
            raise MismatchError("the keys' SHA-256 is not the one in the address: send them again")
        return self._backend.load_keys(EvaluationKeys.of_frames(frames, self._keys_expected))

    def evaluate(self, query: Query, loaded_keys: LoadedKeys) -> bytes:
        """The reply envelope; raises BackendError."""
        frames = self._executor.run(query.inputs, loaded_keys)
        return write_envelope(frames, expected_reply(self._spec, query.keys_digest))

    def make_ready(self, loaded_keys: LoadedKeys) -> None:
        self._executor.make_ready(loaded_keys)


def hosts_of(plans: Iterable[Plan], settings: Settings) -> list[PlanHost]:
    """A host for each plan, as the settings say; raises ServiceError."""
    threads = settings.threads_per_evaluation
    return [PlanHost(plan, backend=settings.backend, threads=threads) for plan in plans]


def facts_of(plan: Plan) -> HostFacts:
    """What is known of a plan without encoding its weights."""
    spec = plan.client_spec
    return HostFacts(
        name=spec.model,
        plan_digest=spec.plan_digest,
        params_digest=plan.params.digest,
        levels_digest=plan.key_levels.digest,
        query_bytes=expected_query(spec, NO_DIGEST).total_bytes,
        keys_bytes=Expected.evaluation_keys(plan.params, plan.key_levels).total_bytes,
        loaded_keys_bytes=_loaded_bytes(plan),
        reply_bytes=expected_reply(spec, NO_DIGEST).total_bytes,
        records=plan.records_charged,
        spec=spec.to_json(),
    )


def _loaded_bytes(plan: Plan) -> int:
    """Memory of a client's expanded keys, and of what covers its next reply."""
    levels, n, spec = plan.key_levels, plan.params.n, plan.client_spec
    polynomials = sum((level + 1) * (level + 2) for level in levels.switches)
    masks = spec.n_output_ciphertexts * (spec.output_level + 1)
    return 2 * (polynomials + levels.public + 2 + masks) * n * _WORD_BYTES


def _physical_memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
