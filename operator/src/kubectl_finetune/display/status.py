"""What `status` shows: rows about one object, from its status alone. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from finetune_view.fields import Fields
from finetune_view.measures import measures
from finetune_view.next_step import next_steps
from finetune_view.object_view import ObjectView
from finetune_view.resource import DATASET, EVALUATION, FINE_TUNE_JOB, FINE_TUNE_SWEEP, MODEL_DEPLOYMENT
from kubectl_finetune.display.canary import canary_rows
from kubectl_finetune.display.dataset import broken_lines, dataset_rows, revision_rows
from kubectl_finetune.display.evaluation import evaluation_rows
from kubectl_finetune.display.numbers import BAR_WIDTH, age, bar, counted, duration, figure, size
from kubectl_finetune.display.terminal import STYLES, Row

FEW_LINES = 10
"""Of a failure's log, of broken lines of a dataset, of attempts, unless all are asked for."""

FEW_FIELDS = 3
"""Of what one manager has changed."""


def status_rows(
    view: ObjectView, now: datetime, *, budget_hours: float | None = None, all_lines: bool = False
) -> list[Row]:
    """Everything to know about the object. `budget_hours`: what its class allows a namespace per month, if known."""
    most = None if all_lines else FEW_LINES
    rows = [
        Row(view.kind.name, [f"{view.name}  (namespace {view.namespace}, {age_of(view, now)} old)"], "bold"),
        *_state(view, now),
        *_of_kind(view, now, budget_hours, most),
        *_failure(view, most),
    ]
    return [row for row in [*rows, Row("Next", next_steps(view))] if row.lines]


def age_of(view: ObjectView, now: datetime) -> str:
    return age(view.fields.time("metadata", "creationTimestamp"), now) or "unknown"


def _state(view: ObjectView, now: datetime) -> Iterator[Row]:
    ready, stalled = view.condition("Ready"), view.condition("Stalled")
    phase = view.phase or "not looked at yet"
    is_unread = stalled.status == "True" and stalled.reason == "StatusUnreadable"  # Ready is of before.
    since = age(stalled.since if is_unread else view.phase_since, now)
    known = stalled.reason if is_unread else ready.reason
    reason = f"{phase}, {known}" if known not in ("", phase) else phase
    yield Row("Phase", [f"{reason} for {since}" if since else reason], STYLES.get(phase, ""))
    if not view.current and view.status:
        yield Row("Outdated", ["The spec was changed; what follows is of before the change."], "yellow")
    if stalled.status == "True":
        # Of a run that ended as Inconclusive or GateFailed nothing failed: its phase says what it is.
        is_over = view.outcome == "Failed" and view.kind is not MODEL_DEPLOYMENT
        label = view.phase if is_over and not is_unread else "Stalled"
        reason = "" if stalled.reason == label else f"{stalled.reason}: "
        yield Row(label, [f"{reason}{stalled.message}"], "bold red")
    if ready.message and not is_unread and not (stalled.status == "True" and ready.message == stalled.message):
        yield Row("Why", [ready.message])
    passed = view.condition("Passed")
    if passed.status and passed.message not in (ready.message, stalled.message):
        yield Row("Passed", [f"{passed.status}: {passed.message}"])


