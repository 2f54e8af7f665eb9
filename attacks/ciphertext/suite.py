"""All attacks on ciphertexts, each on a service that is defended and on one that is not.

Every attack is a function of a bench, an effort and a generator that returns a Check. An attack
that fails on both services says nothing, so ``control_broken`` tells whether it works at all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from attacks.ciphertext.bench import Bench
from attacks.ciphertext.channel import FALSE_ALARM
from attacks.ciphertext.complex_slots import complex_gain
from attacks.ciphertext.key_recovery import from_complex, from_real
from attacks.ciphertext.layouts import layout_gain, range_reach
from attacks.ciphertext.query_recovery import features_of, guess_classes
from attacks.ciphertext.slots import bias_recovery, slot_rank
from attacks.ciphertext.timing import THRESHOLD, compare_times
from attacks.ciphertext.weight_noise import NoiseRatio, noise_ratio

CLIENT = "client with its own key"
SERVER = "server that sees ciphertexts"
READER = "reader of released answers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much is asked: replies averaged, queries ranked, evaluations timed …"""

    replies: int = 100
    queries: int = 40
    noise_replies: int = 40
    timings: int = 300
    observed: int = 200


THOROUGH = Effort(replies=10_000, queries=80, noise_replies=200, timings=10_000, observed=600)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One attack's figures in words. ``control_broken``: whether it works where nothing defends,
    None where there is no such place. ``holds``: whether the service withstands it. ``residual``:
    what is left all the same."""

    name: str
    title: str
    threat_model: str
    reference: str
    control: str
    control_broken: bool | None
    defended: str
    holds: bool
    residual: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def run_suite(
    bench: Bench, effort: Effort, *, seed: int, tell: Callable[[str], None] | None = None
) -> list[Check]:
    """Run all of it; one generator for each attack, so that none changes another's draws."""
    found = []
    for index, attack in enumerate(ATTACKS):
        if tell is not None:
            tell(attack.__name__.removeprefix("_").replace("_", " "))
        found.append(attack(bench, effort, np.random.default_rng([seed, index])))
    return found


def _slot_rank(bench: Bench, effort: Effort, rng: np.random.Generator) -> Check:
    bad, good = (
        slot_rank(channel, queries=effort.queries, rng=rng)
        for channel in (bench.control, bench.defended)
    )
    return Check(
        name="slot-rank",
        title="Numbers in slots outside the reply",
        threat_model=CLIENT,
        reference="singular values above noise",
        control=f"rank {bad.all_slots}, logits {bad.logits}, of {bad.queries} queries",
        control_broken=bad.all_slots > bad.logits,
        defended=f"rank {good.all_slots}, logits {good.logits}, of {good.queries} queries",
        holds=good.all_slots == good.logits,
        residual="none found: those slots hold zeros or copies of the logits by construction",
    )


def _bias(bench: Bench, effort: Effort, rng: np.random.Generator) -> Check:
    bad = bias_recovery(bench.control, bench.bias, replies=1, rng=rng)
    good = bias_recovery(bench.defended, bench.bias, replies=effort.replies, rng=rng)
    return Check(
        name="bias-recovery",
        title="The last layer's bias read off a reply",
        threat_model=CLIENT,
        reference="median of silent slots",
        control=f"one reply: error {bad.error:.2g} of their spread, p = {bad.p_value:.2g}",
        control_broken=bad.recovered,
        defended=f"{good.replies:,} replies averaged: error {good.error:.2g} of their spread, "
        f"p = {good.p_value:.2g}, {good.places} silent slots",
        holds=not good.recovered and good.p_value > FALSE_ALARM,
        residual="a client may still ask about a record of zeros",
    )


