"""/v1/files."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping

from aiohttp import BodyPartReader, web

from finetune_openai.context import CONTEXT, required
from finetune_openai.errors import RefusedError, invalid, not_found, shown
from finetune_openai.pagination import Page, list_body
from finetune_openai.routes.job_lookup import results_of
from finetune_openai.storage.file_store import FileStore, StoredFile
from finetune_openai.storage.jsonl_check import FirstLines

PURPOSE = "fine-tune"
LARGEST_BYTES = 512 * 2**20
READ_BYTES = 256 * 2**10
SHORTEST_LIFE, LONGEST_LIFE = 3600, 2_592_000
_LONGEST_FIELD = 1024
_MOST_FIELDS = 16
SILENCE_SECONDS = 60.0
"""The longest that a client may send nothing in the middle of a file."""


async def create(request: web.Request) -> web.Response:
    """POST: a multipart form with `file` and `purpose`, in any order, streamed into the storage."""
    caller = await required(request, "create")
    if not request.content_type.startswith("multipart/"):
        raise invalid("The request must be multipart/form-data with the fields 'file' and 'purpose'.", "file")
    files = await request.app[CONTEXT].platform.files()
    fields: dict[str, str] = {}
    uploaded: StoredFile | None = None
    reader = await request.multipart()
    for _ in range(_MOST_FIELDS):
        async with asyncio.timeout(SILENCE_SECONDS):
            part = await reader.next()
        if part is None:
            break
        if not isinstance(part, BodyPartReader):
            raise invalid("Nested multipart bodies are not supported.")
        if part.name != "file":
            fields[part.name or ""] = await _text(part)
        elif uploaded is not None:
            raise invalid("Only one file can be uploaded at once.", "file")
        else:
            # What can be refused is refused before the file is read, if the client says it first, as OpenAI's does.
            _check_purpose(fields, required=False)
            uploaded = await _receive(files, part)
    if uploaded is None:
        raise invalid("Missing required parameter: 'file'.", "file", "missing_required_parameter")
    _check_purpose(fields, required=True)
    complete = uploaded.model_copy(update={"purpose": PURPOSE, "expires_at": _expiry(fields, uploaded.created_at)})
    is_retry = request.headers.get("x-stainless-retry-count", "0") != "0"
    return web.json_response((await files.add(complete, caller.user, is_retry=is_retry)).body())


async def list_files(request: web.Request) -> web.Response:
    """GET: newest first, or in the `order` asked for."""
    await required(request, "list")
    order = request.query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise invalid("Invalid 'order': it is 'asc' or 'desc'.", "order", "invalid_value")
    page = Page.of(request.query, default=10_000, most=10_000)
    files = await request.app[CONTEXT].platform.files()
    found, has_more = await files.page(page, request.query.get("purpose"), ascending=order == "asc")
    return web.json_response(list_body([file.body() for file in found], has_more))


async def get(request: web.Request) -> web.Response:
    """GET /{id}."""
    await required(request, "get")
    file_id = request.match_info["file"]
    files = await request.app[CONTEXT].platform.files()
    found = await files.find(file_id)
    if found is not None:
        return web.json_response(found.body())
    results = await results_of(request, file_id)
    if results is None:
        raise not_found("File object", file_id, "id")
    return web.json_response(results.body)


async def content(request: web.Request) -> web.StreamResponse:
    """GET /{id}/content: the bytes as they were uploaded; of a results file, CSV."""
    await required(request, "get")
    file_id = request.match_info["file"]
    platform = request.app[CONTEXT].platform
    files = await platform.files()
    found = await files.find(file_id)
    if found is not None:
        key, kind = files.content_key(file_id), "application/octet-stream"
    else:
        results = await results_of(request, file_id)
        if results is None:
            raise not_found("File object", file_id, "id")
        key, kind = results.key, "text/csv"
    async with (await platform.storage()).stream(key) as stored:
        if stored is None:
            raise not_found("File object", file_id, "id")
        size, pieces = stored
        headers = {"Content-Type": kind, "Content-Length": str(size), "X-Content-Type-Options": "nosniff"}
        answer = web.StreamResponse(headers=headers | {"Content-Disposition": "attachment"})
        await answer.prepare(request)
        async for piece in pieces:
            await answer.write(piece)
        await answer.write_eof()
    return answer


async def delete(request: web.Request) -> web.Response:
    """DELETE /{id}."""
    await required(request, "delete")
    file_id = request.match_info["file"]
    await (await request.app[CONTEXT].platform.files()).delete(file_id)
    return web.json_response({"id": file_id, "object": "file", "deleted": True})


def base_name(filename: str) -> str:
    """A client's file name, without folders; it is shown, and part of no key."""
    return shown(filename.replace("\\", "/").rpartition("/")[2]) or "file"


async def pieces(part: BodyPartReader) -> AsyncIterator[bytes]:
    """The content of a form's part as it comes. Raises TimeoutError when nothing more comes for SILENCE_SECONDS."""
    while True:
        async with asyncio.timeout(SILENCE_SECONDS):
            piece = await part.read_chunk(READ_BYTES)
        if not piece:
            return
        yield piece


async def _receive(files: FileStore, part: BodyPartReader) -> StoredFile:
    """Stream the file into the storage; what breaks off leaves nothing there."""
    file_id, stream = files.begin()
    first = FirstLines()
    async with stream:
        async for piece in pieces(part):
            if stream.bytes + len(piece) > LARGEST_BYTES:
                limit = f"{LARGEST_BYTES // 2**20} MB"
                raise RefusedError(413, f"The file exceeds the maximum size of {limit}.", param="file")
            first.feed(piece)
            await stream.write(piece)
        if stream.bytes == 0:
            raise invalid("The file is empty.", "file", "invalid_file")
        first.end()
        await stream.finish()
    return StoredFile(
        id=file_id,
        filename=base_name(part.filename or ""),
        purpose=PURPOSE,
        bytes=stream.bytes,
        sha256=stream.sha256,
        created_at=int(time.time()),
    )


async def _text(part: BodyPartReader) -> str:
    content = b""
    while piece := await part.read_chunk(_LONGEST_FIELD):
        content += piece
        if len(content) > _LONGEST_FIELD:
            raise invalid(f"The field '{shown(part.name or '')}' is too long.", part.name)
    return content.decode(errors="replace")


def _check_purpose(fields: Mapping[str, str], *, required: bool) -> None:
    purpose = fields.get("purpose")
    if purpose is None and required:
        raise invalid("Missing required parameter: 'purpose'.", "purpose", "missing_required_parameter")
    if purpose not in (None, PURPOSE):
        raise invalid(f"'{shown(purpose or '')}' is not one of ['{PURPOSE}'] - 'purpose'", "purpose", "invalid_value")


def _expiry(fields: Mapping[str, str], created: int) -> int | None:
    seconds = fields.get("expires_after[seconds]")
    if seconds is None:
        return None
    if fields.get("expires_after[anchor]", "created_at") != "created_at":
        raise invalid("Invalid 'expires_after[anchor]': it is 'created_at'.", "expires_after[anchor]")
    if not (seconds.isascii() and seconds.isdigit() and SHORTEST_LIFE <= int(seconds[:9]) <= LONGEST_LIFE):
        allowed = f"a whole number from {SHORTEST_LIFE} to {LONGEST_LIFE}"
        raise invalid(f"Invalid 'expires_after[seconds]': it is {allowed}.", "expires_after[seconds]")
    return created + int(seconds)
