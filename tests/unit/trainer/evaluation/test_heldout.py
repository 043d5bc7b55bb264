from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.graders import Grader
from finetune_grading.grade import Grade
from finetune_grading.registered_graders import compile_graders
from finetune_grading.sample import Sample
from finetune_trainer.data.read.example_errors import ExampleError
from finetune_trainer.evaluation.report import to_samples
from finetune_trainer.outputs.heldout import HeldOutExample, Prompt, read_held_out, refuse_without_tools, to_held_out
from finetune_trainer.outputs.output import Output
from finetune_trainer.process.failures import DiagnosedError

URI = "s3://data/held-out.jsonl"
USER = {"role": "user", "content": "q"}
ASSISTANT = {"role": "assistant", "content": "a"}
TOOL = {"type": "function", "function": {"name": "look_up"}}
CALL = {"type": "function", "function": {"name": "look_up", "arguments": "{}"}}


def held_out(line: int, value: object) -> HeldOutExample:
    return to_held_out(line, json.dumps(value).encode(), value)


@pytest.mark.parametrize(
    ("value", "prompt", "item"),
    [
        ({"messages": [USER, ASSISTANT]}, Prompt((USER,)), {"reference": "a"}),
        ({"messages": [USER, ASSISTANT], "label": {"x": 1}}, Prompt((USER,)), {"reference": "a", "label": {"x": 1}}),
        ({"messages": [USER, ASSISTANT], "tools": [TOOL]}, Prompt((USER,), (TOOL,)), {"reference": "a"}),
        # Only the last assistant message is the reference. An earlier one is part of the prompt, without its weight.
        (
            {"messages": [USER, {**ASSISTANT, "weight": 0}, USER, {**ASSISTANT, "content": "b"}]},
            Prompt((USER, ASSISTANT, USER)),
            {"reference": "b"},
        ),
        ({"prompt": "p", "completion": "c", "n": 2}, Prompt("p"), {"reference": "c", "prompt": "p", "n": 2}),
    ],
)
def test_what_the_model_sees_and_what_graders_see(value: dict[str, Any], prompt: Prompt, item: dict[str, Any]) -> None:
    example = held_out(3, value)
    assert (example.line, example.prompt, example.reference) == (3, prompt, item["reference"])
    assert item.items() <= example.item.items()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "Expected a JSON object"),
        ({"text": "x"}, "Unexpected file format"),
        ({"messages": [USER]}, "The last message must be from the assistant"),
        ({"messages": [ASSISTANT]}, "nothing to answer to"),
        ({"prompt": "p", "completion": "c", "reference": "r"}, "'reference' is taken"),
        ({"messages": [USER, ASSISTANT], "reference_tools": []}, "'reference_tools' is taken"),
    ],
)
def test_an_example_that_can_not_be_judged(value: object, message: str) -> None:
    with pytest.raises(ExampleError, match=message):
        held_out(1, value)


def test_calls_are_a_reference_too() -> None:
    calling = {"role": "assistant", "tool_calls": [{**CALL, "id": "c1"}]}
    example = held_out(1, {"messages": [USER, calling], "tools": [TOOL]})
    assert (example.reference, example.reference_tools) == (None, [CALL])
    assert "reference" not in example.item  # a grader of text says so, by line
    both = held_out(1, {"messages": [USER, {**calling, "content": "I look."}], "tools": [TOOL]})
    assert (both.reference, both.reference_tools) == ("I look.", [CALL])


def write(file: Path, *lines: object) -> Path:
    file.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return file


def test_the_first_broken_line_is_reported_and_the_others_by_number(tmp_path: Path) -> None:
    good = {"prompt": "p", "completion": "c"}
    file = write(tmp_path / "f.jsonl", good, good, "{oops", good, {"prompt": "p"}, "[]")
    with pytest.raises(DiagnosedError) as caught:
        read_held_out(file, URI, [])
    assert caught.value.failure.reason is Reason.DATASET_INVALID
    assert caught.value.failure.message.startswith(f"Line 3 of {URI}: The line is not JSON")
    others = "2 more line(s) are broken: 5, 6."
    assert caught.value.failure.message.endswith(f"{others} Correct the file and upload it again."), (
        "an Evaluation that failed is not looked at again by itself"
    )


def test_a_limit_takes_the_first_examples_and_reads_no_further(tmp_path: Path) -> None:
    lines = [{"prompt": str(number), "completion": "c"} for number in range(5)]
    file = write(tmp_path / "f.jsonl", *lines, "{oops")
    assert [example.prompt.content for example in read_held_out(file, URI, [], limit=3)] == ["0", "1", "2"]


def test_what_a_grader_reads_and_an_example_lacks_is_named(tmp_path: Path) -> None:
    check = {"name": "exact", "type": "StringCheck", "stringCheck": {"reference": "{{item.meta.label}}"}}
    graders = compile_graders([Grader.from_wire(check)])
    whole = {"prompt": "p", "completion": "c", "meta": {"label": "x"}}
    assert len(read_held_out(write(tmp_path / "good", whole), URI, graders)) == 1
    with pytest.raises(DiagnosedError, match=r"Line 2 of .*'exact' reads \{\{item.meta.label\}\}"):
        read_held_out(write(tmp_path / "bad", whole, {"prompt": "p", "completion": "c"}), URI, graders)


