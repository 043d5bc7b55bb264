"""Punkt, nltk's model of English sentences: four text files, which no Python package brings."""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from finetune_api.conditions import Reason
from finetune_trainer.process.failures import DiagnosedError, first_line, sentence

PUNKT = "punkt_tab"
FOLDER = Path("tokenizers", PUNKT, "english")
"""Below a folder of nltk's data."""
FILES = ("abbrev_types.txt", "collocations.tab", "ortho_context.tab", "sent_starters.txt")


def find_punkt(copy: Path | None, scratch: Path) -> Mapping[str, Path]:
    """The model's files by name: of the folder nltk_data in a copy, of this machine, or downloaded to `scratch`.

    Raises DiagnosedError (BenchmarkInvalid, HubUnreachable).
    """
    import nltk

    folders = [*([] if copy is None else [copy / "nltk_data"]), *map(Path, nltk.data.path)]
    found = next((folder / FOLDER for folder in folders if (folder / FOLDER).is_dir()), None)
    if found is None:
        _download(scratch)
        found = scratch / FOLDER
    lacking = [name for name in FILES if not (found / name).is_file()]
    if lacking:
        raise DiagnosedError(Reason.BENCHMARK_INVALID, f"{found} is not nltk's {PUNKT}: it has no {lacking[0]}.")
    return {name: found / name for name in FILES}


def punkt_revision(digests: Sequence[str]) -> str:
    """What a copy of the model is called: it has no version of its own."""
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:12]


def use_punkt(data: Path) -> None:
    """Let nltk find the model in this folder of its data first, and never ask a server for it."""
    import nltk

    if str(data) not in nltk.data.path:
        nltk.data.path.insert(0, str(data))


def _download(folder: Path) -> None:
    import nltk

    try:
        with contextlib.redirect_stderr(io.StringIO()):  # It prints its errors, too.
            nltk.download(PUNKT, download_dir=str(folder), quiet=True, raise_on_error=True)
    except (OSError, ValueError) as error:
        raise DiagnosedError(
            Reason.HUB_UNREACHABLE,
            f"nltk's {PUNKT}, which the benchmark counts sentences by, could not be downloaded: "
            f"{sentence(first_line(error))} Where nltk's server can be reached: python -m nltk.downloader -d nltk_data "
            f"{PUNKT}; then copy nltk_data into the folder of --from, or set NLTK_DATA.",
        ) from error
