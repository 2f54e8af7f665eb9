"""Times an engine, or a served plan, stage by stage on a case."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from benchmarks import record
from benchmarks.inference.cases import Case
from benchmarks.inference.engine import Engine, Facts, Query, Reply
from benchmarks.record import Record, Timing, timed
from he_infer.client.client import Client
from he_infer.errors import InputError
from he_infer.keys.evaluation import EvaluationKeys
from he_infer.keys.secret import SecretKeys
from he_infer.plan.plan import Plan
from he_infer.runtime.backends.choose import backend_class
from he_infer.server import BackgroundServer


@dataclass(frozen=True, slots=True, kw_only=True)
class _Queries:
    """What was seen of queries: milliseconds of each stage, logits, and sizes in bytes.

    ``stages_ms``: of encryption, evaluation and decryption for each query. ``spent_ms``: of all
    queries from end to end.
    """

    keygen_ms: float
    stages_ms: list[tuple[float, float, float]]
    spent_ms: float
    logits: list[NDArray[np.float64]]
    key_bytes: int
    upload_bytes: int
    download_bytes: int

    def record(self, facts: Facts, case: Case, *, threads: int, batch: int) -> Record:
        encrypt_ms, evaluate_ms, decrypt_ms = zip(*self.stages_ms, strict=True)
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
            encrypt_ms=statistics.median(encrypt_ms),
            evaluate_ms=Timing.of(evaluate_ms),
            decrypt_ms=statistics.median(decrypt_ms),
            key_bytes=self.key_bytes,
            upload_bytes=self.upload_bytes,
            download_bytes=self.download_bytes,
            max_error=float(np.abs(outputs - expected).max()),
            label_agreement=float(np.mean(answers == expected.argmax(axis=1))),
            accuracy=accuracy,
            images_per_s=total / (sum(evaluate_ms) / 1e3),
            images_per_s_end_to_end=total / (self.spent_ms / 1e3),
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
    stages_ms, found, upload_bytes, download_bytes = [], [], 0, 0
    for start in range(0, total, filled):
        records = case.inputs[start : start + filled]
        query, encrypt_ms = timed(partial(engine.encrypt, records))
        reply, evaluate_ms = timed(partial(engine.evaluate, query))
        logits, decrypt_ms = timed(partial(engine.decrypt, reply, filled))
        stages_ms.append((encrypt_ms, evaluate_ms, decrypt_ms))
        found.append(logits)
        upload_bytes, download_bytes = engine.upload_bytes(query), engine.download_bytes(reply)
    seen = _Queries(
        keygen_ms=keygen_ms,
        stages_ms=stages_ms,
        spent_ms=sum(map(sum, stages_ms)),
        logits=found,
        key_bytes=key_bytes,
        upload_bytes=upload_bytes,
        download_bytes=download_bytes,
    )
    return seen.record(engine.facts, case, threads=threads, batch=filled)


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
    timings = [answer.timings for answer in answers]
    seen = _Queries(
        keygen_ms=keygen_ms,
        stages_ms=[(t.encrypt_ms, t.evaluate_ms, t.decrypt_ms) for t in timings],
        spent_ms=spent_ms,
        logits=[answer.logits for answer in answers],
        key_bytes=len(public.to_bytes()),
        upload_bytes=answers[0].bytes_sent,
        download_bytes=answers[0].bytes_received,
    )
    facts = Facts(
        engine="he-infer",
        backend=backend_class().name,
        n=plan.params.n,
        log_qp=plan.params.log_qp,
        note="through HTTP on loopback",
    )
    return seen.record(facts, case, threads=1, batch=min(plan.batch, records))
