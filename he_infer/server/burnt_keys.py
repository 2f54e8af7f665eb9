"""Recognises a posted TenSEAL or SEAL object, which may carry the client's secret key."""

from __future__ import annotations

from typing import Final

PEEK_BYTES: Final = 4096
# SEAL's header: magic 0xA15E little-endian, header size 16, major version 3 or 4. TenSEAL's
# protobuf messages hold such an object within their first fields.
_SEAL_HEADERS: Final = (b"\x5e\xa1\x10\x03", b"\x5e\xa1\x10\x04")


def looks_like_seal(beginning: bytes) -> bool:
    """Whether the first bytes hold the header of a SEAL object, bare or inside a TenSEAL one.

    Ask it of bytes that were refused already: four bytes may also occur in sound ciphertexts.
    """
    return any(header in beginning[:PEEK_BYTES] for header in _SEAL_HEADERS)
