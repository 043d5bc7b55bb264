"""Tokens per second and peak memory of the trainer, against plain TRL with the same settings.

python -m benchmarks.trainer [--rounds 3] [--adapter LoRA|QLoRA|Full]... [--json FILE]

Each training is a process of its own, and the two take turns: what else the machine does meets both. On a machine with
GPUs a random Llama of 8B's shape is trained at a context of 4096 tokens, Full with FSDP over all of them; without, one
of 7.5 million parameters. The trainer reports its progress and saves two checkpoints (Full on GPUs: one, at the end);
plain TRL does neither.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.processes import end_on_sigterm, running
from benchmarks.trainer.workload import DATA, MODEL, Workload, on_cpu, on_gpu

if TYPE_CHECKING:
    from e2e.s3 import S3

RESULTS = Path(__file__).parents[1] / "results"
BUCKET = "benchmark"
DEADLINE_SECONDS = 3600
AIM_OVERHEAD = 0.01
SAME_LOSS = 1e-4
SAME_LOSS_IN_HALF = 2e-3
SAME_DPO_LOSS_IN_HALF = 5e-2
"""DPO's loss depends on differences between sums of hundreds of log-probabilities, each rounded to bfloat16. With a
random 8B Llama, two runs of finetune-trainer were 1.1 % apart on an H200 (2026-11-27 and 28), and plain TRL 2.0 %. In
float32 on a CPU the two contenders agree to seven digits."""
CONTENDERS = ("plain", "ours")
TITLES = {"plain": "plain TRL", "ours": "finetune-trainer"}

Figures = dict[str, float]


class Adapter(StrEnum):
    """What is trained, by the API's names."""

    LORA = "LoRA"
    QLORA = "QLoRA"
    FULL = "Full"


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def benchmark(
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    adapter: Annotated[
        list[Adapter] | None, typer.Option(help="May be given more than once. Default: LoRA and Full.")
    ] = None,
    output: Annotated[Path, typer.Option("--json", help="Where the figures go.")] = RESULTS / "trainer.json",
) -> None:
    """Measure, print a table for each adapter, write JSON; exit with status 1 when our own parts cost over 1 %."""
    import torch

    end_on_sigterm()
    gpus = torch.cuda.device_count()
    console = Console()
    found: dict[str, dict[str, Any]] = {}
    for kind in adapter or [Adapter.LORA, Adapter.FULL]:
        processes = max(gpus, 1) if kind is Adapter.FULL else 1
        workload = on_gpu(kind, processes) if gpus else on_cpu(kind)
        with tempfile.TemporaryDirectory(prefix="benchmark-trainer-") as models:
            found[kind] = {"workload": vars(workload), "rounds": measure(workload, rounds, console, Path(models))}
        found[kind]["summary"] = summarize(found[kind]["rounds"])
        console.print(table(kind, rounds, found[kind]["summary"]))
    device = torch.cuda.get_device_name() if gpus else platform.processor() or platform.machine()
    machine = {"device": device, "devices": gpus, "cpus": os.cpu_count(), "torch": torch.__version__}
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps({"machine": machine, **found}, indent=1) + "\n")
    if any(one["summary"]["ownShare"] > AIM_OVERHEAD for one in found.values()):
        raise typer.Exit(1)


def measure(workload: Workload, rounds: int, console: Console, models: Path) -> list[dict[str, Figures]]:
    """The figures of all in every round. Raises SystemExit when one fails, or when they did not learn the same.

    `models` keeps the weights for other workloads of the same shape.
    """
    measured = []
    with _storage() as s3, reports() as url, tempfile.TemporaryDirectory(dir=models) as scratch:
        directory = Path(scratch)
        workload.save(directory, models)
        environment = {**os.environ, "TMPDIR": scratch, "BENCHMARK_REPORTS_URL": url}
        if s3 is not None:
            _upload(s3, directory)
            environment |= {**s3.environment(), "BENCHMARK_S3_ENDPOINT": s3.endpoint}
        for number in range(rounds):
            both: dict[str, Figures] = {}
            for name in CONTENDERS if number % 2 == 0 else reversed(CONTENDERS):
                console.print(f"{workload.adapter}, round {number + 1} of {rounds}: {TITLES[name]}", style="dim")
                both[name] = _train(
                    name, workload.processes, directory, environment | {"BENCHMARK_OUTPUT": f"round-{number}"}
                )
                console.print(both[name], style="dim")
            losses = [both[name]["trainLoss"] for name in CONTENDERS]
            # Of several processes, the mean has losses of the first alone in it, where they were not logged.
            if workload.processes == 1 and max(losses) - min(losses) > _same_loss(workload.method) * losses[0]:
                raise SystemExit(f"They did not do the same work: the mean losses are {losses}.")
            measured.append(both)
    return measured


