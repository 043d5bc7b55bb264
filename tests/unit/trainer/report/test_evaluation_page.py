"""The page of an evaluation: the verdict first, nothing of it loads or runs anything, and a browser shows it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from finetune_api.evaluation import OutputsStatus, Score
from finetune_trainer.report.evaluation.page import (
    Answer,
    ComparedExample,
    EvaluationPage,
    SliceScores,
    page_html,
    verdicts,
)
from finetune_trainer.report.evaluation.shown_examples import choose

HOSTILE = '</div><script>document.title = "run"</script><img src="https://example.com/x" onerror=alert(1)>{{ 7 * 7 }}'
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def score(candidate: str, mean: float, gain: tuple[float, float, float] | None = None) -> Score:
    low, delta, high = gain or (None, None, None)
    around = {"low": mean - 0.04, "high": mean + 0.04, "delta": delta, "delta_low": low, "delta_high": high}
    return Score(candidate=candidate, grader="exact", score=mean, examples=400, **around)


def example(line: int, of_baseline: float | None, of_tuned: float | None, text: str = "an answer") -> ComparedExample:
    def answer(model: str, found: float | None) -> Answer:
        verdict = "Errored" if found is None else "Passed" if found == 1 else "Failed"
        return Answer(model, text, found, verdict)

    return ComparedExample(
        line, f"Question {line}", "the reference", [answer("baseline", of_baseline), answer("tuned", of_tuned)]
    )


def page(**changes: Any) -> EvaluationPage:
    scores = [score("baseline", 0.7), score("tuned", 0.8, (0.04, 0.1, 0.16))]
    content: dict[str, Any] = {
        "title": "Evaluation team-a/support, run 1",
        "dataset": "s3://data/test.jsonl",
        "examples": 400,
        "graders": ["exact"],
        "scores": scores,
        "slices": [SliceScores("{{item.language}}", "de", 120, scores)],
        "samples": choose([example(1, 0, 1), example(2, 1, 0), example(3, 1, 1), example(4, None, 0)], "tuned"),
        "outputs": [OutputsStatus(candidate="tuned", count=400, completion_tokens=9000, cost=0.25)],
        "warnings": [],
    }
    return EvaluationPage(**{**content, **changes})


class Tags(HTMLParser):
    """Every tag of a page with its attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, Mapping[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.mark.parametrize(
    ("gain", "word"),
    [((0.04, 0.1, 0.16), "Better"), ((-0.2, -0.1, -0.02), "Worse"), ((-0.01, 0.05, 0.11), "Can't tell")],
    ids=["all of the interval is above 0", "below", "0 is in it"],
)
def test_the_verdict_is_what_the_interval_of_the_gain_shows(gain: tuple[float, float, float], word: str) -> None:
    found = page(scores=[score("baseline", 0.7), score("tuned", 0.8, gain)])
    assert [said for said, _ in verdicts(found)] == [word]
    html = page_html(found)
    assert html.index(word.replace("'", "&#39;")) < html.index("<h2>")


def test_without_a_baseline_the_score_is_reported_as_measured() -> None:
    ((word, sentence),) = verdicts(page(scores=[score("tuned", 0.8)]))
    assert word == "Measured"
    assert "tuned scores 80.0 % by exact (76.0 % to 84.0 %)" in sentence


def test_nothing_of_the_outputs_is_markup() -> None:
    html = page_html(
        page(
            title=HOSTILE,
            dataset=HOSTILE,
            warnings=[HOSTILE],
            slices=[SliceScores(HOSTILE, HOSTILE, 1, [])],
            samples={HOSTILE: [example(1, 0, 1, HOSTILE)]},
        )
    )
    tags = Tags(html).found
    assert not [tag for tag, _ in tags if tag in ("script", "img", "iframe", "link", "object", "form", "a")]
    assert not [
        name for _, attributes in tags for name in attributes if name.startswith("on") or name in ("src", "href")
    ]
    assert "{{ 7 * 7 }}" in html


def test_the_page_forbids_browsers_to_load_or_run_anything() -> None:
    (policy,) = [of["content"] for tag, of in Tags(page_html(page())).found if of.get("http-equiv")]
    assert re.fullmatch(
        r"default-src 'none'; style-src 'sha256-[\w+/]{43}='; base-uri 'none'; form-action 'none'", policy or ""
    )


def test_an_answer_of_any_length_leaves_a_page_that_opens() -> None:
    samples = {"Highest scores": [example(1, 1, 1, "x" * 1_000_000)]}
    html = page_html(page(samples=samples))
    assert len(html) < 50_000
    assert "(1,000,000 characters)" in html


def test_the_examples_are_those_that_changed_and_the_lowest_and_highest_each_once() -> None:
    many = [example(line, line % 2, (line + 1) % 2) for line in range(1, 30)]
    found = choose([*many, example(90, 1, 1), example(91, None, None)], "tuned")
    lines = {heading: [one.line for one in examples] for heading, examples in found.items()}
    assert lines["tuned is worse than the baseline"] == [1, 3, 5, 7, 9]
    assert lines["tuned is better than the baseline"] == [2, 4, 6, 8, 10]
    assert lines["Lowest scores of tuned"][0] == 91
    assert lines["Highest scores of tuned"] == [12, 14, 16, 18, 20]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_shows_the_page_by_its_own_style_and_runs_nothing_of_it(tmp_path: Path) -> None:
    assert CHROMIUM is not None
    file, picture = tmp_path / "report.html", tmp_path / "report.png"
    file.write_text(page_html(page(samples={"Changed": [example(1, 0, 1, HOSTILE)]})), encoding="utf-8")
    quiet = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]

    shown = subprocess.run(
        [*quiet, "--dump-dom", file.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    subprocess.run(
        [*quiet, f"--screenshot={picture}", "--window-size=1100,1600", file.as_uri()],
        capture_output=True,
        timeout=120,
        check=True,
    )

    assert "<title>Evaluation team-a/support, run 1</title>" in shown.stdout
    assert "Refused to apply inline style" not in shown.stderr
    assert picture.stat().st_size > 20_000
