"""What the server does to a reply before it leaves: the steps drawn in ``privacy``.

With ``batch`` records a query, slot = feature slot · batch + record. A record's factor is the
same in all its feature slots, so zeros stay zeros and copies stay copies. Its shift goes to the
outputs and their copies only: in a slot that holds nothing else the client would read it.

    batch = 2, outputs y0 y1        y0a y0b y1a y1b  0   0   0   0    | y0a y0b …
    factors                         ra  rb  ra  rb  ra  rb  ra  rb    | ra  rb  …
    shifts                          ta  tb  ta  tb   0   0   0   0    | ta  tb  …
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from he_infer.plan import ir
from he_infer.plan.ir import FloatArray
from he_infer.plan.plan import Plan, by_slot
from he_infer.plan.privacy import flooding_bits, noise_bound
from he_infer.runtime.backends.base import Backend, C, P


def sanitise(
    backend: Backend[C, P], plan: Plan, replies: Sequence[C], masks: Sequence[C]
) -> list[C]:
    """Leave the outputs in the ciphertexts of a reply, and as little else as possible.

    ``masks``: of ``make_masks``, added to this reply and to no other.
    """
    perturbed = _shift(backend, plan, _real_parts(backend, plan, _scale(backend, plan, replies)))
    if not masks:
        return list(perturbed)
    return [backend.add(c, mask) for c, mask in zip(perturbed, masks, strict=True)]


def make_masks(backend: Backend[C, P], plan: Plan) -> list[C]:
    """Fresh encryptions of zero with flooding and noise, one for each ciphertext of a reply.

    They depend on no query, so they can be made before it comes. None for a plan without flooding.
    """
    privacy, scale, n = plan.privacy, plan.reply_scale, plan.params.n
    if not privacy.flooding_std:
        return []

    def flood(mask: C) -> C:
        bound = 1 << flooding_bits(n, privacy.flooding_std, scale)
        mask = backend.flood(mask, bound, period=plan.params.slots)
        if privacy.noise_std:
            period = plan.reply_period
            noise = noise_bound(period, privacy.noise_std, scale)
            mask = backend.flood(mask, noise, period=period)
        return mask

    name = plan.graph.output.name
    level, count = plan.placed[name].level, plan.packing.layouts[name].ciphertexts
    zeros = [backend.encrypt_zero(level=level, scale=scale) for _ in range(count)]
    return backend.each(flood, zeros)


def _scale(backend: Backend[C, P], plan: Plan, replies: Sequence[C]) -> Sequence[C]:
    """One factor for a record in all ciphertexts; the conjugate comes after, which saves noise."""
    spread = plan.privacy.scaling
    if spread == 1:
        return replies
    factors = spread ** (2 * backend.draw(plan.batch) - 1)
    plain = backend.encode(
        _of_records(factors, plan),
        level=backend.level(replies[0]),
        scale=2.0 ** plan.privacy.factor_bits(plan.batch),
    )
    return backend.each(lambda c: backend.multiply_plain(c, plain), replies)


def _real_parts(backend: Backend[C, P], plan: Plan, replies: Sequence[C]) -> Sequence[C]:
    if not plan.privacy.real_part:
        return replies
    return backend.each(backend.real_part, replies)


def _shift(backend: Backend[C, P], plan: Plan, replies: Sequence[C]) -> Sequence[C]:
    radius = plan.privacy.shift
    if not radius:
        return replies
    shifts = _of_records(radius * (2 * backend.draw(plan.batch) - 1), plan)
    layout = plan.packing.layouts[plan.graph.output.name]
    outputs = by_slot(np.ones(ir.features(plan.graph.output)), layout)  # (ciphertexts, period)
    shifted = []
    for reply, mask in zip(replies, outputs, strict=True):
        places = np.repeat(np.tile(mask, layout.slots // layout.period), plan.batch)
        plain = backend.encode(
            places * shifts, level=backend.level(reply), scale=backend.scale(reply)
        )
        shifted.append(backend.add_plain(reply, plain))
    return shifted


def _of_records(values: FloatArray, plan: Plan) -> FloatArray | float:
    """(batch,) numbers → all slots, or the one number where a query has one record."""
    if plan.batch == 1:
        return float(values[0])
    return np.tile(values, plan.params.slots // plan.batch)
