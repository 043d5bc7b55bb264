"""The files of the API, in the class's storage: `<prefix>/<namespace>/FILES/<id>/content.jsonl`, and `file.json`.

A file exists when its file.json does, which is written last. No object of Kubernetes has a name in capitals, so the
folder is no job's. Ids ascend with the time, so that a listing of keys is in order.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import time
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, ValidationError

from finetune_openai.errors import RefusedError, not_found
from finetune_openai.pagination import Page
from finetune_openai.storage.s3 import Storage
from finetune_openai.storage.upload_stream import UploadStream

FILE_ID = re.compile(r"file-[0-9a-z]{24}")
CONTENT, RECORD = "content.jsonl", "file.json"
RETRY_SECONDS = 900.0
"""So long after a request its repetition is taken for one: a client waits for ten minutes before it tries again."""
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_READS_AT_ONCE = 16


class StoredFile(BaseModel):
    """file.json."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: str
    filename: str
    purpose: str
    bytes: int
    sha256: str
    created_at: int
    expires_at: int | None = None

    def body(self) -> dict[str, object]:
        """The file, as the API shows it."""
        shown = self.model_dump(exclude={"sha256"})
        return {**shown, "object": "file", "status": "processed", "status_details": None}


class FileStore:
    """The files of one namespace."""

    def __init__(self, storage: Storage, folder: str) -> None:
        self._storage = storage
        self._folder = folder

    def uri(self, file_id: str) -> str:
        """Where jobs read the file."""
        return f"s3://{self._storage.bucket}/{self._key(file_id, CONTENT)}"

    def begin(self, file_id: str | None = None) -> tuple[str, UploadStream]:
        """A file's id, a new one if none is given, and where its content goes."""
        file_id = file_id or new_id("file-")
        return file_id, UploadStream(self._storage, self._key(file_id, CONTENT))

    async def add(self, file: StoredFile, caller: str, *, is_retry: bool) -> StoredFile:
        """Let a file exist whose content is there. The same upload, sent again for a lost answer, is the same file."""
        same = hashlib.sha256(f"{caller}\n{file.filename}\n{file.purpose}\n{file.sha256}".encode()).hexdigest()
        mark = f"{self._folder}/RETRIES/{same}"
        if is_retry:
            earlier = await self._storage.read(mark)
            found = await self.find(earlier.decode(errors="replace")) if earlier is not None else None
            if found is not None and time.time() - found.created_at < RETRY_SECONDS:
                await self._storage.delete(self._key(file.id, CONTENT))
                return found
        await self._storage.write(self._key(file.id, RECORD), file.model_dump_json().encode())
        await self._storage.write(mark, file.id.encode())
        return file

    async def find(self, file_id: str) -> StoredFile | None:
        """The file of this id; None when there is none."""
        if not FILE_ID.fullmatch(file_id):
            return None
        content = await self._storage.read(self._key(file_id, RECORD))
        try:
            file = None if content is None else StoredFile.model_validate_json(content)
        except ValidationError:
            return None
        if file is None or (file.expires_at is not None and file.expires_at <= time.time()):
            return None
        return file

    async def get(self, file_id: str, param: str | None = "id") -> StoredFile:
        """The file of this id. Raises RefusedError (404)."""
        found = await self.find(file_id)
        if found is None:
            raise not_found("File object", file_id, param)
        return found

    async def page(self, page: Page, purpose: str | None, *, ascending: bool) -> tuple[list[StoredFile], bool]:
        """A page of the files, newest first, and whether others follow. Raises RefusedError."""
        keys = [item.key for item in await self._storage.objects(f"{self._folder}/FILES/file-")]
        ids = sorted({key.split("/")[-2] for key in keys if key.endswith(f"/{RECORD}")}, reverse=not ascending)
        if purpose is None:
            # Only those of the page are read.
            ids, has_more = page.cut(ids, str)
            return await self._read_all(ids), has_more
        files = [file for file in await self._read_all(ids) if file.purpose == purpose]
        return page.cut(files, lambda file: file.id)

    async def delete(self, file_id: str) -> None:
        """Remove the file. Raises RefusedError (404)."""
        await self.get(file_id)
        await self._storage.delete(self._key(file_id, RECORD))
        await self._storage.delete(self._key(file_id, CONTENT))

    def content_key(self, file_id: str) -> str:
        """Where the content is; the id must be one of `get`."""
        return self._key(file_id, CONTENT)

    async def _read_all(self, ids: Sequence[str]) -> list[StoredFile]:
        few = asyncio.Semaphore(_READS_AT_ONCE)

        async def read(file_id: str) -> StoredFile | None:
            async with few:
                return await self.find(file_id)

        return [file for file in await asyncio.gather(*map(read, ids)) if file is not None]

    def _key(self, file_id: str, name: str) -> str:
        if not FILE_ID.fullmatch(file_id):
            raise RefusedError(404, "No such File object", param="id")
        return f"{self._folder}/FILES/{file_id}/{name}"


def new_id(prefix: str) -> str:
    """An id that can't be guessed, and that sorts after all earlier ones."""
    moment, digits = int(time.time() * 1000), ""
    for _ in range(8):
        moment, digit = divmod(moment, 36)
        digits = _DIGITS[digit] + digits
    return f"{prefix}{digits}{''.join(secrets.choice(_DIGITS) for _ in range(16))}"


def time_of_id(text: str) -> float:
    """When `new_id` made it, in Unix time."""
    return int(text[-24:-16], 36) / 1000
