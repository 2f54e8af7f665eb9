"""The same record through the real service: an HTTP server on loopback and the client library."""

from __future__ import annotations

import statistics
import time

import numpy as np

from benchmarks import record
from benchmarks.inference.cases import Case
from benchmarks.record import Record, Timing, timed
from he_infer.client.client import Client, Prediction
from he_infer.errors import InputError
from he_infer.keys.evaluation import EvaluationKeys
from he_infer.keys.secret import SecretKeys
from he_infer.plan.plan import Plan
from he_infer.runtime.backends.choose import backend_class
from he_infer.server import BackgroundServer


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
    answers: list[Prediction] = []
    with BackgroundServer.of_plans([plan]) as server:
        with Client.connect(
            server.url, model=plan.name, keys=secret, evaluation_keys=public
        ) as client:
            client.upload_keys()
            start = time.perf_counter()
            for first in range(0, records, plan.batch):
                last = min(first + plan.batch, records)
                answers.append(client.predict(case.inputs[first:last]))
            spent_s = time.perf_counter() - start
    outputs = np.concatenate([answer.logits for answer in answers])
    expected = case.logits(case.inputs[:records])
    labels = None if case.labels is None else case.labels[:records]
    evaluate_ms = [answer.timings.evaluate_ms for answer in answers]
    return Record(
        engine="he-infer",
        case=case.name,
        backend=backend_class().name,
        threads=1,
        batch=min(plan.batch, records),
        records=records,
        n=plan.params.n,
        log_qp=round(plan.params.log_qp, 2),
        security_bits=plan.params.security_bits,
        keygen_ms=keygen_ms,
        encrypt_ms=statistics.median(answer.timings.encrypt_ms for answer in answers),
        evaluate_ms=Timing.of(evaluate_ms),
        decrypt_ms=statistics.median(answer.timings.decrypt_ms for answer in answers),
        key_bytes=len(public.to_bytes()),
        upload_bytes=answers[0].bytes_sent,
        download_bytes=answers[0].bytes_received,
        max_error=float(np.abs(outputs - expected).max()),
        label_agreement=float(np.mean(outputs.argmax(axis=1) == expected.argmax(axis=1))),
        accuracy=None if labels is None else float(np.mean(outputs.argmax(axis=1) == labels)),
        images_per_s=records / (sum(evaluate_ms) / 1e3),
        images_per_s_end_to_end=records / spent_s,
        peak_rss_mb=round(record.peak_rss_mb(), 1),
        host=record.host(),
        commit=record.commit(),
        note="through HTTP on loopback",
    )
