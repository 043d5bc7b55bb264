"""What can't be translated is refused by its place, all of it at once, and then nothing is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.openai_evals import documents
from tests.unit.trainer.openai_evals.evals import EXACT, ITEM, PROMPT, Imported, a_run, an_eval, import_eval

DATA: list[object] = [{"item": ITEM}]
JUDGE: dict[str, Any] = {
    "type": "score_model",
    "name": "tone",
    "model": "gpt-4.1",
    "input": [{"role": "user", "content": "{{sample.output_text}}"}],
}


def assert_refused(imported: Imported, *told: str) -> None:
    assert imported.code == 1, imported.told
    said = " ".join(imported.told.split())
    for text in told:
        assert text in said, said
    assert "Nothing was written." in said
    assert not [file for file in imported.folder.iterdir() if not file.name.startswith("given")]


@pytest.mark.parametrize(
    ("criterion", "told"),
    [
        (
            {"type": "python", "name": "code", "source": "def grade(s) ..."},
            ["[0] \"code\": python.source: line 1: expected ':'.", "--without"],
        ),
        ({"type": "vibes", "name": "v"}, ['[0] "v".type: there is no equivalent of type "vibes"']),
        ({"name": "v"}, ['[0] "v".type: there is no equivalent of type null']),
        ({**EXACT, "operation": "matches"}, ['[0] "exact": operation: Input should be']),
        ({**EXACT, "reference": 4}, ['[0] "exact": reference: Input should be a valid string']),
        ({**EXACT, "input": "{{sample.input}}"}, ['[0] "exact".input: {{sample.input}} is not a variable']),
        ({**EXACT, "input": "{{item}}"}, ['[0] "exact".input: {{item}} is not a variable']),
        ({**EXACT, "input": "{{item.x | upper}}"}, ['[0] "exact".input: {{item.x | upper}} is not a variable']),
        ({**EXACT, "input": "{% if item.x %}"}, ['[0] "exact".input:', "no statements"]),
        ({**EXACT, "input": "{{sample.output_text"}, ['[0] "exact".input:', "needs {{ before it"]),
        ({**EXACT, "input": "4"}, ['[0] "exact":', "neither it nor reference reads anything of the output"]),
        ({**EXACT, "reference": "x" * 5000}, ['[0] "exact": stringCheck.reference: Value should have at most 4096']),
        ({**JUDGE, "input": []}, ['[0] "tone": scoreModel.input: List should have at least 1 item']),
        (
            {**JUDGE, "input": [{"role": "user", "content": "Hi"}]},
            ['[0] "tone":', "the judge sees nothing of the output"],
        ),
        ({**JUDGE, "range": [5, 0]}, ['[0] "tone":', "is no range"]),
        ({**JUDGE, "range": [0, 5], "pass_threshold": 6}, ['[0] "tone".pass_threshold: 6 is not in (0, 5]']),
        ({**JUDGE, "pass_threshold": 0}, ['[0] "tone".pass_threshold: 0 is not in (0, 1]']),
        (
            {**JUDGE, "input": [{"role": "user", "content": [{"type": "input_image", "image_url": "{{item.image}}"}]}]},
            ['[0] "tone".input[0].content[0]: graders read no images'],
        ),
        (
            {**JUDGE, "input": [{"role": "user", "content": {"type": "input_audio", "input_audio": {}}}]},
            ['[0] "tone".input[0].content: graders read no content of type "input_audio"'],
        ),
        (
            {**JUDGE, "type": "label_model", "labels": ["a"], "passing_labels": ["b"]},
            ['[0] "tone": labelModel.labels: List should have at least 2'],
        ),
        (
            {"type": "multi", "name": "m", "graders": {"a": EXACT}, "calculate_output": "a + b"},
            ['[0] "m":', "invalid_variable_error"],
        ),
        (
            {"type": "multi", "name": "m", "graders": {"a": {"type": "python", "name": "a"}}, "calculate_output": "a"},
            ['[0] "m".graders["a"]: source: Field required'],
        ),
        (
            {"type": "multi", "name": "m", "graders": {"a": {"type": "multi"}}, "calculate_output": "a"},
            ['[0] "m".graders["a"]: a multi grader within another'],
        ),
    ],
)
def test_a_criterion_that_can_not_be_translated(tmp_path: Path, criterion: object, told: list[str]) -> None:
    assert_refused(
        import_eval(tmp_path, an_eval(criterion), *PROMPT, data=DATA), "testing_criteria" + told[0], *told[1:]
    )


def test_all_faults_are_reported_at_once(tmp_path: Path) -> None:
    criteria = [{"type": "python", "name": "code", "source": ""}, {**EXACT, "input": "{{nothing}}", "operation": "eq"}]
    assert_refused(
        import_eval(tmp_path, an_eval(*criteria), *PROMPT, data=DATA), '[0] "code": python.source', '[1] "exact".input'
    )


def test_a_criterion_is_left_out_only_where_that_is_asked_for(tmp_path: Path) -> None:
    given = an_eval(EXACT, {"type": "python", "name": "code", "source": ""})
    assert_refused(import_eval(tmp_path, given, *PROMPT, "--without", "cod", data=DATA), 'there is no criterion "cod"')
    imported = import_eval(tmp_path, given, *PROMPT, "--without", "code", data=DATA)
    assert imported.code == 0, imported.told
    assert [grader["name"] for grader in imported.graders] == ["exact"]
    assert '# - testing_criteria[1] "code": left out' in imported.text


def test_more_criteria_than_an_evaluation_has_graders(tmp_path: Path) -> None:
    imported = import_eval(tmp_path, an_eval(*[EXACT] * 9), *PROMPT, data=DATA)
    assert_refused(imported, "testing_criteria: they are 9 graders, and an Evaluation has at most 8")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"{", "is not JSON"),
        (b"", "is not JSON"),
        (b"\xff\xfe{", "is not JSON"),
        (b"[]", "a JSON object is expected"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"name": "a", "name": "b"}', "The key 'name' appears twice"),
        (b'{"object": "list", "data": [{}, {}]}', "is a list of 2 objects"),
        (b'{"name": "a"}', "testing_criteria: Field required"),
        (b'{"name": "a", "testing_criteria": []}', "testing_criteria: List should have at least 1 item"),
    ],
)
def test_a_file_that_is_no_eval(tmp_path: Path, content: bytes, told: str) -> None:
    assert_refused(import_eval(tmp_path, content, *PROMPT, data=DATA), "given-eval.json", told)


def test_an_eval_of_a_page_with_one_is_that_one(tmp_path: Path) -> None:
    page = {"object": "list", "data": [an_eval(EXACT)], "has_more": False}
    assert import_eval(tmp_path, page, *PROMPT, data=DATA).code == 0


def test_a_huge_eval_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MOST_BYTES", 2**20)
    given = an_eval(EXACT, padding="x" * 2**20)
    assert_refused(import_eval(tmp_path, given, *PROMPT, data=DATA), "is larger than 1 MiB", "--data")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", ["given.jsonl has no data"]),
        (b"{}\n", ['given.jsonl:1: Expected {"item": {...}}']),
        (b'{"item": 4}\n', ['given.jsonl:1: Expected {"item": {...}}']),
        (b'{"item": {"question": "q", "answer": "a"}}\n{"item": \n', ["given.jsonl:2: The line is not JSON"]),
        (b'{"item": {"question": "q", "question": "p"}}\n', ["given.jsonl:1: The key 'question' appears twice"]),
        (
            b'{"item": {"question": "q", "answer": "a"}}\n{"item": {"answer": "a"}}\n',
            ["given.jsonl:2: {{item.question}}"],
        ),
        (b'{"item": {"question": "q"}}\n', ["given.jsonl:1: {{item.answer}}: the example has no 'answer' there"]),
        (b'{"item": ' + b'{"a":' * 600 + b"1" + b"}" * 601 + b"\n", ["given.jsonl:1: The line is nested too deeply"]),
        (b'{"item": {"question": "", "answer": "a"}, "sample": {}}\n', ["given.jsonl:1: `sample` has no output"]),
        (
            b'{"item": {"question": "q", "answer": "a"}, "sample": {"output_text": "a"}}\n'
            b'{"item": {"question": "q", "answer": "a"}}\n',
            ["given.jsonl:2: The line has no `sample`"],
        ),
    ],
)
def test_data_that_can_not_be_translated(tmp_path: Path, data: bytes, told: list[str]) -> None:
    assert_refused(import_eval(tmp_path, an_eval(EXACT), *PROMPT, data=data), *told)


def test_an_import_without_data_is_refused_with_the_options_that_give_it(tmp_path: Path) -> None:
    assert_refused(import_eval(tmp_path, an_eval(EXACT), *PROMPT), "There is no data", "--data", "--run")
    run = a_run(type="completions", source={"type": "file_id", "id": "file-1"}, model="gpt-4o")
    assert_refused(import_eval(tmp_path, an_eval(EXACT), *PROMPT, run=run), "OpenAI's file file-1")


def test_an_eval_alone_does_not_say_what_the_model_is_asked(tmp_path: Path) -> None:
    imported = import_eval(tmp_path, an_eval(EXACT), data=DATA)
    assert_refused(imported, "input_messages", "--prompt", "{{item.question}}, {{item.answer}}")


@pytest.mark.parametrize(
    ("data_source", "told"),
    [
        ({"type": "telepathy"}, 'data_source.type: "telepathy" is not one of jsonl, completions, responses'),
        (
            {"source": {"type": "stored_completions", "metadata": {}}},
            'data_source.source.type: "stored_completions" is data that only OpenAI has',
        ),
        (
            {
                "input_messages": {
                    "type": "template",
                    "template": [{"role": "user", "content": "{{sample.output_text}}"}],
                }
            },
            "data_source.input_messages.template[0].content: there is no sample yet",
        ),
        (
            {
                "input_messages": {
                    "type": "template",
                    "template": [{"role": "user", "content": {"type": "input_audio"}}],
                }
            },
            "template[0].content: content of type 'input_audio' is not supported",
        ),
        (
            {"input_messages": {"type": "item_reference", "item_reference": "sample.output_text"}},
            "data_source.input_messages.item_reference",
        ),
        ({"sampling_params": {"temperature": 3}}, "data_source.sampling_params: temperature"),
        ({"sampling_params": {"tools": [{"type": "web_search"}]}}, "sampling_params.tools[0]: only functions"),
    ],
)
def test_a_run_that_can_not_be_translated(tmp_path: Path, data_source: dict[str, Any], told: str) -> None:
    template = {"type": "template", "template": [{"role": "user", "content": "{{item.question}}"}]}
    source = {"type": "file_content", "content": [{"item": ITEM}]}
    run = a_run(**{"type": "completions", "source": source, "input_messages": template, **data_source})
    assert_refused(import_eval(tmp_path, an_eval(EXACT), run=run), told)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--candidate", "Not A Name"), "--candidate: model.fineTuneJobRef.name"),
        (("--candidate", "s3://x"), "--candidate: model.uri"),
        (("--candidate", "s3://bucket/model"), "--candidate: a model by URI needs a baseline"),
        (("--name", "Not A Name"), "--name: "),
        (("--storage", "ftp://x"), "dataset.uri"),
    ],
)
def test_an_option_that_names_nothing_of_the_eval_is_refused(
    tmp_path: Path, options: tuple[str, ...], told: str
) -> None:
    assert_refused(import_eval(tmp_path, an_eval(EXACT), *PROMPT, *options, data=DATA), told)


def test_a_name_without_a_letter_is_asked_for(tmp_path: Path) -> None:
    given = an_eval(EXACT, name="評価")
    assert_refused(import_eval(tmp_path, given, *PROMPT, data=DATA), "set --name")


def test_files_that_are_there_stay(tmp_path: Path) -> None:
    assert import_eval(tmp_path, an_eval(EXACT), *PROMPT, data=DATA).code == 0
    before = (tmp_path / "sums.jsonl").read_text()
    again = import_eval(tmp_path, an_eval(EXACT), *PROMPT, data=[*DATA, *DATA])
    assert again.code == 1
    assert "sums.yaml exists already" in " ".join(again.told.split())
    assert (tmp_path / "sums.jsonl").read_text() == before


def test_a_broken_line_far_in_the_data_leaves_nothing_behind(tmp_path: Path) -> None:
    data = b"".join(json.dumps(line).encode() + b"\n" for line in DATA * 500) + b"{\n"
    assert_refused(import_eval(tmp_path, an_eval(EXACT), *PROMPT, data=data), "given.jsonl:501")
