"""/v1/uploads: a file in parts, for those too large for one request."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Literal

from aiohttp import BodyPartReader, web
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from finetune_openai.context import CONTEXT, read, required
from finetune_openai.errors import RefusedError, invalid, wrong_fields
from finetune_openai.routes.files import LONGEST_LIFE, PURPOSE, SHORTEST_LIFE, SILENCE_SECONDS, base_name, pieces
from finetune_openai.storage.file_store import new_id
from finetune_openai.storage.upload_store import Upload, UploadStore

LARGEST_BYTES = 8 * 2**30
LARGEST_PART_BYTES = 64 * 2**20
MOST_PARTS = 10_000


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ExpiresAfter(_Strict):
    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=SHORTEST_LIFE, le=LONGEST_LIFE)]


class BeginRequest(_Strict):
    """POST /v1/uploads."""

    bytes: Annotated[int, Field(ge=1, le=LARGEST_BYTES)]
    filename: Annotated[str, StringConstraints(min_length=1, max_length=1024)]
    mime_type: Annotated[str, StringConstraints(max_length=256)]
    purpose: Literal["fine-tune"]
    expires_after: ExpiresAfter | None = None


class CompleteRequest(_Strict):
    """POST /v1/uploads/{id}/complete."""

    part_ids: Annotated[
        list[Annotated[str, StringConstraints(max_length=64)]], Field(min_length=1, max_length=MOST_PARTS)
    ]
    md5: Annotated[str, StringConstraints(max_length=64)] | None = None


async def create(request: web.Request) -> web.Response:
    """POST: begin one."""
    await required(request, "create")
    try:
        asked = BeginRequest.model_validate_json(await read(request))
    except ValidationError as error:
        raise wrong_fields(error) from error
    upload = Upload(
        id=new_id("upload_"),
        filename=base_name(asked.filename),
        purpose=PURPOSE,
        bytes=asked.bytes,
        mime_type=asked.mime_type,
        created_at=int(time.time()),
        expires_after_seconds=asked.expires_after.seconds if asked.expires_after else None,
    )
    await (await _uploads(request)).begin(upload)
    return web.json_response(upload.body())


async def add_part(request: web.Request) -> web.Response:
    """POST /{id}/parts: a multipart form with `data`, streamed into the storage."""
    await required(request, "create")
    uploads = await _uploads(request)
    upload = await uploads.pending(request.match_info["upload"])
    if not request.content_type.startswith("multipart/"):
        raise invalid("The request must be multipart/form-data with the field 'data'.", "data")
    reader = await request.multipart()
    async with asyncio.timeout(SILENCE_SECONDS):
        part = await reader.next()
    if not isinstance(part, BodyPartReader) or part.name != "data":
        raise invalid("Missing required parameter: 'data'.", "data", "missing_required_parameter")
    part_id, stream = uploads.part(upload.id)
    async with stream:
        async for piece in pieces(part):
            if stream.bytes + len(piece) > LARGEST_PART_BYTES:
                raise RefusedError(413, f"A part has at most {LARGEST_PART_BYTES // 2**20} MB.", param="data")
            await stream.write(piece)
        if stream.bytes == 0:
            raise invalid("The part is empty.", "data")
        await stream.finish()
    body = {"id": part_id, "object": "upload.part", "created_at": int(time.time()), "upload_id": upload.id}
    return web.json_response(body)


async def complete(request: web.Request) -> web.Response:
    """POST /{id}/complete. One that is completed already, whose answer was lost, is answered again."""
    caller = await required(request, "create")
    try:
        asked = CompleteRequest.model_validate_json(await read(request))
    except ValidationError as error:
        raise wrong_fields(error) from error
    uploads = await _uploads(request)
    upload = await uploads.get(request.match_info["upload"])
    if upload.status != "completed":
        upload = await uploads.pending(upload.id)
        file, done = await uploads.complete(upload, asked.part_ids, asked.md5)
        await (await request.app[CONTEXT].platform.files()).add(file, caller.user, is_retry=False)
        await uploads.end(done)
        upload = done
    return web.json_response(upload.body())


async def cancel(request: web.Request) -> web.Response:
    """POST /{id}/cancel: the parts go."""
    await required(request, "create")
    uploads = await _uploads(request)
    upload = (await uploads.pending(request.match_info["upload"])).model_copy(update={"status": "cancelled"})
    await uploads.end(upload)
    return web.json_response(upload.body())


async def _uploads(request: web.Request) -> UploadStore:
    return await request.app[CONTEXT].platform.uploads()
