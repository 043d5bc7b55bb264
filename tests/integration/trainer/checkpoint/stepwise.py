"""Processes whose every request to the storage waits until the test lets it through: any interleaving, by choice."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from finetune_api.conditions import Reason
from finetune_api.sources import StorageLocation
from finetune_trainer.storage.storage import Storage, StoredFile, StoredObject

DEADLINE_SECONDS = 30.0


class Killed(BaseException):
    """The process is dead: nothing of it runs on, no handler of errors either."""


class Stepwise:
    """Runs `work(storage)` in a thread that stands still before each request until `advance`."""

    def __init__(self, storage: Storage, work: Callable[[Storage], None]) -> None:
        self.ended = False
        self.next_request = ""
        self.error: Exception | None = None
        self._killed = False
        self._turn = threading.Semaphore(0)
        self._back = threading.Semaphore(0)
        self._work = work
        self._storage = GatedStorage(storage, self._wait)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._wait_for_thread()

    def advance(self) -> None:
        """Let one request through, and wait for the next one, or the end."""
        if not self.ended:
            self._turn.release()
            self._wait_for_thread()

    def kill(self) -> None:
        """End it before its next request."""
        self._killed = True
        self.advance()

    def _run(self) -> None:
        try:
            self._work(self._storage)
        except Killed:
            pass
        except Exception as error:
            self.error = error
        finally:
            self.ended = True
            self._back.release()

    def _wait(self, request: str) -> None:
        self.next_request = request
        self._back.release()
        if not self._turn.acquire(timeout=DEADLINE_SECONDS) or self._killed:
            raise Killed

    def _wait_for_thread(self) -> None:
        assert self._back.acquire(timeout=DEADLINE_SECONDS), "a process is stuck"


class GatedStorage(Storage):
    """A storage that calls `wait` with the name of each request before it. Used by one thread at a time."""

    def __init__(self, inner: Storage, wait: Callable[[str], None]) -> None:
        self._inner = inner
        self._wait = wait

    def read(self, location: StorageLocation, missing: Reason | None = None) -> bytes:
        self._wait(f"read {location.uri}")
        return self._inner.read(location, missing)

    def find(self, location: StorageLocation) -> bytes | None:
        self._wait(f"read {location.uri}")
        return self._inner.find(location)

    def write_if_absent(self, location: StorageLocation, body: bytes) -> bool:
        self._wait(f"write_if_absent {location.uri}")
        return self._inner.write_if_absent(location, body)

    def upload(self, source: Path | memoryview, location: StorageLocation) -> StoredFile:
        self._wait(f"upload {location.uri}")
        return self._inner.upload(source, location)

    def download(
        self,
        location: StorageLocation,
        file: Path,
        missing: Reason | None = None,
        *,
        size: int | None = None,
        sha256: str | None = None,
    ) -> None:
        self._wait(f"download {location.uri}")
        self._inner.download(location, file, missing, size=size, sha256=sha256)

    def list_objects(self, folder: StorageLocation, missing: Reason | None = None) -> list[StoredObject]:
        self._wait(f"list_objects {folder.uri}")
        return self._inner.list_objects(folder, missing)

    def delete(self, locations: Iterable[StorageLocation]) -> None:
        for location in locations:
            self._wait(f"delete {location.uri}")
            self._inner.delete([location])

    def abort_uploads(self, folder: StorageLocation, only: Callable[[str], bool] = lambda _: True) -> int:
        self._wait(f"abort_uploads {folder.uri}")
        return self._inner.abort_uploads(folder, only)


def one_by_one(work: Callable[[Any], None], items: Iterable[Any]) -> None:
    """`in_parallel` for processes that make one request at a time."""
    for item in items:
        work(item)
