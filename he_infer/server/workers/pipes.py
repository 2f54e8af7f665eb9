"""Messages between the HTTP process and its workers: a JSON head and bytes, over a socket pair.

    message := head length (4, big endian) · body length (8) · head · body

Both ends are ours, but a worker has read hostile bytes, so the other end limits what it takes.
Nothing is pickled.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Mapping
from typing import Any, Final

_LENGTHS: Final = struct.Struct(">IQ")
MAX_HEAD_BYTES: Final = 64 * 1024 * 1024  # client specs of large layouts
Message = tuple[dict[str, Any], bytes]


class BrokenPipeMessageError(Exception):
    """The other end has gone, or does not keep to the format."""


def encode(head: Mapping[str, Any], body: bytes | bytearray | memoryview = b"") -> bytes:
    text = json.dumps(head).encode()
    return b"".join((_LENGTHS.pack(len(text), len(body)), text, body))


def send(connection: socket.socket, head: Mapping[str, Any], body: bytes = b"") -> None:
    connection.sendall(encode(head, body))


def receive(connection: socket.socket, *, most_bytes: int) -> Message | None:
    """The next message; None at the end. Raises BrokenPipeMessageError."""
    lengths = _exactly(connection, _LENGTHS.size, may_end=True)
    if lengths is None:
        return None
    head_bytes, body_bytes = _checked(lengths, most_bytes)
    head, body = _exactly(connection, head_bytes), _exactly(connection, body_bytes)
    assert head is not None and body is not None
    return _object(head), body


async def receive_async(reader: asyncio.StreamReader, *, most_bytes: int) -> Message:
    """The next message; raises BrokenPipeMessageError, also at the end."""
    try:
        head_bytes, body_bytes = _checked(await reader.readexactly(_LENGTHS.size), most_bytes)
        head = await reader.readexactly(head_bytes)
        return _object(head), await reader.readexactly(body_bytes)
    except (asyncio.IncompleteReadError, OSError) as error:
        raise BrokenPipeMessageError from error


def _checked(lengths: bytes, most_bytes: int) -> tuple[int, int]:
    head_bytes, body_bytes = _LENGTHS.unpack(lengths)
    if head_bytes > MAX_HEAD_BYTES or body_bytes > most_bytes:
        raise BrokenPipeMessageError
    return head_bytes, body_bytes


def _exactly(connection: socket.socket, size: int, *, may_end: bool = False) -> bytes | None:
    data = bytearray(size)
    view, filled = memoryview(data), 0
    while filled < size:
        try:
            count = connection.recv_into(view[filled:])
        except OSError as error:
            raise BrokenPipeMessageError from error
        if count == 0:
            if may_end and filled == 0:
                return None
            raise BrokenPipeMessageError
        filled += count
    return bytes(data)


def _object(head: bytes) -> dict[str, Any]:
    try:
        found = json.loads(head)
    except ValueError as error:
        raise BrokenPipeMessageError from error
    if not isinstance(found, dict):
        raise BrokenPipeMessageError
    return found
