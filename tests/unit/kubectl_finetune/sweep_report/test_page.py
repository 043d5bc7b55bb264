"""`report fts/NAME`: the page about a sweep says what the object says, and runs nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from finetune_api.finetunesweep import FineTuneSweepStatus
from finetune_view.object_view import ObjectView, object_view
from kubectl_finetune.sweep_report.importance import FEWEST_TRIALS, importances
from kubectl_finetune.sweep_report.page import report_page
from tests.unit.api.wire.full_statuses import at, full_status, objects_within, replaced
from tests.unit.kubectl_finetune.commands.test_command_line import fake_kubectl, run

RATE, RANK = "hyperparameters.learningRate", "adapter.lora.rank"
SEARCH = {"search": {"parameters": [{"path": RATE, "logUniform": {"minimum": 1e-5, "maximum": 1e-2}}, {"path": RANK}]}}


def sweep(status: Any, **spec: Any) -> ObjectView:
    metadata = {"name": "rates", "namespace": "team-a", "uid": "5a3c", "generation": 1}
    return object_view(
        {"kind": "FineTuneSweep", "metadata": metadata, "spec": {"runId": "1", **spec}, "status": status}
    )


def trial(number: int, score: float | None, **more: Any) -> dict[str, Any]:
    found = {"number": number, "fineTuneJobName": f"rates-trial-{number}", "state": "Succeeded", **more}
    return found if score is None else {**found, "score": score}


class Page(HTMLParser):
    """What a browser would make of it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text += f" {data}"

    def count(self, tag: str, of_class: str | None = None) -> int:
        return sum(name == tag and (of_class is None or found.get("class") == of_class) for name, found in self.tags)


def searched() -> ObjectView:
    """Twelve trials whose score depends on the rate alone."""
    trials = [
        trial(number, number % 4 / 10, values={RATE: 10.0 ** -(2 + number % 4), RANK: 8 * (1 + number % 3)})
        for number in range(1, 13)
    ]
    trials.append(trial(13, None, state="Failed", reason="OutOfMemory"))
    message = {
        "type": "Ready",
        "status": "True",
        "reason": "Succeeded",
        "message": "Of 13 trials, 'rates-trial-4' wins.",
    }
    best = {"number": 4, "fineTuneJobName": "rates-trial-4", "score": 0.0}
    status = {"runId": "1", "phase": "Succeeded", "finished": 13, "trials": trials, "best": best}
    return sweep({**status, "conditions": [message]}, **SEARCH)


def test_a_search_shows_its_verdict_scores_values_and_what_matters() -> None:
    page = Page(report_page(searched()))
    assert "Of 13 trials, 'rates-trial-4' wins." in page.text
    assert page.count("polyline", "best") == 1
    assert page.count("polyline", "other") == 11, "a line for each trial with a score"
    assert page.count("circle") == 12
    shares = dict(re.findall(r"(learningRate|rank)\s+(\d+)%", page.text))
    assert int(shares["learningRate"]) > 90
    assert int(shares["rank"]) < 10
    assert page.count("tr") == 14, "a row for every trial, and the heading"
    assert "OutOfMemory" in page.text


def test_intervals_are_drawn_and_losses_without_them_are_said_to_have_none() -> None:
    assert "Validation losses have no intervals" in Page(report_page(searched())).text
    trials = [trial(1, 0.5, low=0.4, high=0.6), trial(2, 0.7, low=0.6, high=0.8)]
    holdout = {"number": 2, "evaluationName": "rates-holdout-2", "score": 0.65, "low": 0.6, "high": 0.7}
    objective = {"type": "Evaluation", "evaluation": {"goal": "Maximize"}}
    found = sweep({"trials": trials, "best": trials[1], "holdout": holdout}, objective=objective, **SEARCH)
    page = Page(report_page(found))
    assert page.count("line", "interval") == 3
    assert page.text.index("trial 2") < page.text.index("trial 1"), "the highest score is the best"
    assert "the best, holdout" in page.text
    assert "no intervals" not in page.text


