"""Where a log was read to, so that a stream that breaks goes on with the next line: pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime

from finetune_view.fields import clean

_MOMENT = re.compile(r"([0-9-]{10}T[0-9:]{8})(?:\.([0-9]{1,9}))?(Z|[+-][0-9]{2}:[0-9]{2})")


@dataclass
class LogPosition:
    """The last line that was given out. Lines come with the kubelet's time before them (`timestamps=true`)."""

    moment: str = ""
    """In UTC with nanoseconds, so that texts compare as times do: a kubelet writes its node's time zone."""
    _same: int = 0
    """How many lines of that moment were given out."""
    _skipped: int = field(default=0, repr=False)

    def reopened(self) -> None:
        """The stream starts again, at or before the last line."""
        self._skipped = 0

    @property
    def since(self) -> dict[str, str]:
        """The query that leaves out what was read; the kubelet goes by whole seconds."""
        return {"sinceTime": f"{self.moment[:19]}Z"} if self.moment else {}

    def take(self, line: bytes) -> str | None:
        """The line as it is to be shown; None if it was given out before."""
        whole = line.decode(errors="replace").rstrip("\r\n")
        timestamp, _, text = whole.partition(" ")
        if (moment := _in_utc(timestamp)) is None:
            return clean(whole, lines=True)
        if moment < self.moment:
            return None
        if moment == self.moment:
            self._skipped += 1
            if self._skipped <= self._same:
                return None
            self._same += 1
        else:
            self.moment, self._same, self._skipped = moment, 1, 1
        # Of a progress bar, its last state.
        return clean(text.rpartition("\r")[2], lines=True)


def _in_utc(timestamp: str) -> str | None:
    if (found := _MOMENT.fullmatch(timestamp)) is None:
        return None
    seconds, fraction, zone = found.groups(default="")
    try:
        moment = datetime.fromisoformat(f"{seconds}{zone}").astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return f"{moment.replace(tzinfo=None).isoformat()}.{fraction:0<9}Z"
