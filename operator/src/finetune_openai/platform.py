"""What the namespace's class gives to the API: its storage, and the catalogue of models."""

from __future__ import annotations

import time
from pathlib import Path

from pydantic import ValidationError

from finetune_api.finetuneclass import FineTuneClassSpec, OpenAIModel
from finetune_openai.errors import unavailable
from finetune_openai.storage.file_store import FileStore
from finetune_openai.storage.s3 import Storage
from finetune_openai.storage.upload_store import UploadStore
from finetune_operator.kube.client import Kube
from finetune_operator.kube.resources import FINE_TUNE_CLASSES

_TRUSTED_SECONDS = 30.0


class Platform:
    """The class, read again every half minute."""

    def __init__(self, kube: Kube, class_name: str, namespace: str, credentials: Path | None) -> None:
        self._kube = kube
        self.class_name = class_name
        self._namespace = namespace
        self._credentials = credentials
        self._spec: FineTuneClassSpec | None = None
        self._storage: Storage | None = None
        self._expires = 0.0

    async def files(self) -> FileStore:
        """The namespace's files. Raises RefusedError (503)."""
        spec, storage = await self._current()
        return FileStore(storage, f"{spec.storage.prefix}/{self._namespace}")

    async def uploads(self) -> UploadStore:
        """The namespace's uploads in parts. Raises RefusedError (503)."""
        spec, storage = await self._current()
        return UploadStore(storage, f"{spec.storage.prefix}/{self._namespace}", await self.files())

    async def storage(self) -> Storage:
        """The class's storage. Raises RefusedError (503)."""
        return (await self._current())[1]

    async def models(self) -> list[OpenAIModel]:
        """The catalogue. Raises RefusedError (503)."""
        return (await self._current())[0].openai.models

    async def model(self, name: str) -> OpenAIModel | None:
        """The model of this name or alias. Raises RefusedError (503)."""
        models = await self.models()
        return next((one for one in models if one.name == name), None) or next(
            (one for one in models if name in one.aliases), None
        )

    async def _current(self) -> tuple[FineTuneClassSpec, Storage]:
        if self._spec is None or self._storage is None or time.monotonic() >= self._expires:
            spec = await self._read()
            if self._storage is None or self._spec is None or self._spec.storage != spec.storage:
                # Transfers with the former client go on: nothing closes it under them.
                self._storage = Storage(spec.storage, self._credentials)
            self._spec, self._expires = spec, time.monotonic() + _TRUSTED_SECONDS
        return self._spec, self._storage

    async def _read(self) -> FineTuneClassSpec:
        found = await self._kube.get(FINE_TUNE_CLASSES, None, self.class_name)
        if found is None:
            raise unavailable("The API's FineTuneClass does not exist. Ask the platform team.")
        try:
            return FineTuneClassSpec.from_another_version(found["spec"])
        except ValidationError as error:
            raise unavailable("The API's FineTuneClass can't be read. Ask the platform team.") from error
