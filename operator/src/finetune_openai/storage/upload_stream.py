"""A stream of bytes into an object of the storage, by a multipart upload, with bounded memory."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib

import structlog

from finetune_openai.errors import RefusedError
from finetune_openai.storage.s3 import Storage

PART_BYTES = 8 * 2**20
PARTS_AT_ONCE = 4
_log = structlog.get_logger(__name__)


class UploadStream:
    """Write to it, then `finish`. Leaving the context without that removes every part."""

    def __init__(self, storage: Storage, key: str) -> None:
        self._storage = storage
        self._key = key
        self._upload: str | None = None
        self._buffer = bytearray()
        self._parts: list[asyncio.Task[str]] = []
        self._few = asyncio.Semaphore(PARTS_AT_ONCE)
        self._hash = hashlib.sha256()
        self._finished = False
        self.bytes = 0

    async def __aenter__(self) -> UploadStream:
        self._upload = await self._storage.begin_upload(self._key)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._finished or self._upload is None:
            return
        # Also where this task is cancelled, since its client is gone: the parts go first, then the upload.
        await asyncio.shield(asyncio.ensure_future(self._abort(self._upload)))

    @property
    def sha256(self) -> str:
        """Of what was written."""
        return self._hash.hexdigest()

    async def write(self, piece: bytes) -> None:
        """The next bytes. Waits while the storage is slower than the client. Raises RefusedError (503)."""
        self.bytes += len(piece)
        self._buffer += piece
        if len(self._buffer) >= PART_BYTES:
            await self._send()

    async def finish(self) -> None:
        """Make the object. Raises RefusedError (503)."""
        assert self._upload is not None
        if self._buffer or not self._parts:
            await self._send()
        etags = list(await asyncio.gather(*self._parts))
        await self._storage.complete_upload(self._key, self._upload, etags)
        self._finished = True

    async def _send(self) -> None:
        assert self._upload is not None
        for part in self._parts:
            if part.done():
                part.result()  # A part that failed ends the upload at once.
        content, self._buffer = self._buffer, bytearray()
        await self._few.acquire()
        number, upload = len(self._parts) + 1, self._upload

        async def send() -> str:
            try:
                return await self._storage.upload_part(self._key, upload, number, content)
            finally:
                self._few.release()

        self._parts.append(asyncio.create_task(send()))
        await asyncio.get_running_loop().run_in_executor(None, self._hash.update, content)

    async def _abort(self, upload: str) -> None:
        await asyncio.gather(*self._parts, return_exceptions=True)
        with contextlib.suppress(RefusedError):
            await self._storage.abort_upload(self._key, upload)
            return
        _log.warning("the parts of a broken upload stay in the storage", key=self._key)
