"""What a Pod of an evaluation does: the first one reports, and the others only make their shares."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from finetune_api.conditions import Reason
from finetune_api.pod_contracts.outcome import EvaluationReport
from finetune_api.pod_contracts.run import EvaluateRun
from finetune_grading.graders.interface import InvalidGraderError
from finetune_grading.registered_graders import compile_graders
from finetune_trainer.benchmarks.measuring import prepare
from finetune_trainer.evaluation.evaluate import evaluate, fetch_held_out, find_models
from finetune_trainer.evaluation.grading import asked_models
from finetune_trainer.evaluation.nodes.share import note_end, share_of
from finetune_trainer.evaluation.nodes.sharing import make_share
from finetune_trainer.evaluation.safety.attacking import Attacks
from finetune_trainer.outputs.share import Share
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.report.evaluation_progress import Uncounted
from finetune_trainer.sandbox.client import sandbox_of
from finetune_trainer.storage.storage import Storage
from finetune_trainer.supervision.report_delivery import deliver


def evaluate_in_pod(run: EvaluateRun) -> EvaluationReport | None:
    """The report for the termination message; None of a Pod that only helps. Raises DiagnosedError."""
    share = share_of(run, os.environ)
    if share.index > 0:
        help_evaluating(run, share)
        return None
    return deliver(evaluate(run, share), run.progress)


def help_evaluating(run: EvaluateRun, share: Share) -> None:
    """Make this Pod's share, and tell the first one. Raises DiagnosedError as `evaluate` does."""
    storage = Storage(run.storage)
    models = asked_models(run, storage)
    try:
        graders = compile_graders(run.graders, models, models, runner=sandbox_of(run.graders, run.python_sandbox))
    except InvalidGraderError as error:
        raise DiagnosedError(Reason.INVALID_SPEC, str(error)) from error
    with tempfile.TemporaryDirectory(prefix="evaluate-") as scratch:
        examples = fetch_held_out(run, storage, graders, Path(scratch))
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as scratch:
        benchmarks = prepare(run.benchmarks, storage, Path(scratch), run.allowed_datasets)
        find_models(run, storage)
        make_share(run, share, examples, storage, benchmarks, Attacks(run, storage), Uncounted())
    note_end(run, share, storage)
