"""`dataset-findings.jsonl`, in the run's folder: every broken line and every example with an issue, for tools."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

import orjson

from finetune_api.sources import StorageLocation
from finetune_trainer.data.select.filters import QualityIssue
from finetune_trainer.data.select.screening import Screened
from finetune_trainer.data.select.survey import KEPT_ERRORS, Survey
from finetune_trainer.storage.storage import Storage

FINDINGS_NAME = "dataset-findings.jsonl"


def store_findings(
    storage: Storage,
    output: StorageLocation,
    surveys: Sequence[Survey],
    issues: Sequence[QualityIssue] = (),
    screened: Screened | None = None,
) -> None:
    """Write one JSON object per line, at most KEPT_ERRORS of each kind. Without findings no file is written."""
    lines = [orjson.dumps(item, option=orjson.OPT_APPEND_NEWLINE) for item in _findings(surveys, issues, screened)]
    if lines:
        storage.write(output.join(FINDINGS_NAME), b"".join(lines))


def _findings(
    surveys: Sequence[Survey], issues: Sequence[QualityIssue], screened: Screened | None
) -> Iterator[Mapping[str, object]]:
    for survey in surveys:
        for error in survey.errors:
            uri = error.uri or survey.files[0].uri
            yield {"kind": "error", "set": survey.name, "uri": uri, "line": error.line, "message": error.message}
    if screened is not None:
        yield from screened.findings(KEPT_ERRORS)
    training, validation = surveys[0], surveys[-1]
    for issue in issues:
        compared = validation if issue.kind == "leaks" else training
        for position in islice(issue.positions, KEPT_ERRORS):
            here, other = training.place(int(position)), compared.place(int(issue.others[position]))
            yield {
                "kind": issue.kind,
                "set": training.name,
                "uri": here.uri,
                "line": here.line,
                "other": {"uri": other.uri, "line": other.line},
                "dropped": issue.dropped,
            }