def _of_kind(view: ObjectView, now: datetime, budget_hours: float | None, most: int | None) -> Iterator[Row]:
    status = view.status
    if view.kind is FINE_TUNE_JOB:
        yield from _run(view, now)
        yield from progress_rows(status, BAR_WIDTH)
        yield from _attempts(view, now, most)
        yield from _dataset(status.at("dataset"), most)
        revisions = status.at("datasetRevisions")
        yield from revision_rows(revisions.at("training"), revisions.at("validation"))
        yield from _checkpoints(status, now)
        yield Row("Budget", list(_budget(status, budget_hours)))
        yield from _result(status.at("result"))
        return
    if view.kind is EVALUATION:
        yield from _run(view, now)
        yield from evaluation_rows(status)
        yield from revision_rows(status.at("datasetRevision"))
        return
    if view.kind is FINE_TUNE_SWEEP:
        yield from _run(view, now)
        yield from _trials(view, most)
        return
    if view.kind is DATASET:
        yield from _run(view, now)
        yield from dataset_rows(status)
        yield Row("Lines", _some(broken_lines(status), most), "yellow")
        return
    wanted = view.fields.text("spec", "replicas") or "1"
    pods = status.text("replicas") or "0"
    there = "" if pods in ("0", wanted) else f", {pods} Pods"  # a class may allow fewer; a rollout may add one
    yield Row("Replicas", [f"{status.text('readyReplicas') or '0'} of {wanted} ready{there}"])
    if status.text("revision"):  # The Pods that answer have one.
        served = [text for path in ("modelName", "url", "revision") if (text := status.text(path))]
        # A model that was given by its URI has no other revision.
        yield Row("Serves", list(dict.fromkeys([*served, *_served_model(status.at("served"))])))
    yield from canary_rows(view, now)
    yield Row("Drift", list(_drift(status, most)))


def _drift(status: Fields, most: int | None) -> Iterator[str]:
    """What others have changed, by who it was; of many fields of one, the first few."""
    by_manager: dict[str, list[str]] = {}
    for one in status.at("drift"):
        by_manager.setdefault(one.text("manager") or "an unknown manager", []).append(one.text("field"))
    for manager, found in by_manager.items():
        shown = found if most is None else found[:FEW_FIELDS]
        more = f" and {len(found) - len(shown)} more" if len(found) > len(shown) else ""
        yield f"{', '.join(shown)}{more} by {manager}"


def _run(view: ObjectView, now: datetime) -> Iterator[Row]:
    status = view.status
    run_id = status.text("runId")
    if not run_id:
        return
    began, ended = status.time("startTime"), status.time("completionTime")
    parts = [run_id]
    if began is not None:
        parts.append(f"ran {duration((ended - began).total_seconds())}" if ended else f"began {age(began, now)} ago")
    suspended = status.number("suspendedSeconds")
    if suspended:
        parts.append(f"{duration(suspended)} of it suspended or waiting for quota")
    if class_name := status.text("className"):
        parts.append(f"class {class_name}")
    if run_id != view.run_id:
        parts.append(f"the spec asks for run {view.run_id}")
    yield Row("Run", [", ".join(parts)])


def trial_counts(status: Fields) -> str:
    """How far a search is."""
    words = (("finished", "ended"), ("running", "running"), ("remaining", "to come"))
    counts = [f"{status.text(field) or '0'} {word}" for field, word in words]
    begun = sum(trial.text("state") == "Running" for trial in status.at("trials"))
    if waiting := max(0, begun - (status.whole("running") or 0)):
        counts.insert(2, f"{waiting} suspended")
    return ", ".join(counts)


def _is_highest_best(view: ObjectView) -> bool:
    """Whether the trials of a search are compared by a grader's score."""
    objective = view.fields.at("spec", "objective")
    return objective.text("type") == "Evaluation" and objective.text("evaluation", "goal") != "Minimize"


def _trials(view: ObjectView, most: int | None) -> Iterator[Row]:
    """The trials of a search, the best ones first, then those without a score."""
    status, is_highest_best = view.status, _is_highest_best(view)
    yield Row("Trials", [trial_counts(status)])
    scored = sorted(
        (-score if is_highest_best else score, index, trial)
        for index, trial in enumerate(status.at("trials"))
        if (score := trial.number("score")) is not None
    )
    # A larger model or more data may score better, and is not what these modes look for.
    name = "Best" if view.fields.text("spec", "mode") in ("", "Search") else "Scores"
    yield Row(name, [f"{_score(trial)}  {_trial(trial)}" for _, _, trial in scored[:most]])
    others = [trial for trial in status.at("trials") if trial.number("score") is None]
    lines = [f"{_trial_state(view, one)}  {_trial(one)}" for one in others]
    yield Row("Others", lines if most is None else lines[-most:])
    yield Row("Holdout", list(_holdout(status.at("holdout"))))


