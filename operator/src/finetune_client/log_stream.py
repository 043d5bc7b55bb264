"""Where a log was read to, so that a stream that breaks goes on with the next line: pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from finetune_view.fields import clean


@dataclass
class LogPosition:
    """The last line that was given out. Lines come with the kubelet's time before them (`timestamps=true`)."""

    moment: str = ""
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
        moment, _, text = line.decode(errors="replace").rstrip("\r\n").partition(" ")
        if not _is_moment(moment):
            return clean(f"{moment} {text}" if text else moment, lines=True)
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


def _is_moment(text: str) -> bool:
    return len(text) >= 20 and text[4:5] == "-" and text[10:11] == "T" and text[:4].isdecimal()
