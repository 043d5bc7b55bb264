"""How long training stands still for a save: ours, against Hugging Face Trainer's own followed by an upload with boto3.

    python -m benchmarks.checkpoint.standstill

One training of a random Llama with all its weights, on the CPU, against a SeaweedFS on this machine. It is saved every
few steps, in turns by the one and by the other way, so both see the same model, storage and machine. No save of
the one is under way while the other is measured. The steps that run beside a save of ours are compared with undisturbed
ones too: what the background takes from them is time lost as well.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmarks.checkpoint.runs import BUCKET, RESULTS, TOKENS, VOCABULARY, full_run, llama
from e2e.s3 import S3, local_s3
from finetune_api.sources import parse_s3
from finetune_trainer.process import environment

if TYPE_CHECKING:
    from finetune_api.pod_contracts.run import TrainRun
    from finetune_trainer.checkpoint.saving import BackgroundSaves, Save

AIM_PERCENT = 5.0

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass
class Times:
    """Seconds, one for each save or step. `undisturbed`, `beside`: steps without and with a save of ours beside."""

    ours: list[float] = field(default_factory=list)
    committed: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    undisturbed: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)


@app.command()
def benchmark(
    saves: Annotated[int, typer.Option(min=1, help="Saves of each way.")] = 6,
    every_steps: Annotated[int, typer.Option(min=1)] = 12,
    layers: Annotated[int, typer.Option(min=1, help="12 make 134 M parameters, 4 make 78 M.")] = 12,
    output: Annotated[Path, typer.Option(help="Where the JSON goes.", dir_okay=False)] = RESULTS / "standstill.json",
) -> None:
    """Measure, print a table, write JSON; exit with status 1 when training stands still for more than AIM_PERCENT."""
    environment.prepare()
    with local_s3() as s3, tempfile.TemporaryDirectory(prefix="standstill-") as directory:
        os.environ.update(s3.environment())
        s3.create_bucket(BUCKET)
        parameters, size, times = measure(s3, Path(directory), layers, saves, every_steps)
    report = summarize(parameters, size, times)
    typer.echo(table(report))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report | {"seconds": vars(times)}, indent=1) + "\n")
    if report["ratio_percent"] > AIM_PERCENT:
        raise typer.Exit(1)


def measure(s3: S3, directory: Path, layers: int, saves: int, every: int) -> tuple[int, int, Times]:
    """The number of weights, the bytes of a checkpoint of ours, and the times."""
    import torch
    from datasets import Dataset as Rows
    from transformers import Trainer, TrainingArguments

    from finetune_trainer.checkpoint import checkpoints
    from finetune_trainer.checkpoint.saving import Resumable
    from finetune_trainer.storage.storage import Storage
    from finetune_trainer.train.callbacks import PreallocateSnapshots

    times = Times()
    run = full_run(s3, steps=2 * saves * every, every_steps=every)

    class InTurns(Resumable, Trainer):
        """Saves in the one way, and then in the other."""

        turn = 0

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            self.saves.finish()
            self.turn += 1
            began = time.monotonic()
            if self.turn % 2 == 1:
                super()._save_checkpoint(model, trial)
                times.ours.append(time.monotonic() - began)
            else:
                Trainer._save_checkpoint(self, model, trial)
                folder = directory / "trainer" / f"checkpoint-{self.state.global_step}"
                upload(s3, folder, f"theirs/{folder.name}")
                times.theirs.append(time.monotonic() - began)
                shutil.rmtree(folder)

    model = llama(layers)
    steps = run.hyperparameters.total_steps
    tokens = torch.randint(VOCABULARY, (steps, TOKENS)).tolist()
    trainer = InTurns(
        model=model,
        args=TrainingArguments(
            output_dir=str(directory / "trainer"),
            per_device_train_batch_size=1,
            max_steps=steps,
            save_steps=every,
            logging_steps=1,
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        ),
        train_dataset=Rows.from_dict({"input_ids": tokens, "labels": tokens}),
    )
    trainer.saves = background_saves(run, times)
    trainer.add_callback(step_timer(trainer.saves, times))
    trainer.add_callback(PreallocateSnapshots(trainer.saves))
    trainer.train()
    trainer.saves.finish()
    newest = checkpoints.list_committed(Storage(run.storage), parse_s3(run.output_uri))[-1].manifest
    return model.num_parameters(), sum(file.size for file in newest.files), times


def background_saves(run: TrainRun, times: Times) -> BackgroundSaves:
    """Our saves; the seconds until each is committed are added to `times`."""
    from finetune_trainer.checkpoint.checkpoints import Resumed
    from finetune_trainer.checkpoint.saving import BackgroundSaves, CheckpointWriter
    from finetune_trainer.checkpoint.training_state import SnapshotTaker
    from finetune_trainer.distributed.gang import Gang
    from finetune_trainer.distributed.ranks import ranks_alone_on_node
    from finetune_trainer.report.events import EventLog
    from finetune_trainer.storage import commits
    from finetune_trainer.storage.storage import Storage

    storage, output = Storage(run.storage), parse_s3(run.output_uri)
    gang = Gang(ranks_alone_on_node(run.parallelism, {}))
    claim = commits.claim(storage, output, run.attempt)
    events = EventLog(storage, output, run.attempt)
    writer = CheckpointWriter(run.checkpoints, storage, gang, claim, Resumed(None, (), ()), events)

    def store(save: Save) -> None:
        writer.store(save)
        times.committed.append(save.seconds)

    return BackgroundSaves(SnapshotTaker(gang), store)


def step_timer(saves: BackgroundSaves, times: Times) -> Any:
    """A callback that adds the seconds of each step to `times`."""
    from transformers import TrainerCallback

    class TimeSteps(TrainerCallback):
        began = 0.0

        def on_step_begin(self, *arguments: Any, **named: Any) -> None:
            self.began = time.monotonic()

        def on_step_end(self, *arguments: Any, **named: Any) -> None:
            seconds = time.monotonic() - self.began
            (times.beside if saves.under_way else times.undisturbed).append(seconds)

    return TimeSteps()


def upload(s3: S3, folder: Path, key: str) -> None:
    """As people write it: boto3's own transfer of every file."""
    client = s3.client()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        client.upload_file(str(file), BUCKET, f"{key}/{file.relative_to(folder).as_posix()}")


