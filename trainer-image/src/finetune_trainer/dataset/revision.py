"""The files of a revision, and their commit: by the same transaction as a run's result (storage/commits.py).

<run>/result/claim-000001/{training.jsonl, validation.jsonl, test.jsonl, revision.json, manifest.json}
<run>/result/manifest.json                                            the same bytes: the revision that won
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from finetune_api.base import whole_seconds
from finetune_api.conditions import Reason
from finetune_api.dataset import (
    MOST_SOURCES,
    REVISION_NAME,
    SPLIT_NAMES,
    GeneratedStatus,
    GenerationContent,
    Revision,
    RevisionContent,
    SplitStatus,
)
from finetune_api.dataset_reference import SplitName, split_file
from finetune_api.pod_contracts.manifest import Manifest
from finetune_api.sources import StorageLocation
from finetune_trainer.data.select.near_duplicates import Positions
from finetune_trainer.data.select.survey import Survey
from finetune_trainer.dataset.groups import NEW_RUN, records
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage.commits import (
    Claim,
    Committed,
    CorruptError,
    commit_result,
    find_result,
    result_folder,
    upload_files,
)
from finetune_trainer.storage.storage import Storage


def find_revision(storage: Storage, run: StorageLocation) -> Revision | None:
    """What the run has committed already; None: nothing. Raises DiagnosedError if it is corrupt."""
    with _corruption_as_diagnosis():
        found = find_result(storage, run)
        return None if found is None else _read(storage, found)


def write_splits(survey: Survey, splits: Mapping[SplitName, Positions], directory: Path) -> list[SplitStatus]:
    """Write each split that is not empty to `directory`, in the order of its sources; each line is as it was read."""
    of = np.full(len(survey), -1, dtype=np.int8)
    for number, name in enumerate(SPLIT_NAMES):
        of[splits[name]] = number
    directory.mkdir(parents=True, exist_ok=True)
    names = [name for name in SPLIT_NAMES if len(splits[name])]
    hashes = {name: hashlib.sha256() for name in names}
    with ExitStack() as stack:
        files = {name: stack.enter_context((directory / split_file(name)).open("wb")) for name in names}
        for position, (_, line) in enumerate(records(survey)):
            if of[position] >= 0:
                name = SPLIT_NAMES[of[position]]
                hashes[name].update(line + b"\n")
                files[name].write(line + b"\n")
    return [
        SplitStatus(
            name=name,
            examples=len(splits[name]),
            size=(directory / split_file(name)).stat().st_size,
            sha256=hashes[name].hexdigest(),
        )
        for name in names
    ]


def commit_revision(storage: Storage, claim: Claim, content: RevisionContent, directory: Path) -> Revision:
    """Upload the splits in `directory` and the content, and commit them. Returns the run's revision: this one, or one
    that another process has committed before. Raises DiagnosedError if it is corrupt."""
    files: dict[str, Path | memoryview] = {
        split_file(split.name): directory / split_file(split.name) for split in content.splits
    }
    files[REVISION_NAME] = memoryview(content.to_bytes())
    stored = upload_files(storage, result_folder(claim.run, claim.number), files)
    now = whole_seconds(datetime.now(UTC))
    manifest = Manifest(step=0, claim=claim.number, attempt=claim.attempt, created=now, files=stored)
    with _corruption_as_diagnosis():
        return _read(storage, commit_result(storage, claim.run, manifest))


@contextmanager
def _corruption_as_diagnosis() -> Iterator[None]:
    try:
        yield
    except CorruptError as error:
        raise DiagnosedError(Reason.CHECKPOINT_CORRUPT, f"{error} Repair the storage, {NEW_RUN}.") from error


def _read(storage: Storage, committed: Committed) -> Revision:
    """The revision in a committed folder. Raises CorruptError."""
    location = committed.folder.join(REVISION_NAME)
    body = storage.read(location)
    sha256 = hashlib.sha256(body).hexdigest()
    if sha256 not in [file.sha256 for file in committed.manifest.files if file.path == REVISION_NAME]:
        raise CorruptError(f"{location.uri} differs from its manifest.")
    try:
        content = RevisionContent.from_bytes(body)
    except ValidationError as error:
        raise CorruptError(f"{location.uri} is not the content of a revision.") from error
    splits = [
        split.model_copy(update={"uri": committed.folder.join(split_file(split.name)).uri}) for split in content.splits
    ]
    return Revision(
        digest=f"sha256:{sha256}",
        uri=committed.folder.uri,
        format=content.example_format,
        examples=content.examples,
        splits=splits,
        left_out=content.left_out,
        screening=content.screening,
        generated=None if content.generated is None else _shown(content.generated),
        sources=content.sources[:MOST_SOURCES],
        source_count=len(content.sources),
        warnings=content.warnings,
    )


def _shown(content: GenerationContent) -> GeneratedStatus:
    """What the status has of it: without the settings, which are the spec's."""
    return GeneratedStatus(**{name: getattr(content, name) for name in GeneratedStatus.model_fields})