def _trial_state(view: ObjectView, trial: Fields) -> str:
    """Its state, and the reason; what has begun waits with its sweep."""
    state = trial.text("state")
    is_suspended = view.phase == "Suspended" and state == "Running"
    return " ".join(filter(None, ("Suspended" if is_suspended else state, trial.text("reason"))))


def _holdout(holdout: Fields) -> Iterator[str]:
    """The best trial on examples that its choice did not depend on."""
    if name := holdout.text("evaluationName"):
        score = _score(holdout) if holdout.number("score") is not None else holdout.text("reason") or "not measured yet"
        yield f"{score}  trial {holdout.text('number')}, Evaluation {name}"


def _score(trial: Fields) -> str:
    score, low, high = (trial.number(name) for name in ("score", "low", "high"))
    return figure(score) if low is None or high is None else f"{figure(score)} ({figure(low)} to {figure(high)})"


def _trial(trial: Fields) -> str:
    values = trial.at("values").value
    texts = [f"{path.rpartition('.')[2]} {value}" for path, value in values.items()] if isinstance(values, dict) else []
    if model := trial.text("model"):  # its name says more than where it lies
        texts = list(filter(None, (model, trial.text("verdict"))))
    return "  ".join([trial.text("fineTuneJobName"), ", ".join(texts)])


def progress_rows(status: Fields, bar_width: int) -> Iterator[Row]:
    """The bar, and what was measured last."""
    progress = status.at("progress")
    percent = progress.number("percent")
    if percent is None:
        return
    parts = [
        f"{bar(percent, bar_width)} {percent:.0f}%",
        f"step {progress.text('step')}/{progress.text('totalSteps')}",
    ]
    if (epoch := progress.number("epoch")) is not None:
        parts.append(f"epoch {epoch:.2f}")
    if eta := progress.text("estimatedRemaining"):
        parts.append(f"{eta} left")
    yield Row("Progress", ["  ".join(parts)])
    measured = [f"{label} {figure(number)}" for label, number in measures(progress)]
    if (rate := progress.number("learningRate")) is not None:
        measured.append(f"learning rate {figure(rate)}")
    measured += [f"{name} NaN or infinite" for one in progress.at("notFinite") if (name := one.text())]
    if (speed := progress.number("tokensPerSecond")) is not None:
        measured.append(f"{speed:,.0f} tokens/s")
    yield Row("Measured", [", ".join(measured)] if measured else [])


def _attempts(view: ObjectView, now: datetime, most: int | None) -> Iterator[Row]:
    attempt = view.status.at("attempt")
    if attempt:
        limit = view.fields.text("spec", "retryLimit") or "3"
        line = (
            f"{attempt.text('number')} {attempt.text('state')}".rstrip()
            + f", {attempt.text('retries') or '0'} of {limit} retries used"
            + f", {counted(attempt.whole('disruptions') or 0, 'disruption')}"
        )
        following = attempt.time("nextTime")
        if following is not None and following > now:
            line += f", the next one in {duration((following - now).total_seconds())}"
        yield Row("Attempt", [line])
    ended = [attempt_line(one) for one in view.status.at("endedAttempts")]
    yield Row("Ended", ended if most is None else ended[-most:])


def attempt_line(attempt: Fields) -> str:
    """One ended attempt."""
    step = attempt.text("step")
    begin, end = attempt.time("startTime"), attempt.time("endTime")
    how = " ".join(part for part in (attempt.text("outcome"), attempt.text("reason")) if part)
    took = f" after {duration((end - begin).total_seconds())}" if begin and end else ""
    line = f"{attempt.text('number')} {how}{took}" + (f" at step {step}" if step else "")
    return f"{line}: {message}" if (message := attempt.text("message")) else line