def test_a_grader_that_reads_what_no_example_has_is_wrong_and_not_the_file(tmp_path: Path) -> None:
    check = {"name": "exact", "type": "StringCheck", "stringCheck": {"reference": "{{item.answer}}"}}
    file = write(tmp_path / "f.jsonl", *[{"prompt": "p", "completion": "c", "topic": "x"}] * 20)
    for limit in (None, 20):
        with pytest.raises(DiagnosedError) as caught:
            read_held_out(file, URI, compile_graders([Grader.from_wire(check)]), limit)
        assert caught.value.failure.reason is Reason.INVALID_SPEC
        assert caught.value.failure.message == (
            f"Grader 'exact' reads {{{{item.answer}}}}, which none of the 20 examples of {URI} has. "
            "Line 1 has the fields completion, prompt, reference, topic. Correct the grader."
        )


def test_tool_calls_are_not_graded_where_no_example_has_a_tool(tmp_path: Path) -> None:
    graders = compile_graders([Grader.from_wire({"name": "calls", "type": "ToolCall"})])
    messages = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hello."}]
    tool = {"type": "function", "function": {"name": "search", "parameters": {"type": "object", "properties": {}}}}
    plain = read_held_out(write(tmp_path / "plain.jsonl", {"messages": messages}), URI, graders)
    with pytest.raises(DiagnosedError, match=r"'calls' compares tool calls, and none of the 1 examples") as caught:
        refuse_without_tools(URI, plain, graders)
    assert caught.value.failure.reason is Reason.INVALID_SPEC
    # Whether a model leaves a tool alone is worth a test.
    offered = read_held_out(write(tmp_path / "tools.jsonl", {"messages": messages, "tools": [tool]}), URI, graders)
    refuse_without_tools(URI, [*plain, *offered], graders)


def test_a_slice_by_a_field_that_no_example_has_is_wrong(tmp_path: Path) -> None:
    file = write(tmp_path / "f.jsonl", *[{"prompt": "p", "completion": "c"}] * 2)
    with pytest.raises(
        DiagnosedError, match=r"spec.dataset reads \{\{item.topic\}\}, which none of the 2 examples"
    ) as caught:
        read_held_out(file, URI, [], templates=["{{item.topic}}"])
    assert caught.value.failure.reason is Reason.INVALID_SPEC


def test_a_limit_counts_lines_and_not_what_is_wrong_with_them(tmp_path: Path) -> None:
    check = {"name": "exact", "type": "StringCheck", "stringCheck": {"reference": "{{item.answer}}"}}
    whole = {"prompt": "p", "completion": "c", "answer": "a"}
    file = write(tmp_path / "f.jsonl", whole, *[{"prompt": "p", "completion": "c"}] * 19)
    with pytest.raises(DiagnosedError, match=r"Line 2 of .* 18 more line\(s\) are broken"):
        read_held_out(file, URI, compile_graders([Grader.from_wire(check)]), 20)


def test_whole_numbers_beyond_64_bits_are_those_of_the_file(tmp_path: Path) -> None:
    big = 123456789012345678901231
    written = f'{{"id": {big}}}'
    for arguments in (written, json.loads(written)):  # as text, as OpenAI has it, and as an object
        calling = {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "f"}}]}
        calling["tool_calls"][0]["function"]["arguments"] = arguments  # type: ignore[index]
        (example,) = read_held_out(
            write(tmp_path / "f.jsonl", {"messages": [USER, calling], "tools": [TOOL], "id": big}), URI, []
        )
        assert example.item["id"] == big
        assert example.reference_tools[0]["function"]["arguments"] == f'{{"id":{big}}}'


ANSWERED = ({"role": "tool", "tool_call_id": "c1", "content": "x"}, {"role": "assistant", "content": "r"})


def with_calls(arguments: str, *after: dict[str, Any]) -> str:
    calling = {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "f"}, "id": "c1"}]}
    calling["tool_calls"][0]["function"]["arguments"] = arguments  # type: ignore[index]
    return json.dumps({"messages": [USER, calling, *after], "tools": [TOOL]})


@pytest.mark.parametrize("depth", [300, 400, 900, 1010, 2000])
def test_what_is_nested_too_deeply_is_refused_by_line(tmp_path: Path, depth: int) -> None:
    """It could not be compared by graders, nor written with its row once every model had generated."""
    nested = f'{{"a": {"[" * depth}{"]" * depth}}}'
    for line in (
        f'{{"prompt": "p", "completion": "c", "x": {nested}}}',
        f'{{"prompt": "p", "completion": {nested}}}',
        f'{{"prompt": "a", "chosen": {nested}, "rejected": {nested}}}',
        with_calls(nested),
        with_calls(nested, *ANSWERED),
        with_calls(nested, *ANSWERED).replace(json.dumps(nested), nested),  # an object instead of text
    ):
        with pytest.raises(DiagnosedError, match=r"^Line 2 of ") as refused:
            read_held_out(write(tmp_path / "f.jsonl", {"prompt": "p", "completion": "c"}, line), URI, [])
        assert refused.value.failure.reason is Reason.DATASET_INVALID


def test_what_is_accepted_can_be_written(tmp_path: Path) -> None:
    """At every depth about the limit of 254."""
    refused = []
    for depth in range(235, 260):
        line = with_calls('{"a":' * depth + "1" + "}" * depth, *ANSWERED)
        try:
            examples = read_held_out(write(tmp_path / "f.jsonl", line), URI, [])
        except DiagnosedError:
            refused.append(depth)
        else:
            assert to_samples(examples, {"m": [Output(Sample("r"))]}, {"m": {"g": [Grade(1.0, "Passed")]}})
    assert refused == list(range(refused[0], 260))
    assert refused[0] > 240


def test_a_line_that_repeats_a_key_is_refused_as_in_training(tmp_path: Path) -> None:
    (tmp_path / "data").write_text('{"prompt": "a", "prompt": "b", "completion": "c"}')
    with pytest.raises(DiagnosedError, match="The key 'prompt' appears twice in one object"):
        read_held_out(tmp_path / "data", URI, [])
