"""The client for asynchronous programs. It runs a ``Client`` in a thread, one call at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self, TypeVar

from numpy.typing import ArrayLike

from he_infer.client.client import Client, Prediction
from he_infer.plan.client_spec import ClientSpec

T = TypeVar("T")


class AsyncClient:
    """The calls of a :class:`~he_infer.client.client.Client`, to be awaited.

    The event loop is free while a record is encrypted or a server is waited for. Calls of one
    client follow each other, and several clients work at the same time.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._turn = asyncio.Lock()

    @classmethod
    async def connect(
        cls, server: str, *, model: str, open_client: Callable[..., Client] = Client.connect
    ) -> Self:
        """Connect with :meth:`Client.connect`, or ``functools.partial`` of it with options."""
        return cls(await asyncio.to_thread(open_client, server, model=model))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def spec(self) -> ClientSpec:
        return self._client.spec

    async def predict(self, records: ArrayLike) -> Prediction:
        return await self._run(lambda: self._client.predict(records))

    async def upload_keys(self) -> bool:
        return await self._run(self._client.upload_keys)

    async def delete_keys(self) -> bool:
        return await self._run(self._client.delete_keys)

    async def close(self) -> None:
        await self._run(self._client.close)

    async def _run(self, work: Callable[[], T]) -> T:
        async with self._turn:
            running = asyncio.ensure_future(asyncio.to_thread(work))
            try:
                return await asyncio.shield(running)
            except asyncio.CancelledError:
                # The thread cannot be stopped, and the client belongs to it until it ends.
                await asyncio.wait({running})
                raise
