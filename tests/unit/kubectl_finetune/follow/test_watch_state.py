"""What a watch prints, and its live picture."""

from __future__ import annotations

import copy
import io
import re
from datetime import datetime

import pytest
from rich.console import Console

from finetune_client.waiting import progress_of
from finetune_view.object_view import object_view
from kubectl_finetune.display.numbers import duration, sparkline
from kubectl_finetune.follow.watch_state import WatchState, screen_of
from tests.unit.kubectl_finetune.cluster_objects import (
    FAILED,
    NOW,
    SUCCEEDED,
    TRAINING,
    Object,
    condition,
    event,
    job,
    pod,
)


def at_step(step: int, loss: float) -> Object:
    status = copy.deepcopy(TRAINING)
    status["progress"] |= {"step": step, "percent": step // 10, "loss": loss, "estimatedRemaining": f"{1000 - step}s"}
    return job(status)


def picture(state: WatchState, width: int = 80, height: int = 24) -> str:
    file = io.StringIO()
    to = Console(file=file, width=width, height=height, force_terminal=True, color_system="standard")
    to.print(screen_of(state, NOW, width, height))
    return re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue())


def test_one_line_is_printed_for_each_change_and_none_for_a_report_within_a_percent() -> None:
    state = WatchState()
    assert state.take_object("ADDED", at_step(420, 0.5)) == ["Training  attempt 2  42%  loss 0.5  validation 0.61"]
    assert state.take_object("MODIFIED", at_step(421, 0.49)) == []
    assert state.take_object("MODIFIED", at_step(430, 0.48)) == ["Training  attempt 2  43%  loss 0.48  validation 0.61"]
    assert state.take_object("MODIFIED", job(SUCCEEDED))[0].endswith("s3://m/result")
    assert state.take_object("MODIFIED", job(SUCCEEDED)) == []


def test_with_rft_the_rewards_are_in_the_line() -> None:
    status = copy.deepcopy(TRAINING)
    status["progress"] |= {"reward": 0.48, "validReward": 0.45678, "evalLoss": None, "loss": 0.0034}
    told = "reward 0.48  validation reward 0.4568  loss 0.0034"
    assert WatchState().take_object("ADDED", job(status)) == [f"Training  attempt 2  42%  {told}"]
    assert told.replace("  ", ", ") in picture_of(status)
    assert told in str(progress_of(object_view(job(status))))


def picture_of(status: Object) -> str:
    state = WatchState()
    state.take_object("ADDED", job(status))
    return picture(state, width=120)


def test_a_diagnosis_is_in_the_line() -> None:
    (line,) = WatchState().take_object("ADDED", job(FAILED))
    assert line.startswith("Failed  CUDAOutOfMemory: The accelerator ran out of memory.")


def test_a_message_with_line_breaks_is_one_line() -> None:
    status = {"phase": "Queued", "conditions": [condition("Stalled", "True", "Unschedulable", "one\ntwo\x1b[2J")]}
    (line,) = WatchState().take_object("ADDED", job(status))
    assert line == "Queued  Unschedulable: one two^[[2J"


def test_pods_and_their_events_get_a_line_when_they_change() -> None:
    state = WatchState()
    state.take_object("ADDED", job(TRAINING))
    waiting = pod("router-train-2", state={"waiting": {"reason": "ImagePullBackOff"}})
    assert state.take_pod("ADDED", waiting) == ["Pod router-train-2-0-abcde: ImagePullBackOff"]
    assert state.take_pod("MODIFIED", waiting) == []
    assert state.take_pod("MODIFIED", pod("router-train-2")) == ["Pod router-train-2-0-abcde: Running"]
    told = event(waiting, "Failed", "can't pull")
    recorded = datetime.fromisoformat(told["lastTimestamp"]).astimezone()
    line = f"Warning Pod/router-train-2-0-abcde Failed: can't pull ({recorded:%H:%M:%S})"
    assert state.take_event("ADDED", told) == [line], "with its own time: the line is printed now"
    assert state.take_event("MODIFIED", told) == []
    repeats = [count for count in range(2, 40) if state.take_event("MODIFIED", {**told, "count": count})]
    assert repeats == [2, 4, 8, 16, 32], "a probe that fails while a server starts is repeated each second"
    assert state.take_pod("DELETED", waiting) == ["Pod router-train-2-0-abcde: gone"]