def summarize(parameters: int, size: int, times: Times) -> dict[str, float]:
    """Medians over the saves."""
    step = statistics.median(times.undisturbed)
    ours, theirs = statistics.median(times.ours), statistics.median(times.theirs)
    slowed = sum(times.beside) - len(times.beside) * step
    return {
        "parameters": parameters,
        "checkpoint_bytes": size,
        "saves": len(times.ours),
        "ours_stands_still_seconds": ours,
        "ours_first_seconds": times.ours[0],
        "ours_committed_after_seconds": statistics.median(times.committed),
        "theirs_stands_still_seconds": theirs,
        "ratio_percent": 100 * ours / theirs,
        "step_seconds": step,
        "steps_beside_a_save": len(times.beside),
        "slowed_by_seconds_a_save": slowed / len(times.ours),
        "lost_ratio_percent": 100 * (ours + max(slowed, 0.0) / len(times.ours)) / theirs,
    }


def table(report: dict[str, float]) -> str:
    """The report for people."""
    rows = [
        ("weights", f"{report['parameters'] / 1e6:.0f} M"),
        ("bytes of a checkpoint", f"{report['checkpoint_bytes'] / 1e9:.2f} GB"),
        ("saves of each way", f"{report['saves']:.0f}"),
        ("a step, undisturbed", f"{report['step_seconds']:.2f} s"),
        ("Trainer's save and boto3: training stands still", f"{report['theirs_stands_still_seconds']:.2f} s"),
        ("ours: training stands still", f"{report['ours_stands_still_seconds']:.3f} s"),
        ("  the first one", f"{report['ours_first_seconds']:.3f} s"),
        ("  committed after", f"{report['ours_committed_after_seconds']:.2f} s"),
        ("  steps beside it are slower by, in all", f"{report['slowed_by_seconds_a_save']:.2f} s"),
        ("ours / theirs, standing still", f"{report['ratio_percent']:.1f} %"),
        ("ours / theirs, with the slower steps", f"{report['lost_ratio_percent']:.1f} %"),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value:>10}" for name, value in rows)


if __name__ == "__main__":
    app()
