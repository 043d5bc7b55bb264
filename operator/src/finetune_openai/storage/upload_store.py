"""Uploads in parts: `<prefix>/<namespace>/UPLOADS/<id>/upload.json`, and one object for each part.

The file is made of the parts when the upload is completed, in the order asked for. An upload that is neither completed
nor cancelled within its hour is removed when another one begins. Its id tells its age.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from finetune_openai.errors import RefusedError, invalid, not_found, shown
from finetune_openai.storage.file_store import FileStore, StoredFile, new_id, time_of_id
from finetune_openai.storage.jsonl_check import FirstLines
from finetune_openai.storage.s3 import Storage
from finetune_openai.storage.upload_stream import UploadStream

UPLOAD_ID = re.compile(r"upload_[0-9a-z]{24}")
LIFE_SECONDS = 3600
_GRACE_SECONDS = 3600
"""An upload that is being completed at its end has so long."""


class Upload(BaseModel):
    """upload.json."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: str
    filename: str
    purpose: str
    bytes: int
    mime_type: str
    created_at: int
    expires_after_seconds: int | None = None
    status: Literal["pending", "completed", "cancelled"] = "pending"
    file: StoredFile | None = None

    @property
    def expires_at(self) -> int:
        """When it can't be completed any more."""
        return self.created_at + LIFE_SECONDS

    def body(self) -> dict[str, object]:
        """The upload, as the API shows it."""
        is_over = self.status == "pending" and time.time() >= self.expires_at
        return {
            "id": self.id,
            "object": "upload",
            "bytes": self.bytes,
            "created_at": self.created_at,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "expired" if is_over else self.status,
            "expires_at": self.expires_at,
            "file": self.file.body() if self.file else None,
        }


class UploadStore:
    """The uploads of one namespace."""

    def __init__(self, storage: Storage, folder: str, files: FileStore) -> None:
        self._storage = storage
        self._folder = f"{folder}/UPLOADS"
        self._files = files

    async def begin(self, upload: Upload) -> None:
        """Let an upload exist; those that are long over go."""
        for item in await self._storage.objects(f"{self._folder}/upload_"):
            upload_id = item.key.removeprefix(f"{self._folder}/").partition("/")[0]
            if UPLOAD_ID.fullmatch(upload_id) and time_of_id(upload_id) + LIFE_SECONDS + _GRACE_SECONDS < time.time():
                await self._storage.delete(item.key)
        await self._write(upload)

    async def get(self, upload_id: str) -> Upload:
        """The upload of this id. Raises RefusedError (404)."""
        content = await self._storage.read(self._key(upload_id, "upload.json"))
        try:
            if content is not None:
                return Upload.model_validate_json(content)
        except ValidationError:
            pass
        raise not_found("Upload object", upload_id, "upload_id")

    async def pending(self, upload_id: str) -> Upload:
        """The upload of this id, which is neither completed, cancelled nor expired. Raises RefusedError."""
        upload = await self.get(upload_id)
        state = upload.body()["status"]
        if state != "pending":
            raise invalid(f"The upload has the status '{state}'.", "upload_id", "invalid_upload_status")
        return upload

    def part(self, upload_id: str) -> tuple[str, UploadStream]:
        """A new part's id, and where its content goes."""
        part_id = new_id("part_")
        return part_id, UploadStream(self._storage, self._key(upload_id, part_id))

    async def complete(self, upload: Upload, part_ids: Sequence[str], md5: str | None) -> tuple[StoredFile, Upload]:
        """The file of the parts, in this order, which does not exist yet. Raises RefusedError."""
        sizes = {
            item.key.rpartition("/")[2]: item.bytes
            for item in await self._storage.objects(self._key(upload.id, "part_"))
        }
        for part_id in part_ids:
            if part_id not in sizes:
                raise invalid(f"No such part of the upload: {shown(part_id)}", "part_ids")
        total = sum(sizes[part_id] for part_id in part_ids)
        if total != upload.bytes:
            raise invalid(f"The parts have {total} bytes, but the upload was to have {upload.bytes}.", "part_ids")
        # The same file, should the answer be lost, or this process be killed before it is written that it is complete.
        file_id, stream = self._files.begin(f"file-{upload.id.removeprefix('upload_')}")
        first, digest = FirstLines(), hashlib.md5(usedforsecurity=False)
        async with stream:
            for part_id in part_ids:
                async with self._storage.stream(self._key(upload.id, part_id)) as stored:
                    if stored is None:
                        raise RefusedError(409, "A part of the upload was removed meanwhile.", param="part_ids")
                    async for piece in stored[1]:
                        first.feed(piece)
                        digest.update(piece)
                        await stream.write(piece)
            first.end()
            if md5 is not None and md5.lower() != digest.hexdigest():
                raise invalid(f"The md5 of the parts is {digest.hexdigest()}, not the given one.", "md5")
            await stream.finish()
        now = int(time.time())
        life = upload.expires_after_seconds
        file = StoredFile(
            id=file_id,
            filename=upload.filename,
            purpose=upload.purpose,
            bytes=total,
            sha256=stream.sha256,
            created_at=now,
            expires_at=None if life is None else now + life,
        )
        return file, upload.model_copy(update={"status": "completed", "file": file})

    async def end(self, upload: Upload) -> None:
        """Write how the upload ended; its parts go."""
        await self._write(upload)
        for item in await self._storage.objects(self._key(upload.id, "part_")):
            await self._storage.delete(item.key)

    async def _write(self, upload: Upload) -> None:
        await self._storage.write(self._key(upload.id, "upload.json"), upload.model_dump_json().encode())

    def _key(self, upload_id: str, name: str) -> str:
        if not UPLOAD_ID.fullmatch(upload_id):
            raise not_found("Upload object", upload_id, "upload_id")
        return f"{self._folder}/{upload_id}/{name}"
