"""Completions a second of reinforcement fine-tuning, against TRL's GRPOTrainer with the same settings.

python -m benchmarks.rft [--rounds 3] [--json FILE]

Generating, grading and learning, without checkpoints and evaluations, which TRL's has none of here. Each training is a
process of its own, and the two take turns: what else the machine does meets both. `process_time` counts all threads of
the process, so that samples per CPU second say something on a machine with other work too.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.processes import end_on_sigterm, running
from benchmarks.rft import workload

RESULTS = Path(__file__).parents[1] / "results"
DEADLINE_SECONDS = 900
AIM = 0.95
CONTENDERS = {"plain": "TRL's GRPOTrainer", "ours": "finetune-trainer"}
FIGURES = {"samplesPerSecond": "samples/s", "samplesPerCpuSecond": "samples per CPU second"}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def benchmark(
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    output: Annotated[Path, typer.Option("--json", help="Where the figures go.")] = RESULTS / "rft.json",
) -> None:
    """Measure, print a table, write JSON; exit with status 1 below 0.95 of TRL's samples."""
    end_on_sigterm()
    console = Console()
    measured: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="benchmark-rft-") as scratch:
        directory = Path(scratch)
        workload.save(directory)
        for number in range(rounds):
            both: dict[str, dict[str, float]] = {}
            for name in CONTENDERS if number % 2 == 0 else reversed(CONTENDERS):
                console.print(f"round {number + 1} of {rounds}: {CONTENDERS[name]}", style="dim")
                both[name] = _train(name, directory)
            measured.append({"load": os.getloadavg()[0], **both})
    ratios = {figure: [one["ours"][figure] / one["plain"][figure] for one in measured] for figure in FIGURES}
    summary = {figure: [statistics.median(of), min(of), max(of)] for figure, of in ratios.items()}
    console.print(_table(measured, summary))
    machine = {"device": platform.processor() or platform.machine(), "cpus": os.cpu_count()}
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps({"machine": machine, "rounds": measured, "ratios": summary}, indent=1) + "\n")
    if summary["samplesPerCpuSecond"][0] < AIM:
        raise typer.Exit(1)


def _train(name: str, directory: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.rft.contender", name, str(directory)]
    stdout, stderr = directory / f"{name}.stdout", directory / f"{name}.stderr"
    environment = {**os.environ, "TMPDIR": str(directory)}
    with running(command, environment, stdout, stderr) as process:
        try:
            failed = process.wait(timeout=DEADLINE_SECONDS) != 0
        except subprocess.TimeoutExpired:
            failed = True
    if failed:
        raise SystemExit(
            f"{CONTENDERS[name]} failed, or took over {DEADLINE_SECONDS} s:\n"
            f"{stderr.read_text(errors='replace')[-4000:]}"
        )
    figures: dict[str, float] = json.loads(stdout.read_text(errors="replace").splitlines()[-1])
    return figures


def _table(measured: list[dict[str, Any]], summary: dict[str, list[float]]) -> Table:
    made = Table(title=f"Reinforcement fine-tuning, median of {len(measured)} rounds", caption_justify="left")
    for column in ("", *FIGURES.values()):
        made.add_column(column, justify="right" if column else "left")
    for name, title in CONTENDERS.items():
        made.add_row(title, *(f"{statistics.median(one[name][figure] for one in measured):.1f}" for figure in FIGURES))
    made.add_row("ratio, by rounds", *("{:.3f}\n({:.3f} to {:.3f})".format(*summary[figure]) for figure in FIGURES))
    return made


if __name__ == "__main__":
    app()
