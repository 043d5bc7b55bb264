"""The demo: how long it waits, and what it says when it has failed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from e2e.demo import __main__ as demo
from e2e.demo import api
from e2e.demo.scenario import describe_evaluation
from e2e.steps import Step, StepFailed

Object = dict[str, Any]


class Played:
    """An object whose status is a function of the seconds that have passed; the clock goes on with every sleep."""

    def __init__(self, status: Callable[[float], Object], monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds, self.status = 0.0, status
        clock = SimpleNamespace(monotonic=lambda: self.seconds, sleep=self._sleep)
        monkeypatch.setattr(api, "time", clock)

    def _sleep(self, seconds: float) -> None:
        self.seconds += 10

    def get(self, plural: str, namespace: str, name: str) -> Object:
        return {"metadata": {"generation": 1}, "status": {"observedGeneration": 1, **self.status(self.seconds)}}

    def wait(self, timeout: float) -> Object:
        step = cast("Step", SimpleNamespace(say=lambda text: None))
        return api.wait_ready(cast("api.Api", self), "jobs", "default", "j", step, lambda _: "", timeout=timeout)


def ready(yes: bool) -> list[Object]:
    return [{"type": "Ready", "status": str(yes), "reason": "Training", "message": "Trains."}]


def training(seconds: float, *, ready_at: float, stuck_at: float = float("inf")) -> Object:
    step = int(min(seconds, stuck_at) // 100)
    return {"phase": "Training", "progress": {"step": step}, "conditions": ready(seconds >= ready_at)}


def test_a_slow_training_is_waited_for_as_long_as_it_advances(monkeypatch: pytest.MonkeyPatch) -> None:
    played = Played(lambda seconds: training(seconds, ready_at=2000), monkeypatch)
    played.wait(timeout=900)
    assert played.seconds == 2000


def test_a_training_that_stands_still_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    played = Played(lambda seconds: training(seconds, ready_at=9000, stuck_at=1000), monkeypatch)
    with pytest.raises(StepFailed, match=r"j is not ready after 1910 s, 910 s of them without an advance: Training"):
        played.wait(timeout=900)


def test_no_wait_is_endless(monkeypatch: pytest.MonkeyPatch) -> None:
    played = Played(lambda seconds: training(seconds, ready_at=99999), monkeypatch)
    with pytest.raises(StepFailed, match="without an advance"):
        played.wait(timeout=900)
    assert played.seconds == api.LONGEST_SECONDS + 10


def test_the_cluster_can_be_watched_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def fail(platform: object, model: str | None) -> None:
        raise StepFailed("nothing was applied")

    monkeypatch.setattr(demo, "apply", fail)
    monkeypatch.setattr(demo, "kubectl", lambda: Path("/bin/of/kubectl"))
    monkeypatch.setattr("e2e.steps.console.print", lambda text, **_: said.append(text))
    platform = SimpleNamespace(cluster=SimpleNamespace(kubeconfig=Path("/k/kubeconfig")))
    with pytest.raises(StepFailed, match="nothing was applied"):
        demo.run(cast("demo.Platform", platform), None)
    assert "export KUBECONFIG=/k/kubeconfig PATH=/bin/of:$PATH\n" in said[0]


def test_a_failed_demo_says_what_stays_and_how_to_look_at_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(platform: object, model: str | None) -> None:
        raise StepFailed("dictionary is stalled.")

    platform = SimpleNamespace(cluster=SimpleNamespace(kubeconfig=Path("/k/kubeconfig")))
    monkeypatch.setattr(demo, "cache_dir", lambda: tmp_path)  # whose lock a demo beside the tests does not hold
    monkeypatch.setattr(demo, "prepare", lambda: platform)
    monkeypatch.setattr(demo, "run", fail)
    monkeypatch.setattr(demo, "kubectl", lambda: Path("/bin/of/kubectl"))
    said: list[str] = []
    monkeypatch.setattr("e2e.steps.console.print", lambda text, **_: said.append(text))
    with pytest.raises(SystemExit):
        demo.demo()
    (text,) = said
    assert text.startswith(
        "dictionary is stalled.\n\nThe cluster stays up, and the objects that were applied to it continue"
    )
    assert "export KUBECONFIG=/k/kubeconfig PATH=/bin/of:$PATH" in text
    assert "make cluster-down  removes the cluster" in text


def test_an_evaluation_is_reported_with_its_percent_and_the_time_left() -> None:
    running = {"phase": "Running", "conditions": [{"type": "Ready", "message": "The evaluation Pod is running."}]}
    assert describe_evaluation({"status": running}) == "Running: The evaluation Pod is running."
    progress = {"percent": 19, "estimatedRemaining": "3m4s"}
    assert describe_evaluation({"status": {**running, "progress": progress}}) == "Running: 19 %, 3m4s left"
