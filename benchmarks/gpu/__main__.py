"""What only a GPU can show, in one command: `python -m benchmarks.gpu [--only NAME]... [--json FILE]`.

- `same`: the quickstart's model learns the same on the GPU as on the CPU, by method: the losses of all steps. The CPU
  computes in float32, but for Full: see IN_BFLOAT16.
- `resume`: a training (with dropout) that is killed after its first checkpoint ends with the losses of one that is not.
- `lora`, `qlora`, `full`, `dpo`: tokens per second and memory, against plain TRL (benchmarks.trainer).

Each part that fails is told of and the others run; the exit status is 1 then. A part ends the processes that it
started, and removes what it wrote, also when it fails, is too slow, or is stopped by Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console

from benchmarks.processes import end_on_sigterm, running
from benchmarks.trainer.__main__ import measure, summarize, table
from benchmarks.trainer.workload import on_gpu

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "examples" / "quickstart"
RESULTS = ROOT / "benchmarks" / "results"
DEADLINE_SECONDS = 300
"""Of the trainings of a part that compares losses."""
SAME_LOSS = 0.02
"""Of bfloat16 against float32, by step."""
SAME_RESUMED_LOSS = 0.005
"""Kernels on a GPU add up in an order of their own."""
TRAINER = "finetune_trainer"
EXAMPLES = 64
IN_BFLOAT16 = ("full",)
"""What is compared with a CPU that computes in bfloat16 too. The quickstart's weights are bfloat16 numbers. A step of
Full that is smaller than half the distance to the next one is kept in the float32 weights, and not seen in the copies
that are computed with until more steps add up: on a CPU too, that alone makes 10 % of a step's loss at this rate."""

PARTS = {
    "lora": "tokens per second and memory of LoRA with a model of the 8B shape, beside plain TRL",
    "same": "the losses of the quickstart's model beside a CPU's, by method",
    "resume": "the losses of a training that was killed and resumed",
    "qlora": "as lora, for QLoRA",
    "dpo": "as lora, for DPO with LoRA",
    "full": "as lora, for Full with a model of 1.5 B parameters",
}

console = Console(width=140)
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def benchmark(
    only: Annotated[list[str] | None, typer.Option(help="Some of the parts.")] = None,
    rounds: Annotated[int, typer.Option(min=1)] = 1,
    output: Annotated[Path, typer.Option("--json")] = RESULTS / "gpu.json",
) -> None:
    """Run the parts, print what they show, and write JSON after each one.

    GPU memory: at most about 100 GB on an H200 (dpo 98, lora 89, qlora 79, full 47); a smaller GPU gets smaller
    micro-batches.

    Disk, at TMPDIR, by count of what is written: 20 GB, for a model of 8 B; full: 25 GB on one GPU, with a checkpoint
    of 18 GB, and 130 GB on several, with one of 96 GB.

    Host memory: 20 GB, and for full as much as its checkpoint takes on disk in addition.

    CPU cores: 16 for the part same, which trains ten small models at once.
    """
    import torch

    if unknown := set(only or ()) - PARTS.keys():
        raise typer.BadParameter(f"There is no {', '.join(sorted(unknown))}; the parts are {', '.join(PARTS)}.")
    if not torch.cuda.is_available():
        raise SystemExit(
            f"torch {torch.__version__} sees no GPU here: nothing was run, and {output} is as it was. Run this "
            "on a machine with an NVIDIA GPU; python -m benchmarks.trainer measures the trainer on a CPU. On a GPU "
            "this would measure:\n" + "\n".join(f"  {part}: {PARTS[part]}" for part in only or PARTS)
        )
    end_on_sigterm()
    machine = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "cpus": os.cpu_count()}
    found: dict[str, Any] = {}
    failed = False
    with tempfile.TemporaryDirectory(prefix="benchmark-gpu-models-") as models:
        parts: dict[str, Callable[[], Any]] = {
            "lora": lambda: speed("LoRA", "SFT", rounds, Path(models)),
            "same": same,
            "resume": resume,
            "qlora": lambda: speed("QLoRA", "SFT", rounds, Path(models)),
            "dpo": lambda: speed("LoRA", "DPO", rounds, Path(models)),
            "full": lambda: speed("Full", "SFT", rounds, Path(models)),
        }
        for part in only or PARTS:
            began = time.monotonic()
            try:
                found[part] = parts[part]()
            except (Exception, SystemExit) as error:
                traceback.print_exc()
                found[part], failed = {"error": str(error)[-3000:]}, True
            console.print(f"{part}: {time.monotonic() - began:.0f} s", style="bold")
            output.write_text(json.dumps({"machine": machine, **found}, indent=1) + "\n")
    if failed:
        raise typer.Exit(1)


