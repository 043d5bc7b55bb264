"""`completion`: the script by which kubectl completes, and what that script asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

SCRIPT = """#!/bin/sh
# Completion of `kubectl finetune`: kubectl runs this file, which must be on PATH as kubectl_complete-finetune.
exec kubectl finetune completion --for-kubectl -- "$@"
"""


def completion(
    context: typer.Context,
    words: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
    for_kubectl: Annotated[bool, typer.Option("--for-kubectl", hidden=True)] = False,
) -> None:
    """Print the script by which kubectl's own completion completes this plugin's commands, options and names.

    Save it on PATH as kubectl_complete-finetune and make it executable. The wheel includes it.
    """
    if for_kubectl:
        _complete(getattr(context.find_root().command, "commands", {}), words or [])
    else:
        typer.echo(SCRIPT, nl=False)


def _complete(commands: Mapping[str, Any], words: list[str]) -> None:
    """Print candidates for the last word, one per line, and kubectl's directive: no file names."""
    from kubectl_finetune.commands.complete import candidates

    for candidate in candidates(commands, words):
        typer.echo(candidate)
    typer.echo(":4")
