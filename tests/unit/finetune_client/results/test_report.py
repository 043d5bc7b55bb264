"""A report is shown in a notebook, and can do nothing there."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

from finetune_client.results.report import Report

PAGE = '<h1>Run</h1><script>steal()</script><p title="a">"quoted"</p>'


def test_a_report_is_shown_in_a_frame_without_scripts() -> None:
    frames: list[dict[str, str | None]] = []

    class Frames(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            frames.append({"tag": tag, **dict(attrs)})

    Frames().feed(Report("s3://b/report.html", PAGE)._repr_html_())
    (frame,) = frames
    assert (frame["tag"], frame["sandbox"], frame["srcdoc"]) == ("iframe", "", PAGE)


def test_a_report_is_text(tmp_path: Path) -> None:
    report = Report("s3://b/report.html", PAGE)
    assert str(report) == PAGE == report.save(tmp_path / "report.html").read_text()
