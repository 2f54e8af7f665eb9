"""The demonstration's output: digits in half blocks, and the figures beside them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

MOST_COLUMNS: Final = 14
INK: Final = 0.35  # of the brightest pixel
_BLOCKS: Final = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One image: its label, both predictions, the largest logit error, milliseconds in all."""

    label: int
    predicted: int
    plaintext: int
    max_error: float
    total_ms: float
    evaluate_ms: float
    picture: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Batched:
    """One query of many images. ``images_per_s`` counts encryption to decryption."""

    images: int
    capacity: int
    agreement: float
    accuracy: float
    max_error: float
    total_s: float
    evaluate_s: float
    images_per_s: float
    images_per_s_evaluated: float
    upload_bytes: int
    download_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoReport:
    """Everything that was measured.

    ``inference_agreement``: share of *all* encrypted answers, single and batched, whose label
    is the plaintext network's.
    """

    model: str
    n: int
    log_qp: float
    security_bits: int
    keygen_ms: float
    upload_keys_ms: float
    inference_agreement: float
    accuracy: float
    max_error: float
    median_ms: float
    median_evaluate_ms: float
    query_bytes: int
    reply_bytes: int
    answers: tuple[Answered, ...]
    batch: Batched | None

    def to_json(self) -> dict[str, Any]:
        fields = dataclasses.asdict(self)
        for answer in fields["answers"]:
            del answer["picture"]
        return fields


def draw_digit(image: NDArray[np.uint8]) -> str:
    """An (H, W) image as lines of half blocks, two pixel rows a line, at most 14 columns wide."""
    shrink = -(-image.shape[1] // MOST_COLUMNS)
    height, width = (side // shrink * shrink for side in image.shape)
    pooled = (
        image[:height, :width]
        .reshape(height // shrink, shrink, width // shrink, shrink)
        .mean(axis=(1, 3))
    )
    inked = pooled > INK * max(1.0, float(pooled.max()))
    if len(inked) % 2:
        inked = np.vstack([inked, np.zeros((1, inked.shape[1]), dtype=bool)])
    return "\n".join(
        "".join(_BLOCKS[bool(top), bool(bottom)] for top, bottom in zip(*rows, strict=True))
        for rows in zip(inked[::2], inked[1::2], strict=True)
    )


def render(report: DemoReport) -> str:
    """The report for a terminal: one block per image, then the batch, then the summary."""
    lines = [
        f"{report.model}: N = {report.n}, log2(QP) = {report.log_qp:.0f} bits, "
        f"{report.security_bits}-bit security",
        f"keys made in {report.keygen_ms:.0f} ms, uploaded in {report.upload_keys_ms:.0f} ms; "
        f"a query is {report.query_bytes / 1e3:.0f} kB, a reply {report.reply_bytes / 1e3:.0f} kB",
        "",
    ]
    for answer in report.answers:
        facts = [
            f"encrypted  {answer.predicted}",
            f"plaintext  {answer.plaintext}",
            f"label      {answer.label}",
            f"error      {answer.max_error:.1e}",
            f"time       {answer.total_ms:.0f} ms ({answer.evaluate_ms:.0f} ms on the server)",
        ]
        picture = answer.picture.splitlines()
        width = max(len(line) for line in picture)
        for row in range(max(len(picture), len(facts))):
            left = picture[row] if row < len(picture) else ""
            right = facts[row] if row < len(facts) else ""
            lines.append(f"  {left.ljust(width)}   {right}".rstrip())
        lines.append("")
    if report.batch is not None:
        b = report.batch
        lines += [
            f"{b.images} images in one query (room for {b.capacity}): {b.total_s:.1f} s, "
            f"{b.images_per_s:.0f} images/s in all, {b.images_per_s_evaluated:.0f} images/s on "
            f"the server; {b.upload_bytes / 1e6:.0f} MB up, {b.download_bytes / 1e6:.2f} MB down",
            f"  agreement with plaintext {b.agreement:.2%}, accuracy {b.accuracy:.2%}",
            "",
        ]
    lines += [
        f"median time per single query  {report.median_ms:.0f} ms "
        f"({report.median_evaluate_ms:.0f} ms on the server)",
        f"largest logit error           {report.max_error:.1e}",
        f"inference agreement           {report.inference_agreement:.2%} with the plaintext "
        "network",
    ]
    return "\n".join(lines)
