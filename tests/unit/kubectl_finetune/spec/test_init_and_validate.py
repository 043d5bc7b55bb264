"""`init` writes what `validate` accepts, and `validate` names what is wrong."""

from __future__ import annotations

import pytest
import yaml

from kubectl_finetune.errors import PluginError
from kubectl_finetune.spec.init import METHODS, job_yaml
from kubectl_finetune.spec.validate import documents, local_problems


def problems(text: str) -> list[str]:
    return [problem for document in documents(text) for problem in local_problems(document)]


@pytest.mark.parametrize("held_out", [None, "s3://bucket/valid.jsonl"])
@pytest.mark.parametrize("adapter", ["LoRA", "QLoRA", "Full"])
@pytest.mark.parametrize("method", METHODS)
def test_every_job_to_begin_with_is_valid(method: str, adapter: str, held_out: str | None) -> None:
    text = job_yaml(
        "router",
        model="s3://bucket/m",
        dataset="s3://bucket/d.jsonl",
        validation=held_out,
        method=method,
        adapter=adapter,
    )
    assert problems(text) == []
    (document,) = documents(text)
    assert document.title == "line 1: FineTuneJob router"


def test_what_is_commented_out_is_valid_too() -> None:
    text = job_yaml("router", model="s3://bucket/m", dataset="s3://bucket/d.jsonl", validation="s3://bucket/v.jsonl")
    lines = [
        line.replace("  # ", "  ", 1) if line.startswith("  # ") and ":" in line else line for line in text.splitlines()
    ]
    assert problems("\n".join(lines)) == []
    spec = yaml.safe_load("\n".join(lines))["spec"]
    assert {"className", "runId", "hyperparameters", "parallelism", "checkpoints", "retryLimit"} <= spec.keys()


def test_texts_can_not_break_out_of_the_yaml() -> None:
    hostile = 'x"} \n# {}: \\ \u2028 \u202e'
    spec = yaml.safe_load(job_yaml("router", model=hostile, dataset=hostile, namespace="a"))["spec"]
    assert spec["model"] == {"uri": hostile} and spec["dataset"]["training"] == {"uri": hostile}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{apiVersion: finetune.dev/v1alpha1, kind: FineTuneJob, spec: {epochs: 3}}", "spec.model: Field required"),
        ("{apiVersion: finetune.dev/v1alpha1, kind: FineTuneJob}", "spec: "),
        ("{apiVersion: finetune.dev/v1alpha1, kind: FineTune, spec: {}}", "there are FineTuneClass, FineTuneJob"),
        ("[1, 2]", "not an object with a kind"),
        ("just text", "not an object with a kind"),
    ],
)
def test_what_is_wrong_is_named_with_its_path(text: str, told: str) -> None:
    assert any(told in problem for problem in problems(text)), problems(text)


def evaluation(grader: str) -> str:
    candidates, dataset = "[{name: tuned, model: {uri: s3://models/base}}]", "{uri: s3://data/d.jsonl}"
    graders = f"[{{name: exact, type: StringCheck}}, {grader}]"
    spec = f"{{candidates: {candidates}, dataset: {dataset}, graders: {graders}}}"
    return f"{{apiVersion: finetune.dev/v1alpha1, kind: Evaluation, spec: {spec}}}"


@pytest.mark.parametrize(
    ("grader", "told"),
    [
        ("{name: both, type: Multi, multi: {calculateOutput: exact + other}}", "'both': invalid_variable_error"),
        (
            "{name: b, type: StringCheck, stringCheck: {operation: Eq, input: '{{item.x}}', reference: y}}",
            "'b': invalid_variable_error: input: neither it nor reference reads anything of the output",
        ),
        (
            "{name: b, type: StringCheck, stringCheck: {operation: Eq, input: '{sample.output_text}', reference: y}}",
            "{sample.output_text} is not a variable",
        ),
    ],
    ids=["unknown grader", "reads no output", "single braces"],
)
def test_graders_that_can_not_work_are_found_without_a_cluster(grader: str, told: str) -> None:
    assert any(told in problem for problem in problems(evaluation(grader))), problems(evaluation(grader))
    assert problems(evaluation("{name: both, type: StringCheck}")) == []


@pytest.mark.parametrize(
    ("by", "told"),
    [("{{item.document", "is not a variable"), ("{{sample.output_text}}", "no outputs"), ("all", "names a field")],
)
def test_a_dataset_that_can_not_be_grouped_is_found_without_a_cluster(by: str, told: str) -> None:
    spec = f'{{source: {{uri: "s3://data/d.jsonl"}}, split: {{testPercent: 10, by: "{by}"}}}}'
    (problem,) = problems(f"{{apiVersion: finetune.dev/v1alpha1, kind: Dataset, spec: {spec}}}")
    assert problem.startswith("spec.split.by") and told in problem
    assert (
        problems(f"{{apiVersion: finetune.dev/v1alpha1, kind: Dataset, spec: {spec}}}".replace(by, "{{item.a}}")) == []
    )


def test_a_value_that_is_none_of_the_alternatives_is_one_problem_with_the_path_of_its_field() -> None:
    candidates = "[{name: tuned, model: {fineTuneJobRef: {name: router}, checkpoint: Newest}}]"
    graders = "[{name: a, type: StringCheck}]"
    spec = f"{{candidates: {candidates}, dataset: {{uri: s3://data/d.jsonl}}, graders: {graders}}}"
    (problem,) = problems(f"{{apiVersion: finetune.dev/v1alpha1, kind: Evaluation, spec: {spec}}}")
    assert "spec.candidates.0.model.checkpoint: " in problem
    assert "constrained-int" not in problem and "literal[" not in problem
    assert "'Best'" in problem and " or " in problem


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: [1\n", "line 2, column 1: not YAML"),
        ("a: 1\n\tb: 2\n", "line 2"),
        ("a: \x07", "not YAML"),
        ("a: !!python/object/apply:os.system [id]", "not YAML"),
        ("a: 2026-99-99", "not YAML"),
        ("[" * 5_000, "not YAML"),
    ],
    ids=["open", "tab", "control", "python", "date", "deep"],
)
def test_what_is_not_yaml_is_said_with_its_line(text: str, told: str) -> None:
    with pytest.raises(PluginError) as error:
        documents(text)
    assert told in str(error.value)


def test_objects_of_others_are_left_to_the_api_server() -> None:
    assert problems("{apiVersion: v1, kind: Namespace, metadata: {name: team-a}}\n---\n---\n") == []


def test_a_number_in_quotation_marks_is_text_for_the_api_server() -> None:
    text = """
apiVersion: finetune.dev/v1alpha1
kind: Evaluation
metadata: {name: router}
spec:
  candidates: [{name: tuned, model: {fineTuneJobRef: {name: router}, checkpoint: CHECKPOINT}}]
  dataset: {uri: "s3://data/test.jsonl", maxExamples: LIMIT}
  graders: [{name: exact, type: StringCheck}]
  suspend: SUSPEND
"""
    fine = text.replace("CHECKPOINT", "100").replace("LIMIT", "5").replace("SUSPEND", "true")
    assert problems(fine) == []
    quoted = text.replace("CHECKPOINT", '"100"').replace("LIMIT", '"5"').replace("SUSPEND", '"true"')
    assert problems(quoted) == [
        "spec.suspend: 'true' is text: write it without quotation marks",
        "spec.candidates.0.model.checkpoint: '100' is text: write it without quotation marks",
        "spec.dataset.maxExamples: '5' is text: write it without quotation marks",
    ]
