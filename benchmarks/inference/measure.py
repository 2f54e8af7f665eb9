"""Times an engine stage by stage on a case; the three commands differ in what they ask of it."""

from __future__ import annotations

import statistics
from functools import partial

import numpy as np

from benchmarks import record
from benchmarks.inference.cases import Case
from benchmarks.inference.engine import Engine, Query, Reply
from benchmarks.record import Record, Timing, timed
from he_infer.errors import InputError


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
    encrypt_ms, evaluate_ms, decrypt_ms, parts = [], [], [], []
    upload = download = 0
    for start in range(0, total, filled):
        records = case.inputs[start : start + filled]
        query, spent = timed(partial(engine.encrypt, records))
        encrypt_ms.append(spent)
        reply, spent = timed(partial(engine.evaluate, query))
        evaluate_ms.append(spent)
        logits, spent = timed(partial(engine.decrypt, reply, filled))
        decrypt_ms.append(spent)
        parts.append(logits)
        upload, download = engine.upload_bytes(query), engine.download_bytes(reply)
    outputs = np.concatenate(parts)
    expected = case.logits(case.inputs[:total])
    answers = outputs.argmax(axis=1)
    labels = None if case.labels is None else case.labels[:total]
    spent_ms = sum(encrypt_ms) + sum(evaluate_ms) + sum(decrypt_ms)
    return Record(
        engine=engine.name,
        case=case.name,
        backend=engine.backend,
        threads=threads,
        batch=filled,
        records=total,
        n=engine.n,
        log_qp=None if engine.log_qp is None else round(engine.log_qp, 2),
        security_bits=record.security_bits(engine.n, engine.log_qp),
        keygen_ms=keygen_ms,
        encrypt_ms=statistics.median(encrypt_ms),
        evaluate_ms=Timing.of(evaluate_ms),
        decrypt_ms=statistics.median(decrypt_ms),
        key_bytes=key_bytes,
        upload_bytes=upload,
        download_bytes=download,
        max_error=float(np.abs(outputs - expected).max()),
        label_agreement=float(np.mean(answers == expected.argmax(axis=1))),
        accuracy=None if labels is None else float(np.mean(answers == labels)),
        images_per_s=total / (sum(evaluate_ms) / 1e3),
        images_per_s_end_to_end=total / (spent_ms / 1e3),
        peak_rss_mb=round(record.peak_rss_mb(), 1),
        host=record.host(),
        commit=record.commit(),
        predicted_ms=engine.predicted_ms,
        note=engine.note,
    )
