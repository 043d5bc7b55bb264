"""The app with all commands, in the order in which --help lists them."""

from __future__ import annotations

from kubectl_finetune.commands import changing, completion, files, reading, reports
from kubectl_finetune.commands.app import app

__all__ = ["COMMANDS", "app"]

COMMANDS = (
    *(reading.status, reading.watch, reading.logs, reading.events),
    *(changing.suspend, changing.resume, changing.cancel, changing.rerun),
    *(reports.diagnose, reports.compare),
    *(files.init, files.validate),
    completion.completion,
)

for _command in COMMANDS:
    app.command()(_command)
