"""Tool calls are found in the outputs of models of every family."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_grading.tool_calls import ToolCall
from finetune_trainer.data.encode.chat_template import render_chat
from finetune_trainer.generate.tool_calls import COMMON_FORMATS, parse_tool_calls, response_template, to_calls
from tests.unit.trainer.data.encode.chat_templates import FAMILIES, make_tokenizer

WITH_CALLS = sorted(name for name, family in FAMILIES.items() if family.calls)
TOOLS = [
    {"type": "function", "function": {"name": name, "description": "", "parameters": {"type": "object"}}}
    for name in ("add", "look_up")
]
MISTRAL_2025 = "{{ '[TOOL_CALLS]name[ARGS]' if false else messages[0].content }}"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer()


def parse(tokenizer: Any, output: str) -> tuple[str, tuple[ToolCall, ...]]:
    template = response_template(tokenizer)
    assert template is not None
    prompt = render_chat(tokenizer, [{"role": "user", "content": "?"}], TOOLS, add_generation_prompt=True)
    return parse_tool_calls(template, output, prompt, TOOLS)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text("ab é\"'{}[]:,\n\\", max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("ab", min_size=1), inner, max_size=2),
    max_leaves=4,
)
calls = st.lists(
    st.tuples(st.sampled_from(["add", "look_up"]), st.dictionaries(st.text("abc_", min_size=1), values, max_size=3)),
    min_size=1,
    max_size=3,
)


@settings(max_examples=150, deadline=None)
@given(made=calls, family=st.sampled_from(WITH_CALLS))
def test_what_a_chat_template_writes_is_read_again(
    tokenizer: Any, made: list[tuple[str, dict[str, Any]]], family: str
) -> None:
    chosen = FAMILIES[family]
    assert chosen.calls is not None
    tokenizer.chat_template = chosen.template
    made = made if chosen.several_calls else made[:1]
    _, found = parse(tokenizer, chosen.calls(made))
    assert found == tuple(ToolCall(name, arguments) for name, arguments in made)


HERMES = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
ADD = ToolCall("add", {"a": 1})


@pytest.mark.parametrize(
    ("family", "output", "text", "found"),
    [
        ("Qwen 2.5", "It is four.<|im_end|>", "It is four.<|im_end|>", ()),
        ("Qwen 2.5", f"I add.\n{HERMES}<|im_end|>", "I add.", (ADD,)),
        ("Qwen 2.5", HERMES[:-12], "", (ADD,)),  # cut before the end
        ("Qwen 2.5", "<tool_call>{oops</tool_call>", "<tool_call>{oops</tool_call>", ()),
        ("Qwen 2.5", '<tool_call>{"name": 7, "arguments": {}}</tool_call>', None, ()),
        ("Qwen 2.5", '<tool_call>["add"]</tool_call>', None, ()),
        ("Qwen 2.5", '<tool_call>{"name": "add"}</tool_call>', None, ()),
        ("Llama 3.1", '{"name": "add", "parameters": {"a": 1}}<|eot_id|>', "", (ADD,)),
        ("Llama 3.1", '{"sum": 4}<|eot_id|>', None, ()),
        ("Mistral", '[TOOL_CALLS] [{"name": "add", "arguments": {"a": 1}}]</s>', "", (ADD,)),
    ],
)
def test_the_calls_in_an_output_are_found_in_the_format_of_each_model_family(
    tokenizer: Any, family: str, output: str, text: str | None, found: tuple[ToolCall, ...]
) -> None:
    tokenizer.chat_template = FAMILIES[family].template
    said, calls = parse(tokenizer, output)
    assert calls == found
    assert said == (output if text is None else text)


def test_the_newer_format_of_mistral(tokenizer: Any) -> None:
    tokenizer.chat_template = MISTRAL_2025
    output = '[TOOL_CALLS]add[ARGS]{"a": 1}[TOOL_CALLS]look_up[CALL_ID]call00001[ARGS]{}</s>'
    assert parse(tokenizer, output)[1] == (ADD, ToolCall("look_up", {}))


def test_several_calls_of_llama_stand_with_semicolons(tokenizer: Any) -> None:
    tokenizer.chat_template = FAMILIES["Llama 3"].template  # one that TRL knows no format of
    output = '<|python_tag|>{"name": "add", "parameters": {"a": 1}}; {"name": "look_up", "parameters": {}}<|eom_id|>'
    assert parse(tokenizer, output)[1] == (ADD, ToolCall("look_up", {}))


def test_the_format_that_comes_with_a_model_counts_first(tokenizer: Any) -> None:
    tokenizer.chat_template = FAMILIES["Qwen 2.5"].template
    fields = {"tool_calls": {"open": "CALL", "close": "END", "repeats": True, "content": "json"}}
    tokenizer.response_template = {"start_anchor_pattern": r"\Z", "fields": fields}
    try:
        assert parse(tokenizer, 'CALL{"name": "add", "arguments": {"a": 1}}END')[1] == (ADD,)
    finally:
        del tokenizer.response_template


def test_a_model_whose_format_is_not_known_calls_nothing(tokenizer: Any) -> None:
    tokenizer.chat_template = FAMILIES["ChatML"].template
    assert response_template(tokenizer) is None


@pytest.mark.parametrize("arguments", ['{"a":' * 300 + "1" + "}" * 300, '{"a":1' + "0" * 30 + "}"])
def test_a_call_is_exact_whatever_the_size_of_its_numbers_and_however_it_is_written(arguments: str) -> None:
    template = dict(COMMON_FORMATS)["<tool_call>"]
    for written in (arguments, json.dumps(arguments)):
        output = f'<tool_call>{{"name": "add", "arguments": {written}}}</tool_call>'
        text, (call,) = parse_tool_calls(template, output, "", TOOLS)
        assert (text, call.to_wire()["function"]["arguments"]) == ("", arguments)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("add", '{"a":' * 3000 + "1" + "}" * 3000), ("add", '{"a": "\\ud800"}'), ("\\ud800", "{}")],
)
def test_a_call_that_could_not_be_written_down_is_text(name: str, arguments: str) -> None:
    """No report and no answer could have it: JSON's writer gives up at some 1,000 levels, and at half a character."""
    with pytest.raises((TypeError, ValueError)):
        to_calls([{"name": json.loads(f'"{name}"'), "arguments": arguments}])
    template = dict(COMMON_FORMATS)["<tool_call>"]
    output = f'<tool_call>{{"name": "{name}", "arguments": {arguments}}}</tool_call>'
    assert parse_tool_calls(template, output, "", TOOLS) == (output, ())
