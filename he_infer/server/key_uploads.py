"""Uploads of evaluation keys.

Keys arrive in pieces, in order. An upload is resumed where it broke off, and its keys can be used
only after they were checked as a whole.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from typing import Final

from sqlalchemy.engine import Connection

from he_infer.errors import HEInferError, MismatchError
from he_infer.plan.client_spec import ClientSpec
from he_infer.server.refusal import Refusal
from he_infer.server.settings import Settings
from he_infer.server.state import State, key_index
from he_infer.server.state.blobs import Blobs, MissingBlobError, keys_blob, part_blob
from he_infer.server.state.key_index import KeyName, UnknownKeysError, Upload
from he_infer.server.workers.hosting import Buffer, HostFacts, Task
from he_infer.server.workers.workers import Workers
from he_infer.wire import Expected, read_header
from he_infer.wire.protocol import DIGEST, UPLOAD

MAX_PIECES: Final = 4096  # a piece of one byte costs a row and a file
MAX_UPLOADS: Final = 8  # under way at a time, of each tenant
MAX_PIECE_BYTES: Final = 8 * 2**20
RANGE: Final = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15})")


class KeyUploads:
    """Stores evaluation keys per tenant; used from one event loop."""

    def __init__(self, state: State, workers: Workers, settings: Settings) -> None:
        self._database = state.database
        self._log = state.audit_log
        self._blobs: Blobs = state.blobs
        self._workers = workers
        self._settings = settings
        self._pins: Counter[str] = Counter()
        self._checking: Counter[str] = Counter()  # blobs that uploads wait on, by name

    # -- stored keys -----------------------------------------------------------------

    def name(self, facts: HostFacts, digest: str) -> KeyName:
        """What keys for a model are stored under; raises Refusal 400 for a malformed digest."""
        if not DIGEST.fullmatch(digest):
            raise Refusal(400, "malformed", "a key digest is 64 lower case hexadecimal digits")
        return facts.key_name(digest)

    async def known(self, facts: HostFacts, tenant: str, digest: str) -> bool:
        return await self._database.run(lambda c: self.find_in(c, facts, tenant, digest))

    def find_in(self, connection: Connection, facts: HostFacts, tenant: str, digest: str) -> bool:
        """``known``, in a transaction."""
        name = self.name(facts, digest)
        ttl_s = self._settings.key_ttl_s
        return key_index.find_keys(connection, tenant, name, now=time.time(), ttl_s=ttl_s)

    async def delete(self, facts: HostFacts, tenant: str, digest: str, request: str) -> None:
        """Forget keys; raises UnknownKeysError if there are none."""
        self.name(facts, digest)

        if not await self._forget(tenant, digest, "keys_deleted", request):
            raise UnknownKeysError

    async def lost(self, tenant: str, digest: str, request: str) -> None:
        """Forget keys whose bytes are gone or damaged, so that their client sends them again."""
        await self._forget(tenant, digest, "keys_lost", request)

    async def _forget(self, tenant: str, digest: str, event: str, request: str) -> bool:
        def forget(connection: Connection) -> bool:
            found = key_index.delete_keys(connection, tenant, digest)
            if found:
                fields = {"tenant": tenant, "keys": digest, "request": request}
                self._log.append(connection, event, fields, now=time.time())
            return found

        found = await self._database.run(forget)
        if found:
            await asyncio.to_thread(self._blobs.delete, keys_blob(tenant, digest))
        return found

    def pinned(self, digest: str) -> AbstractContextManager[None]:
        """Keep keys from being evicted while a query uses them."""
        return _counted(self._pins, digest)

    # -- uploads -----------------------------------------------------------------------

    async def begin(self, facts: HostFacts, tenant: str) -> Upload:
        """Reserve room for one model's keys; raises StoreFullError."""
        upload = Upload(
            id=secrets.token_hex(16),
            tenant=tenant,
            plan_digest=facts.plan_digest,
            bytes=facts.keys_bytes,
            received=0,
        )

        def reserve(connection: Connection) -> tuple[list[str], list[str]]:
            # Reservations cost nothing to make, so only so many are held at a time.
            pieces = key_index.drop_surplus(connection, tenant, most=MAX_UPLOADS - 1)
            leaving = key_index.make_room(
                connection,
                tenant,
                upload.bytes,
                quota_bytes=self._settings.key_quota_bytes,
                pinned=frozenset(self._pins),
            )
            key_index.begin_upload(connection, upload, now=time.time())
            return leaving, pieces

        leaving, pieces = await self._database.run(reserve)
        await asyncio.to_thread(self._delete_parts, pieces)
        for digest in leaving:
            await asyncio.to_thread(self._blobs.delete, keys_blob(tenant, digest))
        return upload

    async def find(self, facts: HostFacts, tenant: str, identity: str) -> Upload:
        """Raises Refusal 404 for an upload that is none of this tenant's for this model."""
        found = None
        if UPLOAD.fullmatch(identity):
            found = await self._database.run(lambda c: key_index.find_upload(c, tenant, identity))
        if found is None or found.plan_digest != facts.plan_digest:
            raise Refusal(404, "unknown_upload", "no such upload: it was finished, or is too old")
        return found

    async def append(self, facts: HostFacts, upload: Upload, start: int, piece: Buffer) -> int:
        """Store a piece that begins at ``start``; how many bytes of the whole are here then.

        Raises Refusal 416, NoRoomError, and WireError for a beginning that is not that of
        these keys, before any of it is stored.
        """
        if start != upload.received:
            raise out_of_order(upload.received)
        if start == 0:
            # The first bytes tell whether these are keys at all: nothing else may touch the
            # disk, a secret key posted by mistake least of all.
            _check_beginning(facts, piece)
        name = f"{upload.id}-{secrets.token_hex(8)}"
        await asyncio.to_thread(self._blobs.write, part_blob(name), [piece])

        def note(connection: Connection) -> int:
            if len(key_index.parts_of(connection, upload.id)) >= MAX_PIECES:
                raise Refusal(409, "too_many_pieces", "send larger pieces: begin a new upload")
            size = len(piece)
            if key_index.add_part(
                connection, upload, start=start, size=size, name=name, now=time.time()
            ):
                return start + size
            found = key_index.find_upload(connection, upload.tenant, upload.id)
            raise out_of_order(0 if found is None else found.received)

        try:
            return await self._database.run(note)
        except BaseException:
            await asyncio.to_thread(self._blobs.delete, part_blob(name))
            raise

    async def finish(self, facts: HostFacts, upload: Upload, digest: str, request: str) -> None:
        """Put the pieces together, check and load the whole, and only then let it be used.

        Raises MismatchError for another SHA-256, Refusal 416 if bytes are missing, WireError
        or BackendError for keys that are unusable; these end the upload.
        """
        name = self.name(facts, digest)
        if upload.received != upload.bytes:
            raise out_of_order(upload.received)
        pieces = await self._database.run(lambda c: key_index.parts_of(c, upload.id))
        target = keys_blob(upload.tenant, digest)
        already = await self.known(facts, upload.tenant, digest)
        try:
            # The index may outlive the bytes, as in a restored database.
            if not already or await asyncio.to_thread(self._blobs.size, target) != upload.bytes:
                async with self._checked_in_place(target, facts, upload.tenant, digest):
                    await asyncio.to_thread(self._join, target, pieces, digest)
                    task = Task(
                        plan_digest=facts.plan_digest, tenant=upload.tenant, keys_digest=digest
                    )
                    await self._workers.ask(task)
        except (HEInferError, Refusal) as error:
            if not (isinstance(error, Refusal) and error.status in (503, 507)):
                await self.abandon(upload)
            raise

        def note(connection: Connection) -> None:
            now = time.time()
            key_index.end_upload(connection, upload.id)
            if not already:
                key_index.add_keys(connection, upload.tenant, name, upload.bytes, now=now)
                fields = {"tenant": upload.tenant, "keys": digest, "request": request}
                fields["model"] = facts.name
                self._log.append(connection, "keys_stored", fields, now=now)

        await self._database.run(note)
        await asyncio.to_thread(self._delete_parts, pieces)

    @asynccontextmanager
    async def _checked_in_place(
        self, target: str, facts: HostFacts, tenant: str, digest: str
    ) -> AsyncIterator[None]:
        """Delete what was put under ``target`` if its check fails.

        A worker reads keys under their final name; the index says when they exist. Another
        upload of the same bytes may have been noted there meanwhile, or be waiting for its own
        check: then they stay.
        """
        with _counted(self._checking, target):
            try:
                yield
            except BaseException:
                alone = self._checking[target] == 1
                if alone and not await self.known(facts, tenant, digest):
                    await asyncio.to_thread(self._blobs.delete, target)
                raise

    async def abandon(self, upload: Upload) -> None:
        """Give an upload up and delete its pieces."""
        pieces = await self._database.run(lambda c: key_index.end_upload(c, upload.id))
        await asyncio.to_thread(self._delete_parts, pieces)

    async def sweep(self) -> None:
        """Delete what nobody used for its time to live."""
        now = time.time()
        settings = self._settings

        def expire(connection: Connection) -> tuple[list[tuple[str, str]], list[str]]:
            return (
                key_index.expired_keys(connection, before=now - settings.key_ttl_s),
                key_index.expired_uploads(connection, before=now - settings.upload_ttl_s),
            )

        gone, pieces = await self._database.run(expire)
        for tenant, digest in gone:
            await asyncio.to_thread(self._blobs.delete, keys_blob(tenant, digest))
        await asyncio.to_thread(self._delete_parts, pieces)

    def _join(self, target: str, pieces: list[str], digest: str) -> None:
        """Write the pieces under their final name; raises MismatchError, and then nothing is."""
        found = hashlib.sha256()

        def chunks() -> Iterator[bytes]:
            for piece in pieces:
                for block in self._blobs.read(part_blob(piece)):
                    found.update(block)
                    yield block
            if found.hexdigest() != digest:  # before the blob appears
                raise MismatchError(
                    "the keys' SHA-256 is not the one in the address: send them again"
                )

        try:
            self._blobs.write(target, chunks())
        except MissingBlobError as error:
            raise MismatchError("a piece of this upload was lost: send the keys again") from error

    def _delete_parts(self, pieces: list[str]) -> None:
        for piece in pieces:
            self._blobs.delete(part_blob(piece))


