"""`status`: where a run stands, why, and what to do next."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from finetune_api.dataset import DatasetStatus
from finetune_api.evaluation import EvaluationStatus
from finetune_api.finetunejob import FineTuneJobStatus
from finetune_api.finetunesweep import FineTuneSweepStatus
from finetune_api.lifecycle import KindStatus
from finetune_api.modeldeployment import ModelDeploymentStatus
from finetune_view.next_step import next_steps
from finetune_view.object_view import ObjectView, object_view
from kubectl_finetune.display.status import status_rows
from kubectl_finetune.display.terminal import print_rows
from tests.unit.api.wire.full_statuses import full_status, objects_within, replaced, with_unknown_fields
from tests.unit.kubectl_finetune.cluster_objects import (
    FAILED,
    NOW,
    SUCCEEDED,
    TRAINING,
    before_now,
    condition,
    job,
    seen,
)

KINDS = {
    "FineTuneJob": FineTuneJobStatus,
    "Evaluation": EvaluationStatus,
    "ModelDeployment": ModelDeploymentStatus,
    "FineTuneSweep": FineTuneSweepStatus,
    "Dataset": DatasetStatus,
}


def shown(found: ObjectView, width: int = 100, terminal: bool = False, **options: Any) -> str:
    file = io.StringIO()
    to = Console(file=file, width=width, force_terminal=terminal, highlight=False, markup=False, emoji=False)
    print_rows(to, status_rows(found, NOW, **options))
    return file.getvalue()


def test_a_search_is_told_with_its_trials_the_best_first() -> None:
    values = {"hyperparameters.learningRate": 0.001, "adapter.lora.rank": 8}
    trials = [
        {"number": 1, "fineTuneJobName": "router-trial-1", "state": "Succeeded", "score": 0.5, "values": values},
        {"number": 2, "fineTuneJobName": "router-trial-2", "state": "Succeeded", "score": 0.25, "values": values},
        {
            "number": 3,
            "fineTuneJobName": "router-trial-3",
            "state": "Failed",
            "reason": "CUDAOutOfMemory",
            "values": values,
        },
        {"number": 4, "fineTuneJobName": "router-trial-4", "state": "Running", "values": values},
    ]
    conditions = [condition("Ready", "False", "Searching", "At most 20 trials, 2 at a time.")]
    counts = {"finished": 3, "running": 1, "remaining": 16}
    status = {"observedGeneration": 1, "phase": "Running", "runId": "1", "conditions": conditions, "trials": trials}
    meta = {"name": "router", "namespace": "team-a", "generation": 1}
    text = shown(object_view({"kind": "FineTuneSweep", "metadata": meta, "spec": {}, "status": {**status, **counts}}))
    for told in (
        "3 ended, 1 running, 16 to come",
        "Failed CUDAOutOfMemory  router-trial-3  learningRate 0.001, rank 8",
        "kubectl finetune watch fts/router -n team-a",
    ):
        assert told in text, told
    assert text.index("Best         0.25  router-trial-2") < text.index("0.5  router-trial-1")
    assert "logs" not in text, "a sweep has no Pods of its own"


def test_a_sweep_over_models_names_each_with_its_verdict_and_the_score_on_holdout_examples() -> None:
    values = {"model.uri": "s3://models/small"}
    trials = [
        {"number": 1, "fineTuneJobName": "t-1", "state": "Succeeded", "score": 0.5, "model": "small", "values": values}
    ]
    trials[0] |= {"verdict": "Passed", "low": 0.4, "high": 0.6}
    holdout = {"number": 1, "evaluationName": "t-holdout", "score": 0.45, "low": 0.4, "high": 0.5}
    meta = {"name": "router", "namespace": "team-a", "generation": 1}
    status = {"phase": "Succeeded", "runId": "1", "trials": trials, "holdout": holdout}
    spec = {"mode": "SmallestModel", "objective": {"type": "Evaluation"}}
    text = shown(object_view({"kind": "FineTuneSweep", "metadata": meta, "spec": spec, "status": status}))
    assert "Scores       0.5 (0.4 to 0.6)  t-1  small, Passed" in text
    assert "0.45 (0.4 to 0.5)  trial 1, Evaluation t-holdout" in text


def test_a_training_is_told_with_its_progress_attempts_and_budget() -> None:
    text = shown(seen(TRAINING), budget_hours=500)
    for told in (
        "router  (namespace team-a, 120m old)",
        "Training for 20m",
        "42%  step 420/1000  epoch 1.26  42m left",
        "loss 0.5234, validation 0.61, learning rate 0.0002, 12,346 tokens/s",
        "2 Running, 1 of 3 retries used, 1 disruption\n",
        "1 Disrupted NodeLost after 36m at step 120: The node is gone.",
        "1, the newest of step 400, 90s ago, 3.0 MiB",
        "1,500 training examples, 90,000 tokens",
        "warning: 3 examples are longer than 512",
        "10.0 accelerator hours in 2026-11 (class h100); the class allows the namespace 500",
        "kubectl finetune watch router -n team-a",
    ):
        assert told in text, told


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ({"phase": "Suspended", "suspendTime": before_now(120)}, "Suspended, Stopped for 2m"),
        ({"phase": "Queued"}, "Queued, Stopped\n"),
        ({"phase": "Failed", "completionTime": before_now(180)}, "Failed, Stopped for 3m"),
    ],
)
def test_the_time_in_a_phase_is_not_that_of_a_condition_whose_status_stays(status: dict[str, Any], told: str) -> None:
    conditions = [condition("Ready", "False", "Stopped", "Why.", 3600)]
    assert told in re.sub(" +\n", "\n", shown(seen({**status, "conditions": conditions})))


def test_a_failed_job_tells_the_diagnosis_the_end_of_the_log_and_what_to_do() -> None:
    text = shown(seen(FAILED))
    assert "Failed       CUDAOutOfMemory: The accelerator ran out of memory." in text
    assert "CUDAOutOfMemory (Pod router-train-2-1-abcde, rank 5): The accelerator ran out of memory: 80 GiB" in text
    assert "line 30" in text and "line 20" not in text
    assert "line 1\n" in shown(seen(FAILED), all_lines=True)
    steps = text[text.index("Next") :].splitlines()
    assert "Set hyperparameters.batchSize to 8." in steps[0]
    assert "kubectl finetune rerun router -n team-a" in steps[1]
    assert "kubectl finetune diagnose router -n team-a" in steps[2]


@pytest.mark.parametrize(
    ("reason", "again"),
    [
        ("InvalidSpec", None),  # the same spec would fail again
        (
            "ModelNotFound",
            "Or put the model where the spec says, then run again: kubectl finetune rerun router -n team-a",
        ),
    ],
)
def test_a_failure_of_the_spec_tells_how_to_change_it(reason: str, again: str | None) -> None:
    text = shown(seen({**FAILED, "failure": {"reason": reason, "message": "It is wrong."}}))
    steps = " ".join(text[text.index("Next") :].split())
    assert "Change the spec, and in it runId to a new one" in steps
    assert ("rerun" in steps) is (again is not None)
    assert again is None or again in steps


def test_a_result_is_told_with_its_report() -> None:
    text = shown(seen(SUCCEEDED))
    assert "Result       s3://m/result\n" in text and "s3://m/result/report.html" in text
    assert "step 1000, validation loss 0.5" in text


@pytest.mark.parametrize(
    ("reason", "other"),
    [
        ("InvalidSpec", None),
        ("LimitExceeded", "raise the limits of the FineTuneClass"),
        ("SourceNotAllowed", "allow the URI in spec.sources of the FineTuneClass"),
        ("ClassNotFound", "create that FineTuneClass"),
        ("ModelNotFound", "put the model where the spec says"),
        ("ModelNotListed", "list the model in spec.models of the FineTuneClass"),
        ("ReferenceNotFound", "create what the spec names, or run again the sweep whose job is gone"),
        ("WaitingForModel", "run again what it refers to (a new spec.runId there)"),
    ],
)
def test_where_the_spec_is_wrong_the_command_that_changes_it_is_told(reason: str, other: str | None) -> None:
    stalled = {"phase": "Validating", "conditions": [condition("Stalled", "True", reason, "No.")]}
    text = shown(seen(stalled), width=200)
    assert "Change the spec, and in it runId to a new one, such as '2': kubectl -n team-a edit ftj/router" in text
    assert "nothing has to be restarted" not in text
    assert (f"Or {other}: it then continues by itself." in text) is (other is not None)


@pytest.mark.parametrize("revision", [None, "s3://models/tuned"])
def test_only_a_deployment_whose_pods_answer_serves(revision: str | None) -> None:
    status = {"phase": "Pending", "modelName": "router", "url": "http://router/v1"}
    found = job({**status, **({"revision": revision} if revision else {})})
    assert ("Serves" in shown(object_view({**found, "kind": "ModelDeployment"}))) is (revision is not None)


def test_a_model_that_is_given_by_its_uri_is_named_once() -> None:
    """Its URI is its revision."""
    uri = "s3://models/tuned"
    found = job({"phase": "Available", "revision": uri, "served": {"uri": uri}})
    assert shown(object_view({**found, "kind": "ModelDeployment"})).count(uri) == 1


def test_a_stalled_deployment_has_no_run_id_to_change() -> None:
    stalled = job({"phase": "Pending", "conditions": [condition("Stalled", "True", "LimitExceeded", "No.")]})
    text = shown(object_view({**stalled, "kind": "ModelDeployment"}), width=200)
    assert "Change the spec: kubectl -n team-a edit mdep/router" in text


def test_a_stalled_job_says_that_it_goes_on_by_itself() -> None:
    stalled = {"phase": "Queued", "conditions": [condition("Stalled", "True", "SecretNotFound", "Create Secret s3.")]}
    text = shown(seen(stalled))
    assert "Stalled      SecretNotFound: Create Secret s3." in text
    assert "It continues by itself once the cause is gone" in text


def test_a_change_that_the_operator_has_not_seen_is_told_and_the_old_status_is_no_answer() -> None:
    old = job(SUCCEEDED, generation=3)
    text = shown(object_view(old))
    assert "The spec was changed; what follows is of before the change." in text
    assert "see whether it runs: kubectl -n finetune-system get pods" in text
    new = job(generation=1)
    del new["status"]
    assert "not looked at yet" in shown(object_view(new))


def test_a_spec_that_was_refused_is_not_the_success_of_the_run_before_it() -> None:
    refused = {
        **SUCCEEDED,
        "conditions": [condition("Stalled", "True", "InvalidSpec", "runId 1 was used already.")],
    }
    assert seen(refused, spec={"runId": "0"}).outcome is None
    assert "the spec asks for run 0" in shown(seen(refused, spec={"runId": "0"}))


def test_a_cancelled_job_is_no_failure_to_be_fixed() -> None:
    cancelled = {**SUCCEEDED, "phase": "Cancelled", "conditions": [condition("Ready", "False", "Cancelled", "It is.")]}
    found = seen(cancelled)
    assert found.outcome == "Failed", "of a watch"
    assert shown(found).splitlines()[-1] == "Next         Run again: kubectl finetune rerun router -n team-a"


@pytest.mark.parametrize("phase", ["Inconclusive", "Cancelled"])
def test_what_did_not_fail_is_not_called_failed_and_its_reason_is_told_once(phase: str) -> None:
    told = "exact of tuned: 0.75 [0.7, 0.8] includes 0.72."
    conditions = [condition(type_, "True", phase, told) for type_ in ("Stalled", "Failed")]
    conditions += [condition(type_, "False", phase, told) for type_ in ("Ready", "Passed")]
    status = {
        "observedGeneration": 1,
        "phase": phase,
        "completionTime": "2026-11-26T23:00:00Z",
        "conditions": conditions,
    }
    metadata = {"name": "router", "namespace": "team-a", "generation": 1}
    text = shown(object_view({"kind": "Evaluation", "metadata": metadata, "spec": {}, "status": status}))
    assert text.count(told) == 1
    assert not any(line.startswith("Failed") for line in text.splitlines())


def test_replicas_that_the_class_does_not_allow_are_told_with_the_pods_there_are() -> None:
    metadata = {"name": "router", "namespace": "team-a", "generation": 1}
    status = {"observedGeneration": 1, "phase": "Blocked", "replicas": 2, "readyReplicas": 1}
    found = {"kind": "ModelDeployment", "metadata": metadata, "spec": {"replicas": 5}, "status": status}
    assert "1 of 5 ready, 2 Pods" in shown(object_view(found))


@pytest.mark.parametrize("width", [20, 40, 80])
def test_a_narrow_terminal_gets_no_line_that_is_wider(width: int) -> None:
    for status in (TRAINING, FAILED, SUCCEEDED):
        text = shown(seen(status), width=width, terminal=True)
        plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
        assert max(map(len, plain.splitlines())) <= width
        assert "42%" in plain


def test_a_pipe_gets_whole_lines_without_colour() -> None:
    text = shown(seen(FAILED), width=30)
    assert "\x1b" not in text
    assert "It failed" not in text and "CUDAOutOfMemory (Pod router-train-2-1-abcde, rank 5): The accelerator" in text


def test_what_the_cluster_says_is_neither_markup_nor_an_escape_sequence() -> None:
    hostile = "[bold red]x[/] [link=https://evil.example]y[/link] \x1b[2J\x1b]0;t\x07 :smile: [/]"
    status = {
        "phase": hostile,
        "conditions": [
            condition("Stalled", "True", hostile, hostile),
            condition("Ready", "False", hostile, hostile + "!"),
        ],
        "failure": {"reason": hostile, "message": f"{hostile}\n{hostile}", "log": hostile},
    }
    for terminal in (False, True):
        text = shown(seen(status), width=300, terminal=terminal)
        assert text.count("[bold red]x[/] [link=https://evil.example]y[/link] ^[[2J^[]0;t^G :smile: [/]") >= 6
        assert "\x1b[2J" not in text and "\x1b]" not in text


@pytest.mark.parametrize("name", KINDS)
def test_statuses_of_other_versions_are_shown_as_far_as_they_are_known(name: str) -> None:
    """Every object of a status once replaced by what it should not be, and fields that are not known everywhere."""
    kind: type[KindStatus] = KINDS[name]
    status = full_status(kind)
    known = shown(of_kind(name, status))
    assert shown(of_kind(name, with_unknown_fields(status))) == known
    for path in objects_within(status):
        for wrong in (None, "text", 7, [], [[]], {"a": 1}, True):
            shown(of_kind(name, replaced(status, path, wrong)))
    for wrong in (None, "text", 7, [], {}):
        for field in status:
            shown(of_kind(name, {**status, field: wrong}))
        shown(of_kind(name, wrong))
        shown(object_view({"kind": name, "metadata": wrong, "spec": wrong, "status": status}))


def of_kind(name: str, status: Any) -> ObjectView:
    metadata = {"name": "router", "namespace": "team-a", "uid": "1", "generation": 1}
    return object_view({"kind": name, "metadata": metadata, "spec": {}, "status": status})


def test_a_trial_that_was_cancelled_is_the_sweeps_affair() -> None:
    cancelled = {**SUCCEEDED, "phase": "Cancelled", "conditions": [condition("Ready", "False", "Cancelled", "It is.")]}
    found = seen(cancelled, ownerReferences=[{"kind": "FineTuneSweep", "name": "rates", "controller": True}])
    assert next_steps(found) == [
        "It is a trial of FineTuneSweep rates, which decides what runs: change that one, not this."
    ]


def test_a_trial_that_waits_is_not_changed_by_itself_but_by_its_sweep() -> None:
    waits = {"phase": "Validating", "conditions": [condition("Stalled", "True", "WaitingForModel", "It failed.")]}
    found = seen(waits, ownerReferences=[{"kind": "FineTuneSweep", "name": "rates", "controller": True}])
    first, second, _ = next_steps(found)
    assert first == "It is a trial of FineTuneSweep rates, which decides what runs: change that one, not this."
    assert second == "Or run again what it refers to (a new spec.runId there): it then continues by itself."


@pytest.mark.parametrize("phase", ["Dreaming", "Training"])
def test_a_status_that_cant_be_read_says_nothing_else(phase: str) -> None:
    """Ready is as the version before left it."""
    unread = condition("Stalled", "True", "StatusUnreadable", "Another version of the operator wrote it.", seconds=60)
    ready = condition("Ready", "False", "SecretNotFound", "There is no Secret.", seconds=1200)
    found = seen({**SUCCEEDED, "phase": phase, "conditions": [ready, unread]})
    lines = shown(found).splitlines()
    assert lines[1] == f"Phase        {phase}, StatusUnreadable for 60s"
    assert "Stalled      StatusUnreadable: Another version of the operator wrote it." in lines
    assert "SecretNotFound" not in shown(found) and "There is no Secret" not in shown(found)
    assert "continues by itself" not in shown(found) and "rerun" not in shown(found)


def test_the_trials_of_a_suspended_sweep_do_not_run() -> None:
    trials = [
        {"number": number, "fineTuneJobName": f"router-trial-{number}", "state": "Running", "values": {}}
        for number in (1, 2)
    ]
    sweep = {**job({"phase": "Suspended", "finished": 0, "running": 0, "remaining": 3, "trials": trials})}
    text = shown(object_view({**sweep, "kind": "FineTuneSweep"}))
    assert "0 ended, 0 running, 2 suspended, 3 to come" in text
    assert "Suspended  router-trial-1" in text and "Running" not in text


def test_what_others_changed_is_told_by_who_it_was_and_in_short() -> None:
    drift = [{"field": f"Service spec.{name}", "manager": "before-first-apply"} for name in "abcdefgh"]
    deployment = job({"phase": "Available", "drift": [*drift, {"field": "Service spec"}]})
    found = object_view({**deployment, "kind": "ModelDeployment"})
    told = "Service spec.a, Service spec.b, Service spec.c and 5 more by before-first-apply"
    assert f"Drift        {told}\n             Service spec by an unknown manager" in shown(found)
    assert "Service spec.h by before-first-apply" in shown(found, width=200, all_lines=True)


def test_a_dataset_is_told_by_its_splits_and_by_what_is_left_out() -> None:
    revision = {
        "digest": "sha256:aa",
        "splits": [{"name": "training", "examples": 80, "uri": "s3://finetune/team-a/tickets/training.jsonl"}],
        "leftOut": {"duplicates": 3, "leaks": 2, "conflicts": 0},
        "warnings": ["3 example(s) are the same as an earlier one; they are left out (line 4, 5, 6)."],
    }
    status = {"phase": "Succeeded", "runId": "1", "try": 2, "retries": 1, "revision": revision, "observedGeneration": 1}
    meta = {"name": "tickets", "namespace": "team-a", "generation": 1}
    found = object_view({"kind": "Dataset", "metadata": meta, "spec": {}, "status": status})
    text = shown(found, width=200)
    assert "training: 80 examples, s3://finetune/team-a/tickets/training.jsonl" in text
    assert "duplicates 3, leaks 2\n" in text
    assert "2, 1 failed, 0 disrupted" in text
    assert "(line 4, 5, 6)" in text


def test_of_a_generated_dataset_what_became_of_the_completions_and_what_was_asked_is_told() -> None:
    generated = {"teacher": "large", "completions": 80, "kept": 60, "notKept": {"refused": 5, "notBest": 15}}
    usage = [{"model": "large", "requests": 78, "cached": 2, "promptTokens": 900, "completionTokens": 400, "cost": 0.2}]
    revision = {"digest": "sha256:aa", "splits": [], "generated": generated}
    status = {"phase": "Succeeded", "runId": "1", "revision": revision, "usage": usage, "observedGeneration": 1}
    meta = {"name": "tickets", "namespace": "team-a", "generation": 1}
    text = shown(object_view({"kind": "Dataset", "metadata": meta, "spec": {}, "status": status}), width=200)
    assert "60 of 80 completions by large; not kept: refused 5, notBest 15\n" in text
    assert "large: 78 requests, 2 from the cache, 900 and 400 tokens, cost 0.2" in text


def test_of_a_dataset_the_broken_lines_and_the_earlier_revisions_are_told() -> None:
    history = [
        {"runId": "1", "digest": "sha256:aa", "uri": "s3://finetune/team-a/tickets/claim-1"},
        {"runId": "2", "phase": "Failed"},
    ]
    errors = [{"file": "source", "line": 4, "message": "'content' is missing."}]
    status = {"phase": "Failed", "runId": "3", "errors": errors, "history": history, "observedGeneration": 1}
    meta = {"name": "tickets", "namespace": "team-a", "generation": 1}
    text = shown(object_view({"kind": "Dataset", "metadata": meta, "spec": {}, "status": status}), width=200)
    assert "source, line 4: 'content' is missing." in text
    assert "runId 1: sha256:aa, s3://finetune/team-a/tickets/claim-1" in text
    assert "runId 2" not in text, "it has no revision"
