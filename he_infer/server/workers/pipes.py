"""How messages travel between processes: a JSON head and bytes, over a socket pair.

    message := head length (4, big endian) · body length (8) · head · body

Both ends are ours. A worker has read hostile bytes, though, so the other end limits what it takes.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from typing import Any, Final

from he_infer.server.workers.dialogue import Message
from he_infer.server.workers.hosting import Buffer

_LENGTHS: Final = struct.Struct(">IQ")
MAX_HEAD_BYTES: Final = 64 * 1024 * 1024  # client specs of large layouts


class BrokenPipeMessageError(Exception):
    """The other end has gone, or does not keep to the format."""


def encode(message: Message) -> tuple[bytes, Buffer]:
    """The two parts of a message, to be sent one after the other."""
    head, body = message
    text = json.dumps(head).encode()
    return _LENGTHS.pack(len(text), len(body)) + text, body


def send(connection: socket.socket, message: Message) -> None:
    for part in encode(message):
        connection.sendall(part)


def receive(connection: socket.socket, *, most_bytes: int) -> Message | None:
    """The next message; None at the end. Raises BrokenPipeMessageError."""
    lengths = _exactly(connection, _LENGTHS.size, may_end=True)
    if not lengths:
        return None
    head_bytes, body_bytes = _checked(lengths, most_bytes)
    return _object(_exactly(connection, head_bytes)), _exactly(connection, body_bytes)


async def receive_async(reader: asyncio.StreamReader, *, most_bytes: int) -> Message:
    """The next message; raises BrokenPipeMessageError, also at the end."""
    try:
        head_bytes, body_bytes = _checked(await reader.readexactly(_LENGTHS.size), most_bytes)
        head = await reader.readexactly(head_bytes)
        return _object(head), await reader.readexactly(body_bytes)
    except (asyncio.IncompleteReadError, OSError) as error:
        raise BrokenPipeMessageError from error


def _checked(lengths: Buffer, most_bytes: int) -> tuple[int, int]:
    head_bytes, body_bytes = _LENGTHS.unpack(lengths)
    if head_bytes > MAX_HEAD_BYTES or body_bytes > most_bytes:
        raise BrokenPipeMessageError
    return head_bytes, body_bytes


def _exactly(connection: socket.socket, size: int, *, may_end: bool = False) -> bytearray:
    """So many bytes; none at the end, if there may be an end here."""
    data = bytearray(size)
    view, filled = memoryview(data), 0
    while filled < size:
        try:
            count = connection.recv_into(view[filled:])
        except OSError as error:
            raise BrokenPipeMessageError from error
        if count == 0:
            if may_end and filled == 0:
                return bytearray()
            raise BrokenPipeMessageError
        filled += count
    return data


def _object(head: bytes | bytearray) -> dict[str, Any]:
    try:
        found = json.loads(head)
    except ValueError as error:
        raise BrokenPipeMessageError from error
    if not isinstance(found, dict):
        raise BrokenPipeMessageError
    return found
