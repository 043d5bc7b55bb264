"""The report of a FineTuneSweep: one HTML page, made of the object alone. Pure.

Names, values and messages come from the cluster and are untrusted: they are escaped, and the browser may load and run
nothing (Content-Security-Policy).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from importlib.resources import files
from xml.etree.ElementTree import Element, SubElement, tostring

from finetune_view.fields import Fields
from finetune_view.object_view import ObjectView
from kubectl_finetune.display.numbers import duration, figure
from kubectl_finetune.sweep_report.charts import Axis, Interval, curve, intervals, parallel_coordinates, shares
from kubectl_finetune.sweep_report.importance import FEWEST_TRIALS, importances

MOST_ROWS = 40
_COLUMNS = ("Trial", "FineTuneJob", "State", "Values", "Score", "95 % interval", "Trained", "Evaluation", "Reason")


def report_page(view: ObjectView) -> str:
    """The whole page."""
    style = files("kubectl_finetune.sweep_report").joinpath("page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    title = f"FineTuneSweep {view.namespace}/{view.name}, run {view.status.text('runId') or view.run_id}"
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    root = Element("html", {"lang": "en"})
    head, body = SubElement(root, "head"), SubElement(root, "body")
    SubElement(head, "meta", {"charset": "utf-8"})
    SubElement(head, "meta", {"http-equiv": "Content-Security-Policy", "content": policy})
    SubElement(head, "meta", {"name": "referrer", "content": "no-referrer"})
    SubElement(head, "meta", {"name": "viewport", "content": "width=device-width"})
    SubElement(head, "title").text = title
    SubElement(head, "style").text = style
    body.append(_element("h1", title))
    body.extend(_sections(view))
    return f"<!doctype html>\n{tostring(root, encoding='unicode', method='html')}\n"


def _sections(view: ObjectView) -> Iterator[Element]:
    trials, status = list(view.status.at("trials")), view.status
    counts = f"{status.text('finished') or '0'} trials ended, {status.text('running') or '0'} run"
    yield _element("p", f"{view.phase or 'New'}: {counts}, {status.text('remaining') or '0'} may follow.")
    ready = next((one for one in status.at("conditions") if one.text("type") == "Ready"), Fields(None))
    if ready.text("message"):
        yield _element("p", ready.text("message"), "verdict")
    yield from _curve(status.at("learningCurve"), is_highest=_is_highest_best(view))
    scored = _by_score(view, trials)
    if scored:
        yield from _scores(status, scored)
    if scored and len(scored) > 1 and view.fields.text("spec", "mode") in ("", "Search"):
        yield from _search(view, scored)
    if trials:
        yield _element("h2", "Trials")
        yield _table(trials)


def _by_score(view: ObjectView, trials: Sequence[Fields]) -> list[Fields]:
    """Those that have a score, the best first."""
    is_highest = _is_highest_best(view)
    found = [(score, trial) for trial in trials if (score := trial.number("score")) is not None]
    return [trial for _, trial in sorted(found, key=lambda one: -one[0] if is_highest else one[0])]


def _is_highest_best(view: ObjectView) -> bool:
    objective = view.fields.at("spec", "objective")
    return objective.text("type") == "Evaluation" and objective.text("evaluation", "goal") != "Minimize"


def _curve(found: Fields, *, is_highest: bool) -> Iterator[Element]:
    points = []
    for point in found.at("points"):
        size, score = point.number("examples"), point.number("score")
        if size is not None and size > 0 and score is not None:
            points.append((size, Interval("", score, point.number("low"), point.number("high"))))
    if len(points) < 2:
        return
    yield _element("h2", "Score by the number of training examples")
    expected = _expected(found, *points[-1], sign=1 if is_highest else -1)
    yield curve("Score by the number of training examples", points, expected)
    dashed = " Dashed: what new trainings on twice the data would measure, with its 90 % interval." if expected else ""
    yield _element(
        "p",
        "The band has the 90 % intervals of the means over the seeds. The number of examples is on a log scale."
        f"{dashed}",
    )


def _expected(found: Fields, size: float, last: Interval, *, sign: int) -> list[tuple[float, Interval]]:
    """What twice the data would bring, from the last size on; nothing where no gain is known."""
    gain, low, high = (found.number(name) for name in ("gain", "gainLow", "gainHigh"))
    if gain is None or low is None or high is None:
        return []
    least, most = sorted(last.value + sign * bound for bound in (low, high))
    twice = Interval("twice the data", last.value + sign * gain, least, most)
    return [(size, Interval("", last.value, last.value, last.value)), (2 * size, twice)]


def _scores(status: Fields, scored: Sequence[Fields]) -> Iterator[Element]:
    best = status.text("best", "number")
    yield _element("h2", "Scores")
    rows = [_interval(trial, is_best=trial.text("number") == best) for trial in scored[:MOST_ROWS]]
    holdout = status.at("holdout")
    if (score := holdout.number("score")) is not None:
        rows.append(Interval("the best, holdout", score, holdout.number("low"), holdout.number("high"), is_best=True))
    yield intervals("Scores of the trials with their 95 % intervals, the best first", rows)
    if len(scored) > MOST_ROWS:
        yield _element("p", f"The best {MOST_ROWS} of {len(scored)}.")
    if not any(row.low is not None for row in rows):
        yield _element("p", "Validation losses have no intervals: small differences may be chance.")


def _search(view: ObjectView, scored: Sequence[Fields]) -> Iterator[Element]:
    logarithmic = {one.text("path") for one in view.fields.at("spec", "search", "parameters") if one.at("logUniform")}
    values = [_values(trial) for trial in scored]
    paths = [path for path in values[0] if all(path in one for one in values)]
    if not paths:
        return
    numbers = [score for trial in scored if (score := trial.number("score")) is not None]
    axes = [Axis(_short(path), [one[path] for one in values], is_log=path in logarithmic) for path in paths]
    best = view.status.text("best", "number")
    chosen = next((at for at, trial in enumerate(scored) if trial.text("number") == best), 0)
    yield _element("h2", "Values and scores")
    yield parallel_coordinates("The values of each trial, and its score", [*axes, Axis("score", numbers)], chosen)
    yield _element("p", "A line is a trial; that of the best is blue.")
    yield _element("h2", "What matters")
    found = importances(list(zip(values, numbers, strict=True)))
    if not found:
        yield _element("p", f"Too few trials have a score to tell: {len(scored)} of at least {FEWEST_TRIALS}.")
        return
    yield shares("Share of the variance of the scores", {_short(path): share for path, share in found.items()})
    yield _element(
        "p",
        "The share of the scores' variance that a field alone explains (omega squared, without what chance does). "
        "What fields do together is not seen, and a search that tries near good values varies them less.",
    )


def _table(trials: Sequence[Fields]) -> Element:
    wide = Element("div", {"class": "wide"})
    table = SubElement(wide, "table")
    heading = SubElement(table, "tr")
    for name in _COLUMNS:
        SubElement(heading, "th", {"scope": "col"}).text = name
    for trial in trials:
        row = SubElement(table, "tr")
        seconds, low, high = (trial.number(name) for name in ("seconds", "low", "high"))
        state = " ".join(filter(None, (trial.text("state"), trial.text("verdict"))))
        values = ", ".join(f"{_short(path)} {value}" for path, value in _texts(trial))
        for text in (
            trial.text("number"),
            trial.text("fineTuneJobName"),
            state,
            values,
            figure(trial.number("score"), 5),
            "" if low is None or high is None else f"{figure(low)} to {figure(high)}",
            "" if seconds is None else duration(seconds),
            trial.text("evaluationName"),
            trial.text("reason"),
        ):
            SubElement(row, "td").text = text
    return wide


def _interval(trial: Fields, *, is_best: bool) -> Interval:
    name = trial.text("model") or f"trial {trial.text('number')}"
    return Interval(name, trial.number("score") or 0.0, trial.number("low"), trial.number("high"), is_best)


def _values(trial: Fields) -> dict[str, float | str]:
    """By path; numbers as such."""
    return {path: value for path, found in trial.at("values").items() if (value := _value(found)) != ""}


def _value(found: Fields) -> float | str:
    number = found.number()
    return found.text() if number is None else number


def _texts(trial: Fields) -> Iterator[tuple[str, str]]:
    for path, value in trial.at("values").items():
        yield path, value.text()


def _short(path: str) -> str:
    return path.rpartition(".")[2]


def _element(kind: str, text: str, of_class: str | None = None) -> Element:
    found = Element(kind, {} if of_class is None else {"class": of_class})
    found.text = text
    return found
