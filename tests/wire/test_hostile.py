"""Every file of the hostile corpus is refused with the error that its manifest names."""

from __future__ import annotations

import json
import time
import tracemalloc
from typing import Any

import pytest

from he_infer import wire
from he_infer.errors import WireError
from he_infer.params import CKKSParams
from tests.paths import HOSTILE

FOLDER = HOSTILE
MANIFEST: dict[str, Any] = json.loads((FOLDER / "manifest.json").read_text())
FILES: list[dict[str, Any]] = MANIFEST["files"]
MOST_SECONDS = 0.05
MOST_BYTES = 1 << 20


def _expected(direction: str) -> wire.Expected:
    stated = MANIFEST["expected"]
    params = CKKSParams.from_json(stated["params"])
    make = wire.Expected.query if direction == "client to server" else wire.Expected.reply
    return make(
        params,
        plan_digest=stated["plan_digest"],
        keys_digest=stated["keys_digest"],
        count=stated["count"],
        scale=stated["scale"],
    )


def test_the_manifest_lists_every_file() -> None:
    assert {file["name"] for file in FILES} == {path.name for path in FOLDER.glob("*.bin")}
    assert {file["direction"] for file in FILES} == {"client to server", "server to client"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file["name"]))
def test_hostile_file_is_refused(file: dict[str, Any]) -> None:
    data = (FOLDER / file["name"]).read_bytes()
    assert len(data) == file["bytes"]
    expected = _expected(file["direction"])
    # The best of three: what is bounded is the work, not what else the machine does.
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        with pytest.raises(WireError) as caught:
            wire.read_envelope(data, expected)
        seconds.append(time.perf_counter() - start)
        assert type(caught.value).__name__ == file["error"]
    assert min(seconds) < MOST_SECONDS
    tracemalloc.start()
    try:
        with pytest.raises(WireError):
            wire.read_envelope(data, expected)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MOST_BYTES


def test_a_posted_secret_is_recognised_without_parsing() -> None:
    secret = (FOLDER / "query_tenseal_context_with_secret.bin").read_bytes()
    public = (FOLDER / "query_tenseal_context_public.bin").read_bytes()
    sealed = (FOLDER / "query_seal_zstd.bin").read_bytes()
    for context in (secret, public):
        assert wire.looks_like_tenseal_context(context[:16])
        assert not wire.looks_like_seal_object(context)
        with pytest.raises(WireError, match="burnt"):
            wire.read_header(context)
    assert wire.carries_secret_key(secret)
    assert not wire.carries_secret_key(public)
    assert wire.looks_like_seal_object(sealed) and wire.carries_secret_key(sealed)
    ours = (FOLDER / "query_truncated.bin").read_bytes()
    assert not wire.looks_like_tenseal_context(ours) and not wire.carries_secret_key(ours)
    for short in (b"", b"\x0a", b"\x0a\xff" * 20, b"\x5e\xa1"):
        assert not wire.looks_like_tenseal_context(short)
        assert not wire.carries_secret_key(short)
