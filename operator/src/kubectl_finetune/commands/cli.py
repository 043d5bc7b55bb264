"""The app with all commands, in the order in which --help lists them."""

from __future__ import annotations

from kubectl_finetune.commands import changing, completion, files, reading, reports
from kubectl_finetune.commands.app import app

__all__ = ["COMMANDS", "app"]

COMMANDS = (
    *(reading.status, reading.watch, reading.logs, reading.events),
    *(changing.suspend, changing.resume, changing.cancel, changing.rerun),
    *(reports.diagnose, reports.report, reports.compare, reports.lineage),
    *(files.init, files.validate, files.import_job),
    completion.completion,
)

NAMES = {files.import_job: "import"}
"""Of commands that Python would not let a function have."""

for _command in COMMANDS:
    app.command(NAMES.get(_command))(_command)
