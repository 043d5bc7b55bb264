"""`finetune-trainer validate`: the broken lines of datasets, for a person. Instant: imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import typer

from finetune_trainer.data.examples import FORMAT_NAMES, LEAST_TRAINING_EXAMPLES, MethodType, format_of, read_examples
from finetune_trainer.data.file_names import is_data
from finetune_trainer.data.jsonl import LineError

SHOWN_ERRORS = 100


def validate_files(paths: Iterable[Path], method: MethodType | None = None) -> int:
    """Print what is wrong in each file, and in each file of data below a folder; answers the exit code."""
    good = [validate_file(file, method) for path in paths for file in _files(path)]
    return 0 if good and all(good) else 1


def validate_file(file: Path, method: MethodType | None = None) -> bool:
    """Print what is wrong in a file, or how many examples it has. Whether nothing is wrong."""
    name, count, errors = "examples", 0, 0
    try:
        for item in read_examples(file, method):
            if isinstance(item, LineError):
                errors += 1
                if errors <= SHOWN_ERRORS:
                    typer.secho(f"{file}:{item.line}: ", bold=True, nl=False)
                    typer.secho(item.message, fg=typer.colors.RED)
            else:
                count += 1
                name = FORMAT_NAMES[format_of(item.example)]
    except OSError as error:
        typer.secho(f"{file}: can't be read: {error.strerror}.", fg=typer.colors.RED)
        return False
    if errors > SHOWN_ERRORS:
        typer.secho(f"{file}: {errors - SHOWN_ERRORS} more lines are broken.", fg=typer.colors.RED)
    if not errors:
        typer.secho(f"{file}: {count} examples ({name}), none broken.", fg=typer.colors.GREEN)
        if count < LEAST_TRAINING_EXAMPLES:
            typer.secho(
                f"{file}: a training set must have at least {LEAST_TRAINING_EXAMPLES} examples.",
                fg=typer.colors.YELLOW,
            )
    return not errors


def _files(path: Path) -> Iterator[Path]:
    """A file itself; of a folder the files of data in it and below."""
    if not path.is_dir():
        yield path
        return
    found = sorted(file for file in path.rglob("*") if file.is_file() and is_data(file.name, in_folder=True))
    if not found:
        typer.secho(f"{path}: the folder has no file of data.", fg=typer.colors.RED)
    yield from found