def summarize(rounds: list[dict[str, Figures]]) -> dict[str, Any]:
    """Medians; for ratios those of each round, for both saw the same machine in it, with the least and the most."""
    tokens = rounds[0]["ours"]["tokensOfStep"]

    def median(name: str, figure: str) -> float:
        return statistics.median(one[name][figure] for one in rounds)

    def ratio(figure: str) -> list[float]:
        ratios = [one["ours"][figure] / one["plain"][figure] for one in rounds]
        return [statistics.median(ratios), min(ratios), max(ratios)]

    memory = "peakAcceleratorMegabytes" if "peakAcceleratorMegabytes" in rounds[0]["plain"] else "peakMegabytes"
    own = [
        (one["ours"]["callbackSecondsOfStep"] + one["ours"]["saveStandstillSecondsOfStep"]) / one["ours"]["stepSeconds"]
        for one in rounds
    ]
    return {
        "tokensPerSecond": {name: tokens * median(name, "stepsPerSecond") for name in CONTENDERS},
        "cpuSecondsOfStep": {name: median(name, "cpuSecondsOfStep") for name in CONTENDERS},
        "memoryMegabytes": {name: median(name, memory) for name in CONTENDERS},
        "speedRatio": ratio("stepsPerSecond"),
        "cpuRatio": ratio("cpuSecondsOfStep"),
        "memoryRatio": ratio(memory),
        "callbackMilliseconds": 1000 * median("ours", "callbackSecondsOfStep"),
        "standstillMilliseconds": 1000 * median("ours", "saveStandstillSecondsOfStep"),
        "ownShare": statistics.median(own),
    }


def table(kind: str, rounds: int, summary: dict[str, Any]) -> Table:
    """What people read."""
    made = Table(title=f"{kind}, median of {rounds} rounds", caption_justify="left")
    for column in ("", "tokens/s", "CPU s a step", "peak memory, MB"):
        made.add_column(column, justify="right" if column else "left")
    for name in CONTENDERS:
        speed, cpu, memory = (summary[key][name] for key in ("tokensPerSecond", "cpuSecondsOfStep", "memoryMegabytes"))
        made.add_row(TITLES[name], f"{speed:.0f}", f"{cpu:.4f}", f"{memory:.0f}")
    ratios = ("speedRatio", "cpuRatio", "memoryRatio")
    made.add_row("ratio, by rounds", *("{:.3f}\n({:.3f} to {:.3f})".format(*summary[key]) for key in ratios))
    made.caption = (
        f"Our callbacks take {summary['callbackMilliseconds']:.2f} ms of a step, checkpoints keep it for "
        f"{summary['standstillMilliseconds']:.2f} ms: {summary['ownShare']:.2%} (aim: at most {AIM_OVERHEAD:.0%})."
    )
    return made


@contextmanager
def reports() -> Iterator[str]:
    """Somebody who takes progress reports."""

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


def _same_loss(method: str) -> float:
    import torch

    if not torch.cuda.is_available():
        return SAME_LOSS
    return SAME_DPO_LOSS_IN_HALF if method == "DPO" else SAME_LOSS_IN_HALF


def _storage() -> AbstractContextManager[S3 | None]:
    """None on a machine with GPUs: a model of 16 GB is read from the folder where it was made."""
    import torch

    if torch.cuda.is_available():
        return nullcontext()
    from e2e.s3 import local_s3

    return local_s3()


def _train(name: str, processes: int, directory: Path, environment: dict[str, str]) -> Figures:
    module = ["-m", "benchmarks.trainer.contender", name, str(directory)]
    under_torchrun = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    command = [sys.executable, *(under_torchrun if processes > 1 else []), *module]
    stdout, stderr = directory / f"{name}.stdout", directory / f"{name}.stderr"
    with running(command, environment, stdout, stderr) as process:
        try:
            failed = process.wait(timeout=DEADLINE_SECONDS) != 0
        except subprocess.TimeoutExpired:
            failed = True
    said = stdout.read_text(errors="replace")
    if failed:
        raise SystemExit(
            f"{TITLES[name]} failed, or took over {DEADLINE_SECONDS} s:\n{said[-2000:]}\n"
            f"{stderr.read_text(errors='replace')[-4000:]}"
        )
    figures: Figures = json.loads(said.splitlines()[-1])
    return figures


def _upload(s3: S3, directory: Path) -> None:
    s3.create_bucket(BUCKET)
    s3.upload(directory / DATA, BUCKET, DATA)
    for file in (directory / MODEL).iterdir():
        s3.upload(file, BUCKET, f"{MODEL}/{file.name}")


if __name__ == "__main__":
    app()