def test_events_of_others_are_not_shown_and_those_of_pods_that_are_gone_are() -> None:
    state = WatchState()
    state.take_object("ADDED", job(TRAINING))
    assert state.take_event("ADDED", event(pod("other-train-1"), "Failed", "x")) == []
    assert state.take_event("ADDED", event(pod("router-train-2", 1), "Evicted", "x")) != []
    assert state.take_event("ADDED", event(pod("router-train-22", 1), "Evicted", "x")) == []


def test_an_object_that_was_made_again_is_another_one() -> None:
    state = WatchState()
    state.take_object("ADDED", at_step(420, 0.5))
    state.take_pod("ADDED", pod("router-train-2"))
    assert state.take_object("DELETED", job(TRAINING)) == ["FineTuneJob router was deleted"]
    assert state.deleted
    state.take_object("ADDED", job(TRAINING, uid="another"))
    assert not state.deleted and not state.pods


def test_the_curve_goes_back_with_an_attempt_that_resumes() -> None:
    state = WatchState()
    for step, loss in ((10, 3.0), (20, 2.0), (30, 1.0), (20, 2.1), (30, 1.1)):
        state.take_object("MODIFIED", at_step(step, loss))
    assert state.losses == [(10, 3.0), (20, 2.1), (30, 1.1)]
    state.take_object("MODIFIED", job({**SUCCEEDED, "progress": {"step": 20, "totalSteps": 30, "loss": 2.1}}))
    assert state.losses == [(10, 3.0), (20, 2.1), (30, 1.1)]  # the step of the result is no step back


@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 12), (20, 5), (200, 50)])
def test_the_picture_fits_the_terminal(width: int, height: int) -> None:
    state = WatchState()
    for step in range(0, 430, 10):
        state.take_object("MODIFIED", at_step(step, 3 - step / 200))
    for index in range(30):
        state.take_pod("ADDED", pod("router-train-2", index))
        state.take_event("ADDED", event(pod("router-train-2", index), f"Reason{index}", "long " * 100))
    text = picture(state, width, height)
    assert max(map(len, text.splitlines())) <= width
    if width >= 80:
        assert len(text.splitlines()) <= height
        assert "█" in text and "3 -> 0.9" in text and "42%" in text and "router-train-2-29-abcde" in text


def test_the_picture_obeys_no_markup() -> None:
    state = WatchState()
    hostile = "[red]x[/red] \x1b[2J"
    state.take_object(
        "ADDED", job({**TRAINING, "phase": hostile, "conditions": [condition("Stalled", "True", "A", hostile)]})
    )
    state.take_event("ADDED", event(job(), "A", hostile))
    state.notes.append("Pods are not shown: [/] forbidden")
    text = picture(state, 200)
    assert text.count("[red]x[/red] ^[[2J") == 3 and "[/] forbidden" in text


def test_a_curve_is_as_wide_as_it_may_be_and_falls_with_the_values() -> None:
    assert sparkline([float(value) for value in range(8)], 8) == "▁▂▃▄▅▆▇█"
    assert len(sparkline([1.0] * 1000, 40)) == 40
    assert sparkline([3.0, 1.0], 40) == "█▁"
    assert sparkline([2.0, 2.0], 40) == "▁▁"
    assert sparkline([], 40) == sparkline([1.0], 0) == ""


def test_durations_are_those_of_finetune_api() -> None:
    from finetune_api.pod_contracts.progress import human_duration

    for seconds in (0, 119, 120, 125, 599, 600, 3599, 3600, 7200, 10_799, 10_800, 12_000, 28_800, 30_000, 172_799):
        assert duration(seconds) == human_duration(seconds), seconds
