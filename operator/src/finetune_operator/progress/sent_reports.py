"""The whole reports of evaluations that have arrived and are not in their status yet, in memory only.

Losing one loses nothing: its Pod sends it again until the status has it.
"""

from __future__ import annotations

from collections import OrderedDict

from finetune_api.evaluation import SentReport

_REPORTS_KEPT = 64


class SentReports:
    """The newest report of each try; bounded, the least recently updated goes first."""

    def __init__(self) -> None:
        self._reports: OrderedDict[tuple[str, str], SentReport] = OrderedDict()

    def put(self, namespace: str, report: SentReport) -> None:
        """Remember a report until it is stored."""
        key = (namespace, report.job_name)
        self._reports[key] = report
        self._reports.move_to_end(key)
        if len(self._reports) > _REPORTS_KEPT:
            self._reports.popitem(last=False)

    def find(self, namespace: str, job_name: str) -> SentReport | None:
        """The report of a try that is not known to be stored."""
        return self._reports.get((namespace, job_name))

    def forget(self, namespace: str, job_name: str) -> None:
        """The status has it, or needs it no more."""
        self._reports.pop((namespace, job_name), None)