@contextmanager
def _counted(counter: Counter[str], name: str) -> Iterator[None]:
    """Count ``name`` once more for the duration."""
    counter[name] += 1
    try:
        yield
    finally:
        counter[name] -= 1
        if not counter[name]:
            del counter[name]


def out_of_order(received: int) -> Refusal:
    """The refusal of what does not begin where the last piece ended."""
    text = f"{received} bytes are here: go on from there"
    return Refusal(416, "out_of_order", text, received=received)


def parse_range(text: str | None, *, total: int) -> tuple[int, int]:
    """(first byte, bytes) of a Content-Range; raises Refusal 400."""
    match = RANGE.fullmatch(text or "")
    if match is None:
        raise Refusal(400, "malformed", "a piece needs Content-Range: bytes FIRST-LAST/TOTAL")
    first, last, stated = (int(number) for number in match.groups())
    if stated != total or not first <= last < total:
        raise Refusal(400, "wrong_length", f"these keys have exactly {total} bytes")
    if last - first >= MAX_PIECE_BYTES:
        raise Refusal(413, "too_large", f"a piece has at most {MAX_PIECE_BYTES} bytes")
    return first, last - first + 1


def _check_beginning(facts: HostFacts, beginning: Buffer) -> None:
    header = read_header(beginning)
    spec = ClientSpec.from_json(facts.spec)
    Expected.evaluation_keys(spec.params, spec.key_levels).check(header)
