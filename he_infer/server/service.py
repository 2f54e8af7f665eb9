"""The inference service without HTTP: models, keys, accounts and workers, tied together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from typing import Final

from he_infer.errors import HEInferError
from he_infer.server.access import Access, ensure_anonymous
from he_infer.server.accounts import Accounts, Admitted
from he_infer.server.catalog import Catalog
from he_infer.server.key_uploads import KeyUploads
from he_infer.server.logs import log_event, where_raised
from he_infer.server.refusal import ClientGoneError, refusal_for
from he_infer.server.settings import Settings
from he_infer.server.state import State, served
from he_infer.server.state.replies import Answer
from he_infer.server.workers.hosting import Buffer, Task
from he_infer.server.workers.workers import Workers

SWEEP_S: Final = 60.0


class InferenceService:
    """Answers encrypted queries of tenants for a set of models."""

    def __init__(self, workers: Workers, state: State, settings: Settings) -> None:
        self.settings = settings
        self.workers = workers
        self.state = state
        facts = workers.facts
        with state.database.transaction() as connection:
            ensure_anonymous(connection)
            before = served.ever_served(connection)
            self.catalog = Catalog(facts, before=before)
            now = time.time()
            served.note_served(connection, [(f.name, f.plan_digest) for f in facts], now=now)
        self.access = Access(state, required=settings.tokens_required)
        self.keys = KeyUploads(state, workers, settings)
        self.accounts = Accounts(state, settings)
        self._draining = threading.Event()

    @property
    def ready(self) -> bool:
        """Whether new queries are answered: not without a model nor while draining."""
        return bool(self.catalog.names) and not self._draining.is_set()

    @property
    def draining(self) -> bool:
        return self._draining.is_set()

    def drain(self) -> None:
        """Take no new query; those in flight finish."""
        self._draining.set()

    async def answer(
        self, admitted: Admitted, query: Buffer, *, gone: asyncio.Event | None
    ) -> Answer:
        """Evaluate an admitted query and settle its account, or give back what it was charged.

        Once evaluation has begun it ends, whether or not the client is still there: a client
        that asks again with the same idempotency key gets the reply that was kept.
        """
        if admitted.kept is not None:
            return admitted.kept
        work = asyncio.ensure_future(self._evaluate_and_settle(admitted, query, gone))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            with contextlib.suppress(Exception):
                await work
            raise

    async def _evaluate_and_settle(
        self, admitted: Admitted, query: Buffer, gone: asyncio.Event | None
    ) -> Answer:
        facts = admitted.facts
        try:
            with self.keys.pinned(admitted.keys_digest):
                task = Task(
                    plan_digest=facts.plan_digest,
                    tenant=admitted.tenant,
                    keys_digest=admitted.keys_digest,
                    query=query,
                )
                answer = await self.workers.ask(task, gone=gone)
            await self.accounts.settle(admitted, answer)
        except BaseException as error:
            code = "client_gone" if isinstance(error, ClientGoneError) else refusal_for(error).code
            await self.accounts.withdraw(admitted, code)
            if code == "unknown_keys":  # the index has them, or they would not have come so far
                await self.keys.lost(admitted.tenant, admitted.keys_digest, admitted.request)
            raise
        return answer

    async def sweep_for_ever(self) -> None:
        """Delete what has expired, every minute, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                await self.keys.sweep()
                await self.accounts.sweep()
            except HEInferError as error:
                log_event(logging.WARNING, "sweep_failed", {"error": where_raised(error)})

    def close(self) -> None:
        """End the workers; the state belongs to whoever opened it."""
        self.workers.close()