def same() -> dict[str, Any]:
    """The largest difference of a step's loss between CPU and GPU, by method, as a share of it. All at once."""
    with tempfile.TemporaryDirectory(prefix="benchmark-gpu-") as scratch, contextlib.ExitStack() as trainings:
        deadline = time.monotonic() + DEADLINE_SECONDS
        started = {}
        for name, spec in VARIANTS.items():
            job = _write_job(Path(scratch) / name, spec)
            cpu, gpu = Path(scratch) / name / "cpu", Path(scratch) / name / "gpu"
            program = "benchmarks.gpu.in_bfloat16" if name in IN_BFLOAT16 else TRAINER
            on_cpu = trainings.enter_context(training(job, cpu, program, CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS="2"))
            started[name] = (on_cpu, trainings.enter_context(training(job, gpu)))
        differences = {}
        for name, (on_cpu, on_gpu_) in started.items():
            losses = on_cpu.losses(deadline)
            differences[name] = _difference(losses, on_gpu_.losses(deadline))
            console.print(f"same: {name}: {len(losses)} steps, at most {differences[name]:.2%} apart")
    wrong = {name: value for name, value in differences.items() if value > SAME_LOSS}
    if wrong:
        raise SystemExit(f"Other losses on the GPU than on the CPU: {wrong}")
    return differences


def resume() -> dict[str, Any]:
    """The largest difference of a step's loss between a run that was killed and one that was not, run at once."""
    with tempfile.TemporaryDirectory(prefix="benchmark-gpu-") as scratch:
        deadline = time.monotonic() + DEADLINE_SECONDS
        packed = VARIANTS["lora-packed"]
        longer = {"hyperparameters": {**packed["hyperparameters"], "epochs": 3}}
        dropping = {"adapter": {"type": "LoRA", "lora": {"rank": 32, "alpha": 64, "dropout": 0.1}}}
        job = _write_job(Path(scratch), {**packed, **dropping, **longer, "checkpoints": {"everySteps": 2, "keep": 5}})
        with training(job, Path(scratch) / "whole") as undisturbed:
            folder = Path(scratch) / "killed"
            with training(job, folder) as first:
                first.wait_for("checkpoints/step-*/*/manifest.json", deadline)
                first.process.send_signal(signal.SIGKILL)
            with training(job, folder) as second:
                killed = second.losses(deadline)
            whole = undisturbed.losses(deadline)
        difference = _difference(whole, killed)
    if difference > SAME_RESUMED_LOSS:
        raise SystemExit(f"Other losses after SIGKILL and resume: {whole} and {killed}")
    return {"steps": len(whole), "difference": difference}


def speed(adapter: str, method: str, rounds: int, models: Path) -> dict[str, Any]:
    """As benchmarks.trainer measures it."""
    import torch

    workload = on_gpu(adapter, torch.cuda.device_count() if adapter == "Full" else 1, method)
    measured = measure(workload, rounds, console, models)
    summary = summarize(measured)
    console.print(table(f"{adapter}, {method}", rounds, summary))
    return {"workload": vars(workload), "rounds": measured, "summary": summary}


