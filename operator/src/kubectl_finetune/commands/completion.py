"""`completion`, and what kubectl asks `kubectl_complete-finetune` for."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

SCRIPT = """#!/bin/sh
# Completion of `kubectl finetune`: kubectl runs this file, which must be on PATH as kubectl_complete-finetune.
exec kubectl finetune completion --for-kubectl -- "$@"
"""


def completion(
    words: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
    for_kubectl: Annotated[bool, typer.Option("--for-kubectl", hidden=True)] = False,
) -> None:
    """Print the script by which kubectl's own completion completes this plugin's commands, options and names.

    Save it on PATH as kubectl_complete-finetune and make it executable. The wheel includes it.
    """
    if not for_kubectl:
        typer.echo(SCRIPT, nl=False)
        return
    complete(words or [])


def complete(words: list[str]) -> None:
    """Print candidates for the last word, one a line, and kubectl's directive: no file names."""
    from kubectl_finetune.commands.complete import candidates

    for candidate in candidates(words):
        typer.echo(candidate)
    typer.echo(":4")


def main() -> None:
    """The console script kubectl_complete-finetune."""
    complete(sys.argv[1:])
