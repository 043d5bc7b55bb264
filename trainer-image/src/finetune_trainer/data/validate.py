"""`finetune-trainer validate`: the broken lines of datasets, for a person. Instant: imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import typer

from finetune_trainer.data.examples import FORMAT_NAMES, LEAST_TRAINING_EXAMPLES, format_of, read_examples
from finetune_trainer.data.jsonl import LineError

SHOWN_ERRORS = 100


def validate_files(files: Iterable[Path]) -> int:
    """Print what is wrong in each file; answers the exit code."""
    broken = [file for file in files if not validate_file(file)]
    return 1 if broken else 0


def validate_file(file: Path) -> bool:
    """Print what is wrong in a file, or how many examples it has. Whether nothing is wrong."""
    name, count, errors = "examples", 0, 0
    for item in read_examples(file):
        if isinstance(item, LineError):
            errors += 1
            if errors <= SHOWN_ERRORS:
                typer.secho(f"{file}:{item.line}: ", bold=True, nl=False)
                typer.secho(item.message, fg=typer.colors.RED)
        else:
            count += 1
            name = FORMAT_NAMES[format_of(item.example)]
    if errors > SHOWN_ERRORS:
        typer.secho(f"{file}: {errors - SHOWN_ERRORS} more lines are broken.", fg=typer.colors.RED)
    if not errors:
        typer.secho(f"{file}: {count} examples ({name}), none broken.", fg=typer.colors.GREEN)
        if count < LEAST_TRAINING_EXAMPLES:
            typer.secho(
                f"{file}: a training file must have at least {LEAST_TRAINING_EXAMPLES} examples.",
                fg=typer.colors.YELLOW,
            )
    return not errors
