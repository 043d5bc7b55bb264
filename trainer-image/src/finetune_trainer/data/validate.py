"""`finetune-trainer validate`: prints the invalid lines of datasets. Instant: imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import typer

from finetune_trainer.data.read.examples import Example
from finetune_trainer.data.read.file_names import is_data
from finetune_trainer.data.read.formats import FORMAT_NAMES, MethodFormats, WrongFormat
from finetune_trainer.data.read.jsonl import LineError
from finetune_trainer.data.read.reader import LEAST_TRAINING_EXAMPLES, read_examples, too_few_examples, unread_keys
from finetune_trainer.data.read.tables.saved_folders import SavedFolderError, without_unnamed_shards

SHOWN_ERRORS = 100
SHOWN_FLAGGED = 20


def validate_files(paths: Iterable[Path], method: MethodFormats | None = None, *, screens: bool = False) -> int:
    """Print the errors of each file, and of each data file below a folder. Returns the exit code.

    All files together are one dataset, which must have the minimum number of examples for training. `screens`: also
    print which lines the rules of dataset.screening flag, which is no error.
    """
    try:
        files = [file for path in paths for file in _files(path)]
    except SavedFolderError as error:
        typer.secho(str(error), fg=typer.colors.RED)
        return 1
    checked = [check_file(file, method, screens=screens) for file in files]
    if not checked or any(count is None for count in checked):
        return 1
    count = sum(count or 0 for count in checked)
    if count < LEAST_TRAINING_EXAMPLES:
        typer.secho(too_few_examples(count), fg=typer.colors.RED)
        return 1
    return 0


def check_file(file: Path, method: MethodFormats | None = None, *, screens: bool = False) -> int | None:
    """Print the errors of a file and return None, or return the number of its examples."""
    name, count, errors = "examples", 0, 0
    unread: dict[str, int] = {}
    flagged: dict[str, list[int]] = {}
    try:
        for item in read_examples(file, method):
            if isinstance(item, LineError):
                errors += 1
                if errors <= SHOWN_ERRORS:
                    typer.secho(f"{file}:{item.line}: ", bold=True, nl=False)
                    typer.secho(item.message + _what_to_name(item, method), fg=typer.colors.RED)
            else:
                count += 1
                name = FORMAT_NAMES[item.example.format]
                for key in item.unread:
                    unread.setdefault(key, item.line)
                for rule in _flags(item.example) if screens else ():
                    flagged.setdefault(rule, []).append(item.line)
    except OSError as error:
        typer.secho(f"{file}: can't be read: {error.strerror}.", fg=typer.colors.RED)
        return None
    if errors > SHOWN_ERRORS:
        typer.secho(f"{file}: {errors - SHOWN_ERRORS} more lines are broken.", fg=typer.colors.RED)
    if errors:
        return None
    typer.secho(f"{file}: {count} examples ({name}), none broken.", fg=typer.colors.GREEN)
    if unread:
        typer.secho(f"{file}: {unread_keys(unread)}", fg=typer.colors.YELLOW)
    for rule, lines in flagged.items():
        shown, more = ", ".join(map(str, lines[:SHOWN_FLAGGED])), len(lines) - SHOWN_FLAGGED
        rest = f" and {more} more" if more > 0 else ""
        typer.secho(f"{file}: {len(lines)} example(s) flagged: {rule} (line {shown}{rest})", fg=typer.colors.YELLOW)
    if screens and not flagged:
        typer.secho(f"{file}: no rule flags an example.", fg=typer.colors.GREEN)
    return count


def _what_to_name(error: LineError, method: MethodFormats | None) -> str:
    if method is not None or not isinstance(error, WrongFormat):
        return ""
    return " Name the method that the file is for: --method RFT or Distillation. Or add the answers."


def _flags(example: Example) -> list[str]:
    """The rules that flag an example. Their libraries are imported where they are needed."""
    from finetune_api.safety.screening import Screening
    from finetune_trainer.data.screen.rules import rules_that_flag

    return rules_that_flag(example, Screening().rules)


def _files(path: Path) -> Iterator[Path]:
    """A file itself; for a folder all data files in and below it. Raises SavedFolderError."""
    if not path.is_dir():
        yield path
        return
    sizes = {str(file): file.stat().st_size for file in sorted(path.rglob("*")) if file.is_file()}
    found = [file for file in sizes if is_data(file, in_folder=True)]
    if not found:
        typer.secho(f"{path}: the folder has no file of data.", fg=typer.colors.RED)
    yield from map(Path, without_unnamed_shards(found, sizes, lambda state: Path(state).read_bytes()))