def _dataset(dataset: Fields, most: int | None) -> Iterator[Row]:
    counts = []
    for name in ("training", "validation"):
        found = dataset.at(name)
        if (examples := found.number("examples")) is not None:
            counts.append(f"{examples:,.0f} {name} examples, {found.number('tokens') or 0:,.0f} tokens")
    errors = broken_lines(dataset)
    warnings = [f"warning: {one.text()}" for one in dataset.at("warnings")]
    yield Row("Dataset", ["; ".join(counts)] if counts else [])
    yield Row("Lines", _some([*errors, *warnings], most), "yellow")


def _some(lines: list[str], most: int | None) -> list[str]:
    if most is None or len(lines) <= most:
        return lines
    return [*lines[:most], f"... and {len(lines) - most} more: --all shows them"]


def _checkpoints(status: Fields, now: datetime) -> Iterator[Row]:
    checkpoints = list(status.at("checkpoints"))
    if checkpoints:
        newest = checkpoints[-1]
        details = [f"the newest of step {newest.text('step')}"]
        if committed := age(newest.time("committedTime"), now):
            details.append(f"{committed} ago")
        if bytes_of := size(newest.number("size")):
            details.append(bytes_of)
        yield Row("Checkpoints", [f"{len(checkpoints)}, {', '.join(details)}"])
    corrupt = [f"step {one.text('step')}: {one.text('message')}" for one in status.at("corruptCheckpoints")]
    yield Row("Corrupt", corrupt, "yellow")


def _budget(status: Fields, budget_hours: float | None) -> Iterator[str]:
    usage = status.at("usage")
    seconds = usage.number("acceleratorSeconds")
    if seconds is None:
        return
    allowed = "" if budget_hours is None else f"; the class allows the namespace {budget_hours:g}"
    yield f"{seconds / 3600:.1f} accelerator hours in {usage.text('month')} (class {usage.text('className')}){allowed}"


_OF_RESULT = (
    ("step", "step"),
    ("validation reward", "validReward"),
    ("loss", "trainLoss"),
    ("validation loss", "evalLoss"),
)


def _result(result: Fields) -> Iterator[Row]:
    if not result:
        return
    facts = [
        f"{label} {value:.4g}" if path != "step" else f"{label} {value:.0f}"
        for label, path in _OF_RESULT
        if (value := result.number(path)) is not None
    ]
    yield Row("Result", [result.text("uri"), ", ".join(facts)], "green")
    yield Row("Report", [uri] if (uri := result.text("reportUri")) else [])


def _failure(view: ObjectView, most: int | None) -> Iterator[Row]:
    """What failed last, unless that is all of why the run ended, which is shown already."""
    failure, stalled = view.status.at("failure"), view.condition("Stalled")
    if not failure or (stalled.status == "True" and failure.text("message") == stalled.message):
        return
    where = [f"Pod {pod}" for pod in [failure.text("pod")] if pod]
    where += [f"rank {rank}" for rank in [failure.text("rank")] if rank]
    place = f" ({', '.join(where)})" if where else ""
    message = failure.block("message").strip().splitlines() or [""]
    yield Row("Failure", [f"{failure.text('reason')}{place}: {message[0]}", *message[1:]], "red")
    log = failure.block("log").rstrip().splitlines()
    yield Row("Log", log if most is None else log[-most:])


def _served_model(served: Fields) -> Iterator[str]:
    """Which files answer: of a checkpoint, an adapter with its base, or a whole model."""
    uri, adapter, checkpoint = served.text("uri"), served.text("adapterUri"), served.text("checkpoint", "uri")
    if tuned := checkpoint or adapter:
        yield f"{tuned} on {uri}"
    elif uri:
        yield uri
