"""`finetune-trainer import-openai-eval`: the files that it writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from finetune_trainer.__main__ import app
from tests.unit.docs.pages import ROOT
from tests.unit.trainer.openai_evals.evals import EXACT, ITEM, PROMPT, a_run, an_eval, import_eval, import_one

EXAMPLE = ROOT / "examples" / "openai-eval"
CONTENT = {"type": "file_content", "content": [{"item": ITEM}]}
TEMPLATE = {
    "type": "template",
    "template": [
        {"role": "developer", "content": "Add."},
        {"role": "user", "type": "message", "content": {"type": "input_text", "text": "{{ item.question }}"}},
    ],
}


def test_the_example_is_what_the_command_makes_of_the_eval_beside_it(tmp_path: Path) -> None:
    options = ["--run", str(EXAMPLE / "run.json"), "--candidate", "support", "--storage", "s3://finetune/evals"]
    done = CliRunner().invoke(
        app, ["import-openai-eval", str(EXAMPLE / "eval.json"), *options, "--output", str(tmp_path)]
    )
    assert done.exit_code == 0, done.output
    for name in ("support-routing.yaml", "support-routing.jsonl"):
        assert (tmp_path / name).read_text() == (EXAMPLE / name).read_text()


def test_the_model_that_the_run_asked_is_the_baseline_and_is_asked_the_same(tmp_path: Path) -> None:
    sampling = {"temperature": 0.5, "top_p": 0.9, "seed": 3, "max_completion_tokens": 99}
    run = a_run(
        type="completions", source=CONTENT, input_messages=TEMPLATE, model="gpt-4o.mini", sampling_params=sampling
    )
    imported = import_eval(tmp_path, an_eval(EXACT), "--candidate", "tuned-sums", run=run)
    assert imported.code == 0, imported.told
    assert imported.spec["candidates"] == [{"name": "tuned", "model": {"fineTuneJobRef": {"name": "tuned-sums"}}}]
    assert imported.spec["baseline"] == {"model": {"endpoint": {"name": "gpt-4o-mini"}}}
    assert imported.spec["generation"] == {"temperature": 0.5, "topP": 0.9, "seed": 3, "maxTokens": 99}
    assert '# - {name: gpt-4o-mini, url: "https://api.openai.com/v1", model: "gpt-4o.mini"' in imported.text
    (line,) = imported.lines()
    assert line == {
        "messages": [
            {"role": "developer", "content": "Add."},
            {"role": "user", "content": [{"type": "text", "text": "2+2?"}]},
            {"role": "assistant", "content": "4"},
        ],
        **ITEM,
    }


def test_functions_that_the_run_offers_are_offered_in_both_spellings(tmp_path: Path) -> None:
    function = {"name": "add", "parameters": {"type": "object", "properties": {}}}
    for name, tool in (
        ("chat", {"type": "function", "function": function}),
        ("flat", {"type": "function", **function}),
    ):
        run = a_run(type="responses", source=CONTENT, input_messages=TEMPLATE, sampling_params={"tools": [tool]})
        folder = tmp_path / name
        folder.mkdir()
        imported = import_eval(folder, an_eval(EXACT), run=run)
        assert imported.code == 0, imported.told
        assert imported.lines()[0]["tools"] == [{"type": "function", "function": function}]


def test_a_trajectory_is_the_prompt_and_no_template(tmp_path: Path) -> None:
    trajectory = [
        {"type": "message", "role": "system", "content": "Say {{item.question}}."},
        {"role": "user", "content": [{"type": "input_text", "text": "2+2?"}]},
        {"role": "assistant", "content": "5"},
        {"role": "user", "content": "No."},
    ]
    run = a_run(
        type="completions",
        source={"type": "file_content", "content": [{"item": {**ITEM, "input": trajectory}}]},
        input_messages={"type": "item_reference", "item_reference": "item.input"},
    )
    imported = import_eval(tmp_path, an_eval(EXACT), run=run)
    assert imported.code == 0, imported.told
    messages = imported.lines()[0]["messages"]
    assert [one["role"] for one in messages] == ["system", "user", "assistant", "user", "assistant"]
    assert messages[0]["content"] == "Say {{item.question}}."
    assert messages[-1]["content"] == "4"


def test_images_of_a_prompt_stay_images(tmp_path: Path) -> None:
    parts = [
        {"type": "input_text", "text": "What is it?"},
        {"type": "input_image", "image_url": "https://example.org/{{item.question}}.png", "detail": "low"},
    ]
    template = {"type": "template", "template": [{"role": "user", "content": parts}]}
    imported = import_eval(
        tmp_path, an_eval(EXACT), run=a_run(type="completions", source=CONTENT, input_messages=template)
    )
    assert imported.code == 0, imported.told
    assert imported.lines()[0]["messages"][0]["content"] == [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "https://example.org/2+2?.png", "detail": "low"}},
    ]


def test_outputs_that_there_are_already_are_the_baseline(tmp_path: Path) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    data: list[object] = [
        {"item": ITEM, "sample": {"output_text": "4", "model": "gpt-4o"}},
        {
            "item": ITEM,
            "sample": {"choices": [{"message": {"role": "assistant", "content": None, "tool_calls": [call]}}]},
        },
    ]
    imported = import_eval(tmp_path, an_eval(EXACT), *PROMPT, data=data)
    assert imported.code == 0, imported.told
    assert imported.spec["baseline"] == {"model": {"outputs": {"uri": "s3://bucket/evals/sums-outputs.jsonl"}}}
    assert imported.lines("-outputs") == [{"output_text": "4"}, {"output_text": "", "output_tools": [call]}]


def test_output_items_of_a_run_have_prompt_item_and_output(tmp_path: Path) -> None:
    """What is left of an eval on stored completions."""
    item = {
        "object": "eval.run.output_item",
        "datasource_item": ITEM,
        "sample": {
            "input": [{"role": "user", "content": "How much is 2+2?"}],
            "output": [{"role": "assistant", "content": "4"}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10},
        },
    }
    imported = import_eval(tmp_path, an_eval(EXACT), data=[item])
    assert imported.code == 0, imported.told
    assert imported.lines()[0]["messages"][0] == {"role": "user", "content": "How much is 2+2?"}
    assert imported.lines("-outputs") == [
        {"output_text": "4", "usage": {"prompt_tokens": 9, "completion_tokens": 1}},
    ]


def test_names_become_names_of_graders_each_its_own(tmp_path: Path) -> None:
    names = ["Exact match", "exact-match", "x" * 40, "x" * 50, "日本語", "日本"]
    imported = import_eval(
        tmp_path, an_eval(*({**EXACT, "name": name} for name in names)), *PROMPT, data=[{"item": ITEM}]
    )
    assert imported.code == 0, imported.told
    assert [grader["name"] for grader in imported.graders] == [
        *("exact-match", "exact-match-2", "x" * 32, f"{'x' * 30}-2", "unnamed", "unnamed-2")
    ]
    assert 'note: testing_criteria[0] "Exact match".name: the grader is called exact-match.' in imported.told


def test_what_has_no_equivalent_but_leaves_the_grade_is_reported_and_stands_in_the_yaml(tmp_path: Path) -> None:
    criterion = {
        "type": "score_model",
        "name": "tone",
        "model": "o4-mini",
        "input": [{"role": "user", "content": "{{sample.output_text}}"}],
        "sampling_params": {"reasoning_effort": "low"},
    }
    run = a_run(
        type="completions",
        source=CONTENT,
        input_messages=TEMPLATE,
        sampling_params={"response_format": {"type": "json_object"}, "top_p": 0.5},
    )
    imported = import_eval(tmp_path, an_eval(criterion), run=run)
    assert imported.code == 0, imported.told
    for place in (
        'testing_criteria[0] "tone".sampling_params.reasoning_effort',
        "data_source.sampling_params.response_format",
        "data_source.sampling_params.top_p",
    ):
        assert f"note: {place}: not translated" in imported.told
        assert f"# - {place}: not translated" in imported.text


def test_an_example_without_a_reference_has_one_that_no_grader_reads(tmp_path: Path) -> None:
    criterion = {
        "type": "label_model",
        "name": "kind",
        "model": "gpt-4.1",
        "labels": ["a", "b"],
        "passing_labels": ["a"],
        "input": [{"role": "user", "content": "{{sample.output_text}}"}],
    }
    imported = import_one(tmp_path, criterion)
    assert imported.lines()[0]["messages"][-1] == {"role": "assistant", "content": "(none)"}


def test_large_numbers_and_text_of_any_kind_arrive_unchanged(tmp_path: Path) -> None:
    item = {**ITEM, "big": 2**70, "text": "é\u2028\u0085#: {{x}} \U0001f600"}
    imported = import_one(tmp_path, EXACT, item)
    assert imported.code == 0, imported.told
    (line,) = [json.loads(one) for one in (tmp_path / "sums.jsonl").read_bytes().split(b"\n") if one]
    assert {name: line[name] for name in item} == item


@pytest.mark.parametrize("name", ["a\u2028kind: Secret", "a\nkind: Secret", "a\x85kind: Secret", "\x1b[2Ja"])
def test_a_name_writes_nothing_into_the_yaml_or_the_terminal(tmp_path: Path, name: str) -> None:
    imported = import_eval(tmp_path, an_eval({**EXACT, "name": name}), *PROMPT, data=[{"item": ITEM}])
    assert imported.code == 0, imported.told
    assert set(imported.spec) == {"candidates", "dataset", "graders"}
    assert "\x1b" not in imported.told
