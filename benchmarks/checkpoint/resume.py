"""How long a Pod takes from its start to the first step after a resume, and where the time goes.

    python -m benchmarks.checkpoint.resume

A run of the trainer's own command is stopped by SIGTERM after its first checkpoint, and started again: a random Llama,
all its weights trained, on the CPU, against a SeaweedFS on this machine. Times are from the start of the process to the
lines of its log; in a cluster, those of the scheduler and of the image come before.
"""

from __future__ import annotations

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.checkpoint.runs import BUCKET, RESULTS, full_run, put_llama
from e2e.cluster.machine.children import with_parent
from e2e.s3 import local_s3
from finetune_api.pod_contracts.run import TrainRun
from finetune_trainer.process import environment

DEADLINE_SECONDS = 600.0
FIRST_STEP = r"Step \d+/\d+: training loss"
STAGES = {
    "the process imports and reads its run": r"fetching the model$",
    "it fetches the model": r"fetching the model: done",
    "it fetches and tokenizes the data": r"looking for a checkpoint$",
    "it fetches the checkpoint": r"looking for a checkpoint: done",
    "it loads the model": r"Resumed from the checkpoint",
    "it restores, and takes the first step": FIRST_STEP,
}
ANSI = re.compile(r"\x1b\[[0-9;]*m")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def benchmark(
    repeats: Annotated[int, typer.Option(min=1)] = 3,
    layers: Annotated[int, typer.Option(min=1, help="12 make 134 M parameters, 4 make 78 M.")] = 12,
    output: Annotated[Path, typer.Option(help="Where the JSON goes.", dir_okay=False)] = RESULTS / "resume.json",
) -> None:
    """Measure, print a table of medians, write JSON."""
    environment.prepare()
    with local_s3() as s3, tempfile.TemporaryDirectory(prefix="resume-") as directory:
        os.environ.update(s3.environment())
        s3.create_bucket(BUCKET)
        scratch = Path(directory)
        put_llama(s3, layers, scratch / "model")
        run = full_run(s3, steps=1000, every_steps=2)
        run_until(run, scratch, "Checkpoint of step 2 committed")
        resumed = []
        for attempt in range(2, 2 + repeats):
            times = run_until(run.model_copy(update={"attempt": attempt}), scratch, FIRST_STEP)
            resumed.append(times)
    medians = {stage: statistics.median(times[stage] for times in resumed) for stage in STAGES}
    typer.echo(table(medians))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps({"medians": medians, "runs": resumed}, indent=1) + "\n")


def run_until(run: TrainRun, directory: Path, line: str) -> dict[str, float]:
    """Start the command, stop it after a line of its log; answer when each stage ended, in seconds from the start."""
    file = directory / "run.json"
    file.write_text(run.model_dump_json(by_alias=True))
    began = time.monotonic()
    seen: dict[str, float] = {}
    with subprocess.Popen(
        with_parent([sys.executable, "-m", "finetune_trainer", "train", file]),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TMPDIR": str(directory)},
    ) as process:
        assert process.stdout is not None
        log = []
        for text in process.stdout:
            log.append(text)
            for stage, pattern in STAGES.items():
                if stage not in seen and re.search(pattern, ANSI.sub("", text).strip()):
                    seen[stage] = time.monotonic() - began
            if re.search(line, text):
                process.send_signal(signal.SIGTERM)
            if time.monotonic() - began > DEADLINE_SECONDS:
                process.kill()
        if process.wait(DEADLINE_SECONDS) != 128 + signal.SIGTERM:
            raise SystemExit("".join(log[-20:]))
    return seen


def table(medians: dict[str, float]) -> str:
    """When each stage ended, and how long it took."""
    rows, before = [], 0.0
    for stage, end in medians.items():
        rows.append(f"{stage:<40}{end - before:>8.2f} s {end:>8.2f} s")
        before = end
    return "\n".join([f"{'':<40}{'took':>10} {'ended':>10}", *rows])


if __name__ == "__main__":
    app()
