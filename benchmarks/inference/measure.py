"""Times an engine, or a served plan, stage by stage on a case."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from benchmarks import record
from benchmarks.inference.cases import Case
from benchmarks.inference.engine import Engine, Facts, Query, Reply
from benchmarks.record import Record, Timing, timed
from he_infer import native
from he_infer.client.client import Client
from he_infer.errors import InputError
from he_infer.keys.evaluation import EvaluationKeys
from he_infer.keys.secret import SecretKeys
from he_infer.plan.plan import Plan
from he_infer.server import BackgroundServer


@dataclass(slots=True, kw_only=True)
class _Stages:
    """Milliseconds of each query by stage, its logits, and sizes in bytes."""

    keygen_ms: float
    key_bytes: int
    encrypt_ms: list[float] = field(default_factory=list)
    evaluate_ms: list[float] = field(default_factory=list)
    decrypt_ms: list[float] = field(default_factory=list)
    logits: list[NDArray[np.float64]] = field(default_factory=list)
    upload_bytes: int = 0
    download_bytes: int = 0

    def record(
        self, facts: Facts, case: Case, *, threads: int, batch: int, spent_ms: float
    ) -> Record:
        """The record of these queries, which took ``spent_ms`` from end to end."""
        outputs = np.concatenate(self.logits)
        total, answers = len(outputs), outputs.argmax(axis=1)
        expected = case.logits(case.inputs[:total])
        accuracy = None
        if case.labels is not None:
            accuracy = float(np.mean(answers == case.labels[:total]))
        return Record(
            engine=facts.engine,
            case=case.name,
            backend=facts.backend,
            threads=threads,
            batch=batch,
            records=total,
            n=facts.n,
            log_qp=None if facts.log_qp is None else round(facts.log_qp, 2),
            security_bits=record.security_bits(facts.n, facts.log_qp),
            keygen_ms=self.keygen_ms,
            encrypt_ms=statistics.median(self.encrypt_ms),
            evaluate_ms=Timing.of(self.evaluate_ms),
            decrypt_ms=statistics.median(self.decrypt_ms),
            key_bytes=self.key_bytes,
            upload_bytes=self.upload_bytes,
            download_bytes=self.download_bytes,
            max_error=float(np.abs(outputs - expected).max()),
            label_agreement=float(np.mean(answers == expected.argmax(axis=1))),
            accuracy=accuracy,
            images_per_s=total / (sum(self.evaluate_ms) / 1e3),
            images_per_s_end_to_end=total / (spent_ms / 1e3),
            peak_rss_mb=round(record.peak_rss_mb(), 1),
            host=record.host(),
            commit=record.commit(),
            predicted_ms=facts.predicted_ms,
            note=facts.note,
        )


def measure(
    engine: Engine[Query, Reply],
    case: Case,
    *,
    queries: int,
    threads: int,
    records_per_query: int | None = None,
) -> Record:
    """Key generation once, then ``queries`` queries of test records, each timed by stage.

    ``records_per_query``: how full each query is (all of the batch by default).
    Loading keys and encoding weights happen between and are not part of any stage.
    Raises InputError if the case has too few records.
    """
    filled = engine.batch if records_per_query is None else records_per_query
    if not 0 < filled <= engine.batch or queries < 1:
        raise InputError(f"{filled} records do not fit a query of {engine.batch}")
    total = queries * filled
    if total > len(case.inputs):
        raise InputError(
            f"{queries} queries of {filled} records need {total}, the case has {len(case.inputs)}"
        )
    key_bytes, keygen_ms = timed(engine.keygen)
    engine.prepare()
    stages = _Stages(keygen_ms=keygen_ms, key_bytes=key_bytes)
    spent_ms = 0.0
    for start in range(0, total, filled):
        records = case.inputs[start : start + filled]
        query, encrypt_ms = timed(partial(engine.encrypt, records))
        reply, evaluate_ms = timed(partial(engine.evaluate, query))
        logits, decrypt_ms = timed(partial(engine.decrypt, reply, filled))
        stages.encrypt_ms.append(encrypt_ms)
        stages.evaluate_ms.append(evaluate_ms)
        stages.decrypt_ms.append(decrypt_ms)
        stages.logits.append(logits)
        stages.upload_bytes = engine.upload_bytes(query)
        stages.download_bytes = engine.download_bytes(reply)
        spent_ms += encrypt_ms + evaluate_ms + decrypt_ms
    return stages.record(engine.facts, case, threads=threads, batch=filled, spent_ms=spent_ms)


def measure_served(plan: Plan, case: Case, *, records: int) -> Record:
    """Answer the first ``records`` test inputs through HTTP, ``plan.batch`` to a query.

    Server and client share a process and so an interpreter lock; end-to-end time includes
    packing, encryption, transfer both ways and decryption, not the upload of keys.
    Raises InputError if the case has fewer records.
    """
    if not 0 < records <= len(case.inputs):
        raise InputError(f"the case has {len(case.inputs)} records, {records} were asked for")

    def make_keys() -> tuple[SecretKeys, EvaluationKeys]:
        secret = SecretKeys.generate(plan.params)
        return secret, secret.evaluation_keys(plan.key_levels)

    (secret, public), keygen_ms = timed(make_keys)
    with BackgroundServer.of_plans([plan]) as server:
        with Client.connect(
            server.url, model=plan.name, keys=secret, evaluation_keys=public
        ) as client:
            client.upload_keys()
            start = time.perf_counter()
            answers = [
                client.predict(case.inputs[first : min(first + plan.batch, records)])
                for first in range(0, records, plan.batch)
            ]
            spent_ms = (time.perf_counter() - start) * 1e3
    stages = _Stages(
        keygen_ms=keygen_ms,
        key_bytes=len(public.to_bytes()),
        encrypt_ms=[answer.timings.encrypt_ms for answer in answers],
        evaluate_ms=[answer.timings.evaluate_ms for answer in answers],
        decrypt_ms=[answer.timings.decrypt_ms for answer in answers],
        logits=[answer.logits for answer in answers],
        upload_bytes=answers[0].bytes_sent,
        download_bytes=answers[0].bytes_received,
    )
    facts = Facts(
        engine="he-infer",
        backend="seal" if native.core is None else "native",
        n=plan.params.n,
        log_qp=plan.params.log_qp,
        note="through HTTP on loopback",
    )
    batch = min(plan.batch, records)
    return stages.record(facts, case, threads=1, batch=batch, spent_ms=spent_ms)