def _lora(**more: Any) -> dict[str, Any]:
    return {"adapter": {"type": "LoRA", "lora": {"rank": 32, "alpha": 64, "dropout": 0.0}}, **more}


_SETTINGS = {"epochs": 1, "batchSize": 8, "learningRate": 1.0e-3, "seed": 17, "maxLength": 128}
VARIANTS: dict[str, dict[str, Any]] = {
    "lora": _lora(hyperparameters=_SETTINGS),
    "lora-packed": _lora(hyperparameters={**_SETTINGS, "packing": True, "batchSize": 2}),
    "full": {"adapter": {"type": "Full"}, "hyperparameters": {**_SETTINGS, "learningRate": 1.0e-4}},
    "dpo": _lora(method={"type": "DPO"}, hyperparameters={**_SETTINGS, "learningRate": 1.0e-4}),
    "qlora": {
        **_lora(hyperparameters=_SETTINGS),
        "adapter": {"type": "QLoRA", "qlora": {"rank": 32, "alpha": 64, "dropout": 0.0}},
    },
}


def _write_job(folder: Path, spec: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        json.loads(line) for line in (QUICKSTART / "data" / "train.jsonl").read_text().splitlines()[: EXAMPLES + 1]
    ]
    if spec.get("method", {}).get("type") == "DPO":
        pairs = itertools.pairwise(lines)
        lines = [
            {
                "input": {"messages": line["messages"][:-1]},
                "preferred_output": line["messages"][-1:],
                "non_preferred_output": other["messages"][-1:],
            }
            for line, other in pairs
            if line["messages"][-1] != other["messages"][-1]
        ]
    data = folder / "train.jsonl"
    data.write_text("".join(json.dumps(line) + "\n" for line in lines[:EXAMPLES]))
    job = {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "on-a-gpu"},
        "spec": {
            "model": {"uri": str(QUICKSTART / "base-model")},
            "dataset": {"training": {"uri": str(data)}},
            **spec,
        },
    }
    file = folder / "job.yaml"
    file.write_text(yaml.safe_dump(job))
    return file


@dataclass(frozen=True)
class Training:
    """A training that runs, of the trainer's command line."""

    process: subprocess.Popen[bytes]
    output: Path
    log: Path

    def wait_for(self, pattern: str, deadline: float) -> None:
        """Wait for a file below a run's folder. Raises SystemExit if the training ends first, or takes too long."""
        while not list(self.output.glob(f"*/{pattern}")):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{self.output} has no {pattern}:\n{self._said()}")
            time.sleep(0.02)

    def losses(self, deadline: float) -> dict[int, float]:
        """The training loss by step, once the training has ended. Raises SystemExit."""
        try:
            code = self.process.wait(timeout=max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            raise SystemExit(f"{self.output} took too long:\n{self._said()}") from None
        if code:
            raise SystemExit(f"{self.output} ended with {code}:\n{self._said()}")
        with next(self.output.rglob("results.csv")).open() as stream:
            return {int(row["step"]): float(row["train_loss"]) for row in csv.DictReader(stream) if row["train_loss"]}

    def _said(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]


@contextmanager
def training(job: Path, output: Path, program: str = TRAINER, **environment: str) -> Iterator[Training]:
    """Start `program train JOB --output OUTPUT`; on leaving, what is left of it is killed.

    Its scratch lies beside OUTPUT, so that a killed one's is removed too.
    """
    command = [sys.executable, "-m", program, "train", str(job), "--output", str(output)]
    log = output.with_suffix(".log")
    with running(command, {**os.environ, "TMPDIR": str(output.parent), **environment}, log) as process:
        yield Training(process, output, log)


def _difference(one: dict[int, float], two: dict[int, float]) -> float:
    if one.keys() != two.keys():
        raise SystemExit(f"Not the same steps: {sorted(one)} and {sorted(two)}")
    return max(abs(one[step] - two[step]) / one[step] for step in one)


if __name__ == "__main__":
    app()