def test_a_learning_curve_has_its_band() -> None:
    points = [
        {"examples": size, "score": loss, "low": loss - 0.1, "high": loss + 0.1, "trials": 2}
        for size, loss in ((100, 2.0), (200, 1.5), (400, 1.2))
    ]
    page = Page(report_page(sweep({"learningCurve": {"points": points}}, mode="LearningCurve")))
    assert page.count("polygon", "band") == 1
    assert all(size in page.text for size in ("100", "200", "400"))
    assert "800" not in page.text, "what was not measured and is not expected"
    gain = {"gain": 0.2, "gainLow": 0.1, "gainHigh": 0.3}
    page = Page(report_page(sweep({"learningCurve": {"points": points, **gain}}, mode="LearningCurve")))
    assert (page.count("polygon", "band"), page.count("polyline", "expected")) == (2, 1)
    assert "800 examples: 1" in page.text, "a loss falls by the gain"


def test_nothing_of_the_cluster_becomes_markup_and_nothing_is_loaded_or_run() -> None:
    hostile = "</style><script>alert(1)</script><img src=https://example.com>\x1b[31m"
    found = sweep(
        {
            "runId": hostile,
            "conditions": [{"type": "Ready", "message": hostile}],
            "trials": [trial(1, 0.5, reason=hostile, values={hostile: hostile}), trial(2, 0.6, values={hostile: "a"})],
        }
    )
    text = report_page(found)
    page = Page(text)
    assert page.count("script") == page.count("img") == 0
    assert "\x1b" not in text
    policy = next(str(one["content"]) for tag, one in page.tags if tag == "meta" and one.get("http-equiv"))
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    assert policy.startswith("default-src 'none'; ")
    assert base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() in policy
    assert not any("style" in one for _, one in page.tags), "the policy allows no style but the page's own"


def test_a_status_of_another_version_makes_a_page_whatever_is_in_it() -> None:
    full = full_status(FineTuneSweepStatus)
    two = {**full, "trials": [*full["trials"], *full["trials"]]}
    assert "FineTuneSweep team-a/rates" in report_page(sweep(two, **SEARCH))
    for wrong in (None, "text", 7, 1e308, -1e308, [], [[]], {"a": 1}, True):
        for path in objects_within(full):
            report_page(sweep(replaced(two, path, wrong), **SEARCH))
            for field in at(full, path):
                report_page(sweep(replaced(two, (*path, field), wrong), **SEARCH))
        for field in full:
            report_page(sweep({**two, field: wrong}, **SEARCH))
        report_page(sweep(wrong, **SEARCH))


def test_the_command_writes_a_file(tmp_path: Path) -> None:
    found = json.dumps(searched().fields.value)
    (tmp_path / "sweep.json").write_text(found)
    fake_kubectl(tmp_path, f"cat {tmp_path}/sweep.json")
    done = run(tmp_path, "report", "rates", "-o", str(tmp_path / "page.html"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "page.html")
    assert "'rates-trial-4' wins." in (tmp_path / "page.html").read_text()
    assert "this command knows fts/NAME" in run(tmp_path, "report", "eval/rates").stderr


EFFECT = {"a": 0.1, "b": 0.9}


@pytest.mark.parametrize("name", ["words", "few numbers", "many numbers"])
def test_a_field_that_decides_the_score_explains_it_and_one_of_chance_does_not(name: str) -> None:
    chance = random.Random(17)
    trials: list[tuple[dict[str, float | str], float]] = []
    for number in range(40):
        word = "ab"[number % 2]
        values = {"words": word, "few numbers": EFFECT[word], "many numbers": EFFECT[word] + number / 1000}
        trials.append(({"decides": values[name], "chance": chance.random()}, EFFECT[word] + chance.gauss(0, 0.05)))
    found = importances(trials)
    assert list(found) == ["decides", "chance"]
    assert found["decides"] > 0.9
    assert found["chance"] < 0.2


def test_of_too_few_trials_nothing_is_said() -> None:
    assert importances([({"rank": float(number)}, float(number)) for number in range(FEWEST_TRIALS - 1)]) == {}
    assert importances([({"rank": float(number)}, 0.5) for number in range(20)]) == {}, "all scores are the same"
