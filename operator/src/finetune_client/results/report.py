"""A run's HTML report: text, which a notebook shows."""

from __future__ import annotations

import html
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

HEIGHT_PIXELS = 700


@dataclass(frozen=True)
class Report:
    """`html`: the whole page. `uri`: where it is in the storage."""

    uri: str
    html: str

    def __str__(self) -> str:
        return self.html

    def save(self, file: str | PathLike[str]) -> Path:
        """Write it to a file."""
        path = Path(file)
        path.write_text(self.html, encoding="utf-8")
        return path

    def _repr_html_(self) -> str:
        # A report has texts of datasets and models: the sandbox gives them neither scripts nor the notebook's origin.
        page = html.escape(self.html, quote=True)
        return f'<iframe sandbox="" srcdoc="{page}" style="width:100%;height:{HEIGHT_PIXELS}px;border:0"></iframe>'
