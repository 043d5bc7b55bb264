"""What Prometheus gets from a training, over HTTP while it runs."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import urllib3

from e2e.cluster.machine.ports import free_ports
from finetune_api.sources import parse_location
from finetune_trainer.report.training_metrics import ExposeMetrics
from finetune_trainer.storage.storage import Storage
from tests.integration.trainer.runs import Workplace, train_here

DEADLINE_SECONDS = 60


def value(page: str, name: str) -> float:
    """The value of a metric without labels; 0 when it is not there."""
    found = re.search(rf"^{name} (\S+)$", page, re.MULTILINE)
    return float(found[1]) if found else 0.0


class Scraper(threading.Thread):
    """Reads the metrics over and over, until the port is closed again."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._url = f"http://127.0.0.1:{port}/metrics"
        self.pages: list[str] = []

    def run(self) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline:
            try:
                self.pages.append(urllib3.request("GET", self._url, timeout=5, retries=False).data.decode())
            except urllib3.exceptions.HTTPError:
                if self.pages:
                    return
            time.sleep(0.05)

    def read_another(self) -> None:
        """Wait for a page that was asked for after this."""
        wanted = len(self.pages) + 2
        while len(self.pages) < wanted and self.is_alive():
            time.sleep(0.01)


@pytest.fixture
def port() -> int:
    (free,) = free_ports(1)
    return free


def test_metrics_are_served_while_a_run_trains(
    workplace: Workplace, tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some of its steps are not left before they were read: a busy machine reads seldom."""
    scraper = Scraper(port)
    on_step_end = ExposeMetrics.on_step_end

    def read(self: ExposeMetrics, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        on_step_end(self, args, state, control, **kwargs)
        if state.global_step in (1, 11, 20):
            scraper.read_another()

    monkeypatch.setattr(ExposeMetrics, "on_step_end", read)
    scraper.start()
    train_here(workplace.train_run("metrics", metrics_port=port), tmp_path)
    scraper.join(DEADLINE_SECONDS)
    steps = [value(page, "finetune_trainer_step") for page in scraper.pages]
    assert len(set(steps)) > 2
    assert steps == sorted(steps)
    last = scraper.pages[-1]
    for name in ("loss", "eval_loss", "learning_rate", "gradient_norm", "tokens_per_second", "step_seconds_count"):
        assert value(last, f"finetune_trainer_{name}") > 0, name
    assert value(last, "finetune_trainer_checkpoint_stall_seconds_total") > 0


def test_a_port_that_is_taken_is_no_failure(workplace: Workplace, storage: Storage, tmp_path: Path) -> None:
    run = workplace.train_run("port-taken", {"epochs": 0.2}, dataset=workplace.dataset(validation=None))
    with socket.create_server(("", 0)) as taken:
        report = train_here(run.model_copy(update={"metrics_port": taken.getsockname()[1]}), tmp_path)
    lines = storage.read(parse_location(run.output_uri).join("events.jsonl")).splitlines()
    assert [json.loads(line)["message"] for line in lines if b"metrics" in line] == [
        "Step 1/2: training loss=" + f"{json.loads(lines[1])['training_loss']:.2f}",
        "Step 2/2: training loss=" + f"{report.result.train_loss:.2f}",
    ]
