"""`finetune-trainer train job.yaml`: a FineTuneJob on this machine, in one process, without Kubernetes.

What the operator and its Pods do one after the other happens here: preflight, the automatic hyperparameters, training,
the result. `<output>/<runId>` is the run's folder, in the form that it has in a bucket; so the same command goes on
from the newest checkpoint.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from finetune_api.conditions import Reason
from finetune_api.default_hyperparameters import DEFAULT_SEED, resolve_checkpoints, resolve_for
from finetune_api.finetunejob import FineTuneJobSpec, Parallelism
from finetune_api.pod_contracts.outcome import EXIT_FAILED, EXIT_SUCCEEDED, PreflightReport, TrainReport
from finetune_api.pod_contracts.run import JobIdentity, ModelSource, PreflightRun, TrainRun
from finetune_trainer.local.job_file import LocalJob, read_job
from finetune_trainer.local.model_source import model_source
from finetune_trainer.local.screen import Screen
from finetune_trainer.local.storage_settings import storage_config
from finetune_trainer.process import environment
from finetune_trainer.process.failures import DiagnosedError, DisruptedError
from finetune_trainer.process.imports import gc_paused_for_imports
from finetune_trainer.process.progress_log import log_progress
from finetune_trainer.storage.commits import CLAIMS
from finetune_trainer.storage.open_storage import open_storage
from finetune_trainer.supervision.diagnosis import diagnose

OUTPUT = Path("finetune-output")
RUN_NAME = "run.json"
LOCK_NAME = "lock"
EXIT_INTERRUPTED = 128 + signal.SIGINT
UID = "local"
EVERY_IMAGE = ["s3://*", "https://*"]
"""Addresses that are not public are refused nevertheless."""
_NOT_OF_THE_RUN = {"attempt", "storage"}
"""Where the data is reached may change: what is trained on is known by its digests."""


def train_job(file: Path, output: Path | None) -> int:
    """Train, or continue training. Returns the exit code."""
    screen = Screen()
    screen.open()
    try:
        return _train_job(file, output, screen)
    finally:
        screen.shut()


def _train_job(file: Path, output: Path | None, screen: Screen) -> int:
    again = "Go on with: " + shlex.join(["finetune-trainer", "train", str(file), *_option(output)])
    try:
        job = read_job(file)
        folder = ((output or OUTPUT / job.name) / job.spec.run_id).absolute()
        with _held(folder), _stops_on_interrupt(screen):
            report = _train(job, folder, screen)
    except DisruptedError:
        screen.say(f"Stopped, with a checkpoint. {again}", style="yellow")
        return EXIT_INTERRUPTED
    except (KeyboardInterrupt, SystemExit):
        screen.say(f"Stopped. What is committed stays. {again}", style="yellow")
        return EXIT_INTERRUPTED
    except Exception as error:
        screen.show_failure(diagnose(error, None))
        return EXIT_FAILED
    screen.shut()
    _show_result(report, screen)
    return EXIT_SUCCEEDED


def _train(job: LocalJob, folder: Path, screen: Screen) -> TrainReport:
    environment.prepare_laptop()
    _show_job(job, folder, screen)
    with log_progress("loading the libraries"), gc_paused_for_imports():
        from finetune_trainer.distributed.gang import Gang
        from finetune_trainer.distributed.ranks import ranks_alone_on_node
        from finetune_trainer.preflight.preflight import preflight
        from finetune_trainer.train.train import run_training

    with tempfile.TemporaryDirectory(prefix="finetune-") as scratch:
        storage, distillation = open_storage(storage_config(os.environ)), job.spec.method.distillation
        model = model_source(str(job.spec.model.uri), storage)
        teacher = None if distillation is None else model_source(str(distillation.teacher.uri), storage)
        found = preflight(preflight_run(job, folder, model, teacher), Path(scratch) / "preflight")
        run = train_run(job, folder, found, model, teacher)
        refuse_changed(run, folder)
        _show_found(found, run, screen)
        gang = Gang(ranks_alone_on_node(run.parallelism, {}))
        return run_training(run, Path(scratch) / "train", gang, screen)


def preflight_run(job: LocalJob, folder: Path, model: ModelSource, teacher: ModelSource | None = None) -> PreflightRun:
    """As the operator renders it, for a single process."""
    spec = job.spec
    seed = spec.hyperparameters.seed
    memory = _accelerator_memory()
    return PreflightRun(
        job=_identity(job),
        storage=storage_config(os.environ),
        output_uri=f"file://{folder}",
        model=model,
        teacher=teacher,
        method=spec.method,
        adapter=spec.adapter,
        dataset=spec.dataset,
        hyperparameters=spec.hyperparameters,
        allowed_images=EVERY_IMAGE,
        continued=model.adapter_uri is not None,
        accelerator_memory=memory,
        on_accelerators=memory is not None,
        seed=seed if seed is not None else DEFAULT_SEED,
    )


def train_run(
    job: LocalJob, folder: Path, found: PreflightReport, model: ModelSource, teacher: ModelSource | None = None
) -> TrainRun:
    """As the operator renders it, for a single process."""
    spec = job.spec
    claims = folder / CLAIMS
    return TrainRun(
        job=_identity(job),
        attempt=1 + (len(list(claims.iterdir())) if claims.exists() else 0),
        storage=storage_config(os.environ),
        output_uri=f"file://{folder}",
        model=model,
        teacher=teacher,
        method=spec.method,
        adapter=spec.adapter,
        dataset=spec.dataset,
        allowed_images=EVERY_IMAGE,
        hyperparameters=resolve_for(_alone(spec), found, continued=model.adapter_uri is not None),
        parallelism=Parallelism(),
        checkpoints=resolve_checkpoints(spec.checkpoints, spec.hyperparameters, spec.method),
        metrics_port=None,
    )


def _alone(spec: FineTuneJobSpec) -> FineTuneJobSpec:
    return spec.model_copy(update={"parallelism": Parallelism()})


def _identity(job: LocalJob) -> JobIdentity:
    return JobIdentity(namespace=job.namespace, name=job.name, uid=UID, run_id=job.spec.run_id)


def _option(output: Path | None) -> list[str]:
    return [] if output is None else ["--output", str(output)]


def _accelerator_memory() -> int | None:
    import torch

    return int(torch.cuda.get_device_properties(0).total_memory) if torch.cuda.is_available() else None


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold a lock so that only one process trains into a folder. The kernel releases it however the process ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK_NAME).open("w")
    except OSError as error:
        raise DiagnosedError(Reason.STORAGE_DENIED, f"{folder} can't be written: {error.strerror}.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DiagnosedError(
                Reason.FAILED, f"Another finetune-trainer trains into {folder}. Wait for its end, or give an --output."
            ) from error
        yield


@contextmanager
def _stops_on_interrupt(screen: Screen) -> Iterator[None]:
    """Treat the first Ctrl-C as a Pod treats SIGTERM; the second one ends the process at once."""

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        screen.say("Stopping with a checkpoint after this step (Ctrl-C again: at once).", style="yellow")
        signal.raise_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def refuse_changed(run: TrainRun, folder: Path) -> None:
    """A change of the job is a new run, as in a cluster. Raises DiagnosedError (InvalidSpec)."""
    file = folder / RUN_NAME
    if not file.exists():
        file.write_text(run.model_dump_json(by_alias=True, indent=1) + "\n", encoding="utf-8")
        return
    before = json.loads(file.read_bytes())
    now = json.loads(run.model_dump_json(by_alias=True))
    changed = sorted(_differences(before, now))
    if changed:
        raise DiagnosedError(
            Reason.INVALID_SPEC,
            f"The run in {folder} was started with other settings ({'; '.join(changed)}). Change spec.runId: that is a "
            "new run next to it. Or give another --output.",
        )


def _differences(before: Any, now: Any, path: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for name in {**before, **now}.keys() - _NOT_OF_THE_RUN:
            yield from _differences(before.get(name), now.get(name), f"{path}.{name}" if path else name)
    elif before != now:
        yield f"{path}: {before} before, {now} now"


def _show_job(job: LocalJob, folder: Path, screen: Screen) -> None:
    screen.say(f"{job.name}, run {job.spec.run_id}: into {folder}")
    if job.spec.class_name is not None:
        screen.say(f"className {job.spec.class_name} is ignored: the job runs on this machine.")
    if job.spec.parallelism != Parallelism():
        screen.say("parallelism is ignored: a single process trains here, with the same batches.")


def _show_found(found: PreflightReport, run: TrainRun, screen: Screen) -> None:
    dataset, settings = found.dataset, run.hyperparameters
    for warning in dataset.warnings:
        screen.say(warning, style="yellow")
    facts: dict[str, object] = {"model": f"{found.model.architecture}, {found.model.parameters or 0:,} parameters"}
    for name, counts in (("training", dataset.training), ("validation", dataset.validation)):
        if counts is not None:
            facts[name] = f"{counts.examples:,} examples, {counts.tokens:,} tokens"
    facts["plan"] = (
        f"{settings.total_steps} steps: {settings.epochs:g} epochs, batch size {settings.batch_size}, learning rate "
        f"{settings.learning_rate:g}, a checkpoint every {settings.checkpoint_every_steps} steps"
    )
    screen.show_facts(facts)


def _show_result(report: TrainReport, screen: Screen) -> None:
    result = report.result
    path = result.uri.removeprefix("file://")
    measured = {"training loss": result.train_loss, "validation loss": result.eval_loss}
    losses = ", ".join(f"{name} {value:.4f}" for name, value in measured.items() if value is not None)
    screen.say(f"Done at step {result.step}: {losses}" if losses else f"Done at step {result.step}", style="green")
    loader = "AutoPeftModelForCausalLM" if result.adapter_type != "Full" else "AutoModelForCausalLM"
    facts = {"model": path, "load it": f'{loader}.from_pretrained("{path}")'}
    if result.report_uri is not None:
        facts["report"] = result.report_uri.removeprefix("file://")
    screen.show_facts(facts)
