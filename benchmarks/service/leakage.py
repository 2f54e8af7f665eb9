"""What replies give away: the attacks on ciphertexts, correctness, and a server that lies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from attacks.ciphertext.suite import THOROUGH, Check, run_suite
from attacks.ciphertext.suite import Effort as SuiteEffort
from attacks.oracles.channels import PlanBench
from benchmarks.service.claim import Claim, Effort
from benchmarks.service.rig import in_the_clear, records_of, zoo_plan
from he_infer import zoo
from he_infer.activations.layer import PolynomialActivation
from he_infer.client.canaries import Canaries, IntegrityError, check, detection_probability, mix
from he_infer.client.client import Client
from he_infer.compiler.pipeline import compile as compile_model
from he_infer.plan.plan import Plan
from he_infer.plan.privacy import FunctionPrivacy
from he_infer.server import BackgroundServer


def ciphertexts(effort: Effort) -> Iterator[Claim]:
    """Every attack of ``attacks.ciphertext``, on digits-mlp as served and without defences."""
    plan = zoo_plan("digits-mlp")
    undefended = zoo_plan("digits-mlp", privacy=FunctionPrivacy.unchecked())
    test = zoo.test_set("digits-mlp")
    records = np.asarray(test.inputs(), dtype=np.float64)[:359].reshape(-1, 64)
    bench = PlanBench(
        plan,
        undefended,
        records=records,
        classes=np.asarray(test.labels, dtype=np.int64)[: len(records)],
    )
    work = SuiteEffort(replies=40, queries=24, noise_replies=24, timings=200, observed=120)
    checks = run_suite(bench, work if effort.quick else THOROUGH, seed=0)
    for check_ in checks:
        yield Claim(
            name=check_.title,
            bar=_bar(check_),
            figure=f"undefended: {check_.control}; served: {check_.defended}",
            holds=check_.holds and check_.control_broken is not False,
        )


def _bar(check_: Check) -> str:
    if check_.control_broken is None:
        return "measured and said"
    # Enough replies show any noise's variance: what flooding can do is to make it small.
    if check_.name == "weight-noise":
        return "works where nothing defends, variances within 10 % of each other as served"
    return "works where nothing defends, fails as served"


def correctness(effort: Effort) -> Iterator[Claim]:
    """Replies over HTTP against the plaintext twin, for every shape of layer, with biases."""
    worst, records, bound = 0.0, 0, 0.0
    plans = _shapes()
    share = effort.of(100_000, 6_000) // len(plans)
    for plan in plans:
        drawn = records_of(plan, share, seed=len(plan.name))
        with (
            BackgroundServer.of_plans([plan]) as server,
            Client.connect(server.url, model=plan.name) as client,
        ):
            found = client.predict(drawn).logits
        errors = np.abs(found - in_the_clear(plan, drawn))
        # Six standard deviations of what the plan promises, which 10^6 values do not reach.
        bound = 6.0 * 2.0**-10
        worst, records = max(worst, float(errors.max())), records + len(drawn)
    yield Claim(
        name="every reply against the plaintext twin",
        bar="within the bound: 100k records, all layer shapes, with biases",
        figure=f"{records:,} records of {len(plans)} networks, largest error {worst:.2g} of "
        f"{bound:.2g}",
        holds=worst < bound and (effort.quick or records >= 99_000),
    )


def _shapes() -> list[Plan]:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)

    def compiled(name: str, model: nn.Module, shape: tuple[int, ...], **options: Any) -> Plan:
        for parameter in model.parameters():
            parameter.data *= 0.7
        return compile_model(model.eval(), rng.uniform(0, 1, (200, *shape)), name=name, **options)

    quadratic = PolynomialActivation.quadratic
    return [
        zoo_plan("digits-mlp", model="digits", batch=4096),
        compiled("linear", nn.Linear(20, 5), (20,), batch=2048),
        compiled(
            "conv",
            nn.Sequential(
                nn.Conv2d(1, 3, 3, stride=2, padding=1),
                quadratic(3),
                nn.AvgPool2d(2),
                nn.Flatten(),
                nn.Linear(12, 4),
            ),
            (1, 8, 8),
            batch=512,
        ),
        compiled(
            "norm",
            nn.Sequential(
                nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), quadratic(4), nn.Flatten(), nn.Linear(64, 3)
            ),
            (2, 6, 6),
            batch=256,
        ),
        compiled(
            "cubic", nn.Sequential(nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3)), (16,), batch=1024
        ),
    ]


def canaries(effort: Effort) -> Iterator[Claim]:
    """A server that corrupts one record in a hundred, and how often canaries catch it."""
    rng = np.random.default_rng(1)
    records, per_query, rate = 64, 32, 0.01
    known = Canaries(
        records=rng.uniform(0, 1, (per_query, 4)),
        logits=rng.normal(size=(per_query, 3)),
        tolerance=0.01,
    )
    trials = effort.of(4000, 500)
    caught = 0
    for _ in range(trials):
        batch = rng.uniform(0, 1, (records, 4))
        mixed = mix(batch, known, count=per_query)
        # The server cannot tell canaries from records: it corrupts each with the same chance.
        honest = np.zeros((len(mixed.records), 3))
        honest[mixed.canary_at] = mixed.expected
        honest[rng.random(len(honest)) < rate] += 1.0
        try:
            check(mixed, honest)
        except IntegrityError:
            caught += 1
    stated = detection_probability(per_query, rate)
    share = caught / trials
    error = 3.0 * np.sqrt(stated * (1 - stated) / trials)
    yield Claim(
        name="canary records",
        bar="a server that corrupts 1 % of replies is caught with the stated probability",
        figure=f"caught in {share:.1%} of {trials:,} batches with {per_query} canaries; stated "
        f"{stated:.1%}",
        holds=abs(share - stated) <= error,
    )
