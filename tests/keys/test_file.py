"""The key file: authenticated to the last byte, private on disk, cheap to refuse."""

from __future__ import annotations

import os
import stat
import struct
import time
from pathlib import Path

import pytest

from he_infer.errors import KeyFileError
from he_infer.keys import file as keyfile
from he_infer.keys.file import Argon2idCost, Contents, PassphraseCost, ScryptCost
from he_infer.params import CKKSParams

PARAMS = CKKSParams.from_bits(4096, [30], special_bits=31)
CONTENTS = Contents(params=PARAMS, secret=bytes(range(64)))
CHEAP = Argon2idCost(memory_kib=8, passes=1, lanes=1)
COST_OFFSET = 12


@pytest.mark.parametrize("cost", [CHEAP, ScryptCost(log2_n=4, block_size=1)])
def test_round_trip_and_wrong_passphrase(cost: PassphraseCost) -> None:
    data = keyfile.seal(CONTENTS, "pass", cost=cost)
    assert keyfile.unseal(data, "pass") == CONTENTS
    assert CONTENTS.secret not in data
    with pytest.raises(KeyFileError, match="wrong passphrase"):
        keyfile.unseal(data, "Pass")
    assert data != keyfile.seal(CONTENTS, "pass", cost=cost)


@pytest.mark.parametrize("mask", [0x01, 0x80])
def test_every_flipped_byte_is_refused(mask: int) -> None:
    data = keyfile.seal(CONTENTS, "pass", cost=CHEAP)
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= mask
        with pytest.raises(KeyFileError):
            keyfile.unseal(bytes(changed), "pass")


def test_every_truncation_and_extension_is_refused() -> None:
    data = keyfile.seal(CONTENTS, "pass", cost=CHEAP)
    for length in range(len(data)):
        with pytest.raises(KeyFileError):
            keyfile.unseal(data[:length], "pass")
    with pytest.raises(KeyFileError, match="damaged"):
        keyfile.unseal(data + b"\0", "pass")


def test_another_version_names_the_remedy() -> None:
    data = bytearray(keyfile.seal(CONTENTS, "pass", cost=CHEAP))
    struct.pack_into("<H", data, 8, 7)
    with pytest.raises(KeyFileError, match="version 1, got 7"):
        keyfile.unseal(bytes(data), "pass")


@pytest.mark.parametrize(
    ("function", "numbers"),
    [
        (1, (2**32 - 1, 3, 4)),
        (1, (64 * 1024, 2**32 - 1, 4)),
        (1, (64 * 1024, 3, 2**20)),
        (2, (40, 8, 1)),
        (2, (2**32 - 1, 8, 1)),
        (2, (18, 2**30, 1)),
        (2, (18, 8, 2**30)),
    ],
)
def test_a_passphrase_cost_bomb_is_refused_before_any_work(
    function: int, numbers: tuple[int, int, int]
) -> None:
    data = bytearray(keyfile.seal(CONTENTS, "pass", cost=CHEAP))
    data[10] = function
    struct.pack_into("<3I", data, COST_OFFSET, *numbers)
    # The best of three: what is bounded is the work, not what else the machine does.
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        with pytest.raises(KeyFileError, match="cost is out of range"):
            keyfile.unseal(bytes(data), "pass")
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.05


def test_the_recommended_cost_is_the_documented_one() -> None:
    assert keyfile.recommended_cost() in (
        Argon2idCost(memory_kib=65536, passes=3, lanes=4),
        ScryptCost(log2_n=18, block_size=8, parallelism=1),
    )


def test_files_are_private_and_never_overwritten_by_accident(tmp_path: Path) -> None:
    path = tmp_path / "new" / "client.key"
    keyfile.write(path, CONTENTS, "pass", cost=CHEAP, overwrite=False)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    before = path.read_bytes()
    with pytest.raises(KeyFileError, match="exists"):
        keyfile.write(path, CONTENTS, "other", cost=CHEAP, overwrite=False)
    assert path.read_bytes() == before
    keyfile.write(path, CONTENTS, "other", cost=CHEAP, overwrite=True)
    assert keyfile.read(path, "other") == CONTENTS
    assert os.listdir(path.parent) == ["client.key"]


def test_loose_permissions_and_odd_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "client.key"
    keyfile.write(path, CONTENTS, "pass", cost=CHEAP, overwrite=False)
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match="chmod 600"):
        keyfile.read(path, "pass")
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(KeyFileError, match="not a regular file"):
        keyfile.read(tmp_path / "pipe", "pass")
    with pytest.raises(KeyFileError, match="cannot open"):
        keyfile.read(tmp_path / "absent", "pass")
    with pytest.raises(KeyFileError, match="empty"):
        keyfile.seal(CONTENTS, "", cost=CHEAP)
    assert "secret" not in repr(CONTENTS)
