"""A watch where there is no terminal: what is printed, and in which order."""

from __future__ import annotations

import queue
from collections.abc import Callable

from finetune_view.resource import FINE_TUNE_JOB, Resource
from kubectl_finetune.cluster.kubectl import Kubectl
from kubectl_finetune.errors import ExitCode
from kubectl_finetune.follow.watch import Change, Watcher
from tests.unit.kubectl_finetune.cluster_objects import SUCCEEDED, TRAINING, Object, event, job, pod


class Played:
    """Watches that have seen all of this; `then` comes after a look."""

    def __init__(self, *seen: tuple[str, Object]) -> None:
        self.changes: queue.Queue[Change] = queue.Queue()
        self.add(*seen)

    def add(self, *seen: tuple[str, Object]) -> None:
        for source, found in seen:
            self.changes.put(Change(source, "ADDED", found))

    def start(self, source: str, *words: str) -> None:
        pass


def followed(watches: Played, look: Callable[[], None] = lambda: None) -> list[str]:
    lines: list[str] = []
    watcher = Watcher(Kubectl(), Resource(FINE_TUNE_JOB, "router"), lines.append)
    assert watcher.follow(watches, None, False, look) is ExitCode.SUCCEEDED  # type: ignore[arg-type]
    return [line for line in lines if "Job/" in line or "Pod/" in line]


def test_events_that_existed_are_printed_in_the_order_of_their_times() -> None:
    """kubectl lists them by name."""
    first = event(pod("router-train-2"), "Scheduled", "on node a", seconds=90)
    second = event(pod("router-train-2", 1), "Pulled", "the image", seconds=60)
    third = event(pod("router-train-2"), "Killing", "the container", seconds=30)
    watches = Played(("object", job(TRAINING)), ("events", third), ("events", first), ("events", second))
    watches.add(("object", job(SUCCEEDED)))
    assert [line.split(":")[0].split()[-1] for line in followed(watches)] == ["Scheduled", "Pulled", "Killing"]


def test_what_comes_later_is_printed_once_nothing_more_comes() -> None:
    watches = Played(("object", job(TRAINING)), ("events", event(pod("router-train-2"), "Pulled", "the image")))
    looks = iter(range(3))

    def end_at_the_third_look() -> None:
        if next(looks, 0) == 2:
            watches.add(("object", job(SUCCEEDED)))

    assert len(followed(watches, end_at_the_third_look)) == 1