def _complex(bench: Bench, effort: Effort, rng: np.random.Generator) -> Check:
    queries = max(8, effort.queries // 4)
    bad, good = (
        complex_gain(channel, queries=queries, rng=rng)
        for channel in (bench.control, bench.defended)
    )
    return Check(
        name="complex-queries",
        title="Two records in one slot, x + iy",
        threat_model=CLIENT,
        reference="imaginary parts above noise",
        control=f"{bad.numbers} numbers a slot (imaginary part {bad.ratio:.3g} × noise)",
        control_broken=bad.numbers == 2,
        defended=f"{good.numbers} number a slot (imaginary part {good.ratio:.3g} × noise)",
        holds=good.numbers == 1,
        residual="none: the conjugate is added before the reply leaves",
    )


def _layouts(bench: Bench, effort: Effort, rng: np.random.Generator) -> Check:
    gain = layout_gain(bench.defended, rng=rng)
    return Check(
        name="impossible-layouts",
        title="Queries that no record packs into",
        threat_model=CLIENT,
        reference="slots probed one by one",
        control="no layout is enforced anywhere: the server cannot see it",
        control_broken=None,
        defended=f"about {gain.free:,} numbers set at will where records set {gain.features:,}; "
        f"{gain.answers:,} answers either way",
        holds=True,
        residual="measured, not prevented: a query counts as what its ciphertexts can carry",
    )


def _range(bench: Bench, effort: Effort, rng: np.random.Generator) -> Check:
    reach = range_reach(bench.defended, bench.exact, rng=rng)
    return Check(
        name="out-of-range",
        title="Queries outside the calibrated range",
        threat_model=CLIENT,
        reference="range doubled until replies overflow",
        control="no range is enforced anywhere: the server cannot see it",
        control_broken=None,
        defended=f"answered within {reach.tolerance:.0%} up to {reach.reach:g} × the range",
        holds=True,
        residual="measured, not prevented: an adversary may choose points outside the data",
    )


def _noise(bench: Bench, effort: Effort, rng: np.random.Generator) -> Check:
    del rng
    zeros = np.zeros((bench.defended.inputs, bench.defended.slots), dtype=np.complex128)
    bad, good = (
        noise_ratio(*bench.alike(defended=defended), query=zeros, replies=effort.noise_replies)
        for defended in (False, True)
    )

    def words(found: NoiseRatio) -> str:
        return (
            f"variances differ by a factor of {found.ratio:.3f} [{found.low:.3f}, "
            f"{found.high:.3f}] over {found.replies} replies"
        )

    return Check(
        name="weight-noise",
        title="Weights in the noise of replies",
        threat_model=CLIENT,
        reference="Peng, arXiv:1906.07127",
        control=words(bad),
        control_broken=bad.differs,
        defended=words(good),
        holds=bool(abs(np.log(good.ratio)) < 0.1),
        residual="flooding hides it from who averages few replies; many show it again",
    )


def _shape(bench: Bench, effort: Effort, rng: np.random.Generator) -> Check:
    del rng
    shapes = bench.reply_shapes(max(4, effort.queries // 8))
    ((level, scale, size),) = shapes if len(shapes) == 1 else ((-1, 0.0, 0),)
    return Check(
        name="level-and-scale",
        title="Level, scale and size of replies",
        threat_model=CLIENT,
        reference="headers compared",
        control="a plan states all three in its specification",
        control_broken=None,
        defended=f"level {level}, scale 2^{np.log2(scale) if scale else 0:g}, {size:,} bytes for "
        "every query"
        if len(shapes) == 1
        else f"{len(shapes)} different shapes",
        holds=len(shapes) == 1 and level == 0 and float(np.log2(scale)).is_integer(),
        residual="depth and architecture are public: parameters and key steps tell them",
    )


def _capacity(bench: Bench, effort: Effort, rng: np.random.Generator) -> Check:
    del effort, rng
    control = 2 * bench.records_carried
    return Check(
        name="records-per-ciphertext",
        title="Records in one request against the budget",
        threat_model=CLIENT,
        reference="capacity of the layout",
        control=f"a budget of requests lets {control:,} records through for one",
        control_broken=True,
        defended=f"{bench.records_carried:,} records, charged as {bench.records_charged:,}",
        holds=bench.records_charged >= bench.records_carried,
        residual="a client that fills its queries badly pays for the empty places",
    )


def _timing(bench: Bench, effort: Effort, rng: np.random.Generator) -> Check:
    first, second = bench.timers()
    good = compare_times(first, second, samples=effort.timings, rng=rng)

    def slower() -> float:
        return second() * 1.25

    bad = compare_times(first, slower, samples=min(effort.timings, 600), rng=rng)
    return Check(
        name="timing",
        title="Weights in the time of an evaluation",
        threat_model=CLIENT,
        reference="Welch's t, as dudect",
        control=f"one of them 25 % slower: t = {bad.t:.1f} of {bad.samples:,}",
        control_broken=bad.differs,
        defended=f"two networks of one shape: t = {good.t:.1f} of {good.samples:,} "
        f"(threshold {THRESHOLD})",
        holds=not good.differs,
        residual="arithmetic is dense; caches and the machine's frequency are not controlled",
    )


def _key_recovery(bench: Bench, effort: Effort, rng: np.random.Generator) -> Check:
    del effort, rng
    pair = bench.seen(2)
    full, real = from_complex(pair[0]), from_real(pair)
    kept = from_complex(replace(pair[0], slots=bench.released(pair[0])))
    return Check(
        name="key-recovery",
        title="The client's secret key from its decryptions",
        threat_model=READER,
        reference="Li and Micciancio, ePrint 2020/1533",
        control=f"one complex decryption: {full.ternary:.0%} of the key; two real ones: "
        f"{real.ternary:.0%}",
        control_broken=full.is_key and real.is_key,
        defended=f"after release(): {kept.ternary:.2%} of coefficients even plausible",
        holds=not kept.is_key and kept.ternary < 0.01,
        residual="release() leaves equations with bounded errors, not a proof: give away few "
        "answers",
    )


def _query_recovery(bench: Bench, effort: Effort, rng: np.random.Generator) -> Check:
    envelopes, times, classes = bench.observed(effort.observed)
    guess = guess_classes(features_of(envelopes, times), classes, seed=int(rng.integers(1 << 31)))
    open_text = np.array([np.frombuffer(_telltale(c), dtype=np.uint8) for c in classes])
    control = guess_classes(open_text.astype(np.float64), classes, seed=0)
    return Check(
        name="query-recovery",
        title="The server guesses classes from sizes, times and bytes",
        threat_model=SERVER,
        reference="cross-validated logistic regression",
        control=f"envelopes that carried the class in a byte: {control.accuracy.value:.0%}",
        control_broken=control.better_than_chance,
        defended=f"{guess.accuracy.value:.1%} [{guess.accuracy.low:.1%}, "
        f"{guess.accuracy.high:.1%}] of {guess.queries}, chance {guess.chance:.1%}",
        holds=not guess.better_than_chance,
        residual="who asks, when and how often is visible",
    )


def _telltale(label: int) -> bytes:
    return bytes(int(label) == position for position in range(16))


ATTACKS = (
    _slot_rank,
    _bias,
    _complex,
    _layouts,
    _range,
    _noise,
    _shape,
    _capacity,
    _timing,
    _key_recovery,
    _query_recovery,
)
