"""What a person sees of a search: kubectl's columns while it goes on, and the report once it is over."""

from __future__ import annotations

import html
import os
import subprocess
import sys
from pathlib import Path

import pytest

from e2e.cluster.binaries import binaries
from e2e.cluster.components.control_plane import ControlPlane
from tests.integration.operator import played
from tests.integration.operator.api import Api
from tests.integration.operator.finetunesweeps.trials import SWEEP, evaluation_of, trains, trials, wait_trial
from tests.integration.operator.jobs import evaluation_report
from tests.unit.operator.finetunesweep.sweeps import OBJECTIVE, RANK

pytestmark = pytest.mark.usefixtures("operator")

SECONDS = 120
SCORES = {8: 0.35, 16: 0.75, 32: 0.55}


def test_columns_tell_how_far_a_search_is_and_its_report_shows_what_it_found(
    cluster: ControlPlane, api: Api, tmp_path: Path
) -> None:
    search = {"algorithm": "Grid", "parameters": [{**RANK, "numbers": list(SCORES)}]}
    api.create("FineTuneSweep", "router", {**SWEEP, "search": search, "objective": OBJECTIVE})
    wait_trial(api, 2)
    assert columns(cluster, api) == {"PHASE": "Running", "TRIALS": "0", "RUNNING": "2", "REMAINING": "1"}
    for number in range(1, len(SCORES) + 1):
        trial = wait_trial(api, number)
        trains(api, trial, 0.5)
        (pod,) = api.wait_children(evaluation_of(api, trial), "evaluate", "Pod")
        played.ends(api, pod, evaluation_report(tuned=SCORES[trial["values"]["adapter.lora.rank"]]))
    api.wait_reason("FineTuneSweep", "router", "Succeeded")
    best = trials(api)[1]["fineTuneJobName"]
    assert columns(cluster, api) == {
        "PHASE": "Succeeded",
        "TRIALS": "3",
        "RUNNING": "0",
        "REMAINING": "0",
        "BEST": "0.75",
        "BEST TRIAL": best,
    }
    page = report(cluster, api, tmp_path / "page.html")
    assert f"FineTuneJob '{best}' has the highest score" in page
    for drawn in ("Scores of the trials with their 95 % intervals", "The values of each trial, and its score"):
        assert f'aria-label="{drawn}' in page
    for score in SCORES.values():
        assert f"{score:g}" in page


def columns(cluster: ControlPlane, api: Api) -> dict[str, str]:
    """What `kubectl get fts` prints of the only sweep, but for its age and its reason; no empty column."""
    head, line = kubectl(cluster, api, "get", "fts").splitlines()
    starts = [at for at, letter in enumerate(head) if letter != " " and (at == 0 or head[at - 2 : at] == "  ")]
    cells = {
        head[start:end].strip(): line[start:end].strip() for start, end in zip(starts, [*starts[1:], None], strict=True)
    }
    return {name: text for name, text in cells.items() if text and name not in ("NAME", "REASON", "AGE")}


def kubectl(cluster: ControlPlane, api: Api, *words: str) -> str:
    program = binaries(["kubectl"])["kubectl"]
    command = [program, "--kubeconfig", cluster.kubeconfig, "-n", api.namespace, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS).stdout


def report(cluster: ControlPlane, api: Api, file: Path) -> str:
    """The page that `kubectl finetune report` writes."""
    words = ["-m", "kubectl_finetune", "report", "fts/router", "-n", api.namespace, "-o", str(file)]
    folder = binaries(["kubectl"])["kubectl"].parent
    environment = {
        **os.environ,
        "PATH": f"{folder}:{os.environ['PATH']}",
        "PYTHONPATH": ":".join(sys.path),
        "KUBECONFIG": str(cluster.kubeconfig),
    }
    subprocess.run([sys.executable, *words], check=True, env=environment, capture_output=True, timeout=SECONDS)
    return html.unescape(file.read_text())
