"""Stop strings of a streamed response. Pure.

transformers' own stop strings examine every token of the vocabulary for every stop string (a minute for four of 256
characters with 150,000 tokens), also match in the prompt, and leave the stop string in the text.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Passes text through up to the first stop string, and holds back text that may become one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""

    def feed(self, text: str) -> tuple[str, bool]:
        """The text to show, and whether a stop string (the first complete one) ended it; do not feed after that."""
        text = self._held + text
        found = [(start + len(stop), start) for stop in self._stops if (start := text.find(stop)) >= 0]
        if found:
            self._held = ""
            return text[: min(found)[1]], True
        shown = len(text) - self._possible_start(text)
        self._held = text[shown:]
        return text[:shown], False

    def flush(self) -> str:
        """The text that was held back."""
        held, self._held = self._held, ""
        return held

    def _possible_start(self, text: str) -> int:
        """The number of characters at the end of the text that may be the start of a stop string."""
        longest = max((len(stop) - 1 for stop in self._stops), default=0)
        return next(
            (
                length
                for length in range(min(longest, len(text)), 0, -1)
                if any(stop.startswith(text[-length:]) for stop in self._stops)
            ),
            0,
        )
