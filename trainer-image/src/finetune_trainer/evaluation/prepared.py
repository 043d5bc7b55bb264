"""What every Pod of an evaluation prepares, and checks, before a model is loaded."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from finetune_api.conditions import Reason
from finetune_api.finetunejob import DatasetSource
from finetune_api.pod_contracts.run import EvaluateRun
from finetune_grading.graders.interface import CompiledGrader, InvalidGraderError
from finetune_grading.registered_graders import compile_graders, load_graders
from finetune_trainer.benchmarks.measuring import PreparedBenchmark, prepare_benchmarks
from finetune_trainer.checkpoint.loadable import find_loadable
from finetune_trainer.data.read.data_files import fetch_files
from finetune_trainer.data.revisions import fetch_split
from finetune_trainer.endpoints.asked_model import AskedModel
from finetune_trainer.evaluation.grading import asked_models
from finetune_trainer.evaluation.safety.attacking import Attacks
from finetune_trainer.outputs.heldout import HeldOutExample, read_held_out, refuse_without_tools
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.sandbox.client import sandbox_of
from finetune_trainer.storage.storage import Storage


@dataclass(frozen=True)
class Prepared:
    """A run, with what its models are asked and who grades the answers."""

    run: EvaluateRun
    storage: Storage
    graders: Sequence[CompiledGrader]
    models: Mapping[str, AskedModel]
    """Those behind an API."""
    examples: Sequence[HeldOutExample]
    benchmarks: Sequence[PreparedBenchmark]
    attacks: Attacks


@contextmanager
def prepare(run: EvaluateRun) -> Iterator[Prepared]:
    """The datasets of benchmarks are on disk within. Raises DiagnosedError."""
    storage = Storage(run.storage)
    models = asked_models(run, storage)
    try:
        graders = compile_graders(run.graders, models, models, runner=sandbox_of(run.graders, run.python_sandbox))
        load_graders(run.graders)
    except InvalidGraderError as error:
        raise DiagnosedError(Reason.INVALID_SPEC, str(error)) from error
    with tempfile.TemporaryDirectory(prefix="evaluate-") as scratch:
        examples = fetch_held_out(run, storage, graders, Path(scratch))
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as scratch:
        benchmarks = prepare_benchmarks(run.benchmarks, storage, Path(scratch), run.allowed_datasets)
        find_models(run, storage)
        yield Prepared(run, storage, graders, models, examples, benchmarks, Attacks(run, storage))


def find_models(run: EvaluateRun, storage: Storage) -> None:
    """Raise DiagnosedError if a model does not exist, before any API is asked and paid. Fetches nothing."""
    for model in run.models:
        if model.model is not None:
            find_loadable(model.model, storage)


def fetch_held_out(
    run: EvaluateRun, storage: Storage, graders: Sequence[CompiledGrader], directory: Path
) -> list[HeldOutExample]:
    """The examples of every file that dataset_uri names, or of the revision, up to the limit. Raises DiagnosedError."""
    limit = run.limit_examples
    templates = [*run.slices, *([] if run.cluster_by is None else [run.cluster_by])]
    examples: list[HeldOutExample] = []
    if run.revision is not None:
        files = [fetch_split(storage, run.revision, directory / "00000").file]
    else:
        source = DatasetSource(uri=run.dataset_uri)
        files = fetch_files(storage, source, directory, allowed=run.allowed_datasets)
    for file in files:
        left = None if limit is None else limit - len(examples)
        if left != 0:
            examples += read_held_out(file.path, file.uri, graders, left, templates)
    refuse_without_tools(run.dataset_uri, examples, graders)
    return examples
