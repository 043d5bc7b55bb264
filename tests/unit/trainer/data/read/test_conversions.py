"""The forms of the field are read as they are meant; what can't be read so is refused by line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_trainer.data.read.examples import ChatExample, PreferenceExample
from finetune_trainer.data.read.jsonl import LineError
from finetune_trainer.data.read.messages import Assistant, Developer, System, Tool, User
from finetune_trainer.data.read.reader import NumberedExample, read_examples
from finetune_trainer.methods.method import formats_of

ASKED, SAID = {"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}
CHAT = ChatExample([User(content="2+2?"), Assistant(content="4")])
WITH_SYSTEM = ChatExample([System(content="Add."), User(content="2+2?"), Assistant(content="4")])
PAIR = PreferenceExample([User(content="2+2?")], [Assistant(content="4")], [Assistant(content="5")])
WORSE = {"role": "assistant", "content": "5"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "add", "parameters": SCHEMA}}
CALL = {"id": "a", "type": "function", "function": {"name": "add", "arguments": "{}"}}
TWICE = '{"a": {"b": 1, "b": 2}}'
OLD_CALL = {"name": "add", "arguments": "{}"}


def read(folder: Path, text: str | bytes, method: Any = None) -> Any:
    file = folder / "data.jsonl"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    (item,) = read_examples(file, None if method is None else formats_of(method))
    return item


FORMS: dict[str, tuple[dict[str, Any], Any]] = {
    "Alpaca": ({"instruction": "2+2?", "input": "", "output": "4"}, CHAT),
    "Alpaca with input": (
        {"instruction": "Add.", "input": "2, 2", "output": "4"},
        ChatExample([User(content="Add.\n\n2, 2"), Assistant(content="4")]),
    ),
    "Alpaca with system and history": (
        {"system": "Add.", "history": [["1+1?", "2"]], "instruction": "2+2?", "output": "4"},
        ChatExample(
            [
                System(content="Add."),
                User(content="1+1?"),
                Assistant(content="2", weight=0),
                User(content="2+2?"),
                Assistant(content="4"),
            ]
        ),
    ),
    "ShareGPT": (
        {"conversations": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}], "system": "Add."},
        WITH_SYSTEM,
    ),
    "ShareGPT's pairs": (
        {
            "conversations": [{"from": "human", "value": "2+2?"}],
            "chosen": {"from": "gpt", "value": "4"},
            "rejected": {"from": "gpt", "value": "5"},
        },
        PAIR,
    ),
    "conversations of roles": ({"conversations": [ASKED, SAID]}, CHAT),
    "system beside the messages": ({"system": "Add.", "messages": [ASKED, SAID]}, WITH_SYSTEM),
    "UltraFeedback": (
        {"prompt": "2+2?", "chosen": [ASKED, SAID], "rejected": [ASKED, WORSE], "messages": [ASKED]},
        PAIR,
    ),
    "a prompt that is text, answers that are messages": (
        {"prompt": "2+2?", "chosen": [SAID], "rejected": [WORSE]},
        PAIR,
    ),
    "a prompt that both repeat": ({"prompt": [ASKED], "chosen": [ASKED, SAID], "rejected": [ASKED, WORSE]}, PAIR),
    "Alpaca's pairs with history": (
        {"history": [["1+1?", "2"]], "instruction": "2+2?", "chosen": "4", "rejected": "5"},
        PreferenceExample(
            [User(content="1+1?"), Assistant(content="2", weight=0), User(content="2+2?")], PAIR.chosen, PAIR.rejected
        ),
    ),
    "Alpaca of input alone": ({"instruction": "", "input": "2+2?", "output": "4"}, CHAT),
    "ShareGPT with content": ({"conversations": [{"from": "human", "content": "2+2?"}, SAID]}, CHAT),
    "OpenAI's pairs with tools beside the input": (
        {"input": {"messages": [ASKED]}, "tools": [TOOL], "preferred_output": [SAID], "non_preferred_output": [WORSE]},
        PreferenceExample(PAIR.prompt, PAIR.chosen, PAIR.rejected, [TOOL]),
    ),
    "OpenAI's pairs with functions and system": (
        {
            "input": {"messages": [ASKED], "functions": [TOOL["function"]], "system": "Add."},
            "preferred_output": [SAID],
            "non_preferred_output": [WORSE],
        },
        PreferenceExample([System(content="Add."), *PAIR.prompt], PAIR.chosen, PAIR.rejected, [TOOL]),
    ),
    "null for what is absent": (
        {"messages": [{**ASKED, "tool_calls": None, "weight": None}, {**SAID, "audio": None, "annotations": []}]},
        CHAT,
    ),
    "tools as JSON text": (
        {"messages": [ASKED, SAID], "tools": json.dumps([{"name": "add", "parameters": SCHEMA}])},
        ChatExample(CHAT.messages, [{"type": "function", "function": {"name": "add", "parameters": SCHEMA}}]),
    ),
    "null in a tool": (
        {"messages": [ASKED, SAID], "tools": [{"type": "function", "function": {"name": "add", "strict": None}}]},
        ChatExample(CHAT.messages, [{"type": "function", "function": {"name": "add"}}]),
    ),
    "reasoning by another name": (
        {"messages": [ASKED, {**SAID, "reasoning": "since"}]},
        ChatExample([User(content="2+2?"), Assistant(content="4", reasoning_content="since")]),
    ),
    "the role developer": (
        {"messages": [{"role": "developer", "content": "Add."}, ASKED, SAID]},
        ChatExample([Developer(content="Add."), *CHAT.messages]),
    ),
}


@pytest.mark.parametrize(("line", "example"), FORMS.values(), ids=FORMS)
def test_a_form_of_the_field_is_read_as_it_is_meant(tmp_path: Path, line: dict[str, Any], example: Any) -> None:
    item = read(tmp_path, json.dumps(line), "DPO" if isinstance(example, PreferenceExample) else "SFT")
    assert isinstance(item, NumberedExample), item
    assert item.example == example


def test_the_older_functions_are_tools(tmp_path: Path) -> None:
    call = {"role": "assistant", "content": None, "function_call": {"name": "add", "arguments": '{"a": 1.10}'}}
    told = {"role": "function", "name": "add", "content": "4"}
    line = {"functions": [{"name": "add", "parameters": SCHEMA}], "messages": [ASKED, call, told, SAID]}
    example = read(tmp_path, json.dumps(line)).example
    assert example.tools == [{"type": "function", "function": {"name": "add", "parameters": SCHEMA}}]
    assert example.messages[1].tool_calls[0].function.arguments == '{"a": 1.10}'
    assert example.messages[2] == Tool(content="4", name="add")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "variables of the template": (
        {"chat_template_kwargs": {"x": 1}},
        "The key 'chat_template_kwargs' of a line is",
    ),
    "documents": ({"documents": [{"text": "a"}]}, "The key 'documents' of a line is not supported. Put the texts into"),
    "images beside": (
        {"images": ["a.png"]},
        "The key 'images' of a line is not supported. Put each image into a user's",
    ),
    "two systems": (
        {"system": "a", "messages": [{"role": "system", "content": "b"}, ASKED, SAID]},
        "The line has 'system', and a message of the role system too",
    ),
    "content and a refusal": (
        {"messages": [ASKED, {**SAID, "refusal": "No."}]},
        "Message 2: 'content' and 'refusal' are both there. Keep the one",
    ),
    "calls of both kinds": (
        {"messages": [ASKED, {**SAID, "tool_calls": [CALL], "function_call": OLD_CALL}]},
        "Message 2: the key 'function_call' is not known.",
    ),
    "value and content": (
        {"messages": None, "conversations": [{"from": "human", "value": "a", "content": "b"}, SAID]},
        "Message 1 has both 'value' and 'content'.",
    ),
    "two outputs": (
        {"messages": None, "instruction": "a", "output": "b", "response": "c"},
        "The line has both 'output' and 'response'.",
    ),
    "a sampling parameter in the input": (
        {
            "messages": None,
            "input": {"messages": [ASKED], "temperature": 1},
            "preferred_output": [SAID],
            "non_preferred_output": [WORSE],
        },
        "The key 'temperature' of 'input' is not supported.",
    ),
    "an answer that is part of the other": (
        {"messages": None, "chosen": [ASKED, SAID], "rejected": [ASKED, SAID, WORSE]},
        "'chosen' has no message of its own",
    ),
    "tools twice": ({"tools": [{}], "functions": [{}]}, "The line has both 'tools' and 'functions'"),
}


@pytest.mark.parametrize(("more", "words"), REFUSED.values(), ids=REFUSED)
def test_what_would_change_what_is_learned_is_never_passed_over(
    tmp_path: Path, more: dict[str, Any], words: str
) -> None:
    item = read(tmp_path, json.dumps({"messages": [ASKED, SAID], **more}))
    assert isinstance(item, LineError)
    assert item.message.startswith(words)


@pytest.mark.parametrize(
    "line",
    [
        '{"messages": [{"role": "user", "content": "a", "content": "b"}, {"role": "assistant", "content": "c"}]}',
        '{"prompt": "a", "prompt": "b", "completion": "c"}',
        '{"id": 1, "messages": [], "messages": [{"role": "assistant", "content": "c"}]}',
        json.dumps({"messages": [ASKED, {**SAID, "tool_calls": [{"function": {"name": "f", "arguments": TWICE}}]}]}),
    ],
)
def test_a_key_that_stands_twice_is_reported_and_no_value_is_lost(tmp_path: Path, line: str) -> None:
    item = read(tmp_path, line)
    assert isinstance(item, LineError)
    assert "appears twice in one object" in item.message


NESTED = "[" * 1005 + "]" * 1005
CALLED_TWICE = f'{{"name": "f", "arguments": {TWICE}}}'


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({"conversations": [{"from": "human", "value": "q"}, {"from": "function_call", "value": CALLED_TWICE}]}, "key"),
        ({"messages": [ASKED, SAID], "tools": f'[{{"name": "f", "parameters": {TWICE}}}]'}, "key"),
        ({"messages": [ASKED, SAID], "tools": f'[{{"name": "f", "parameters": {NESTED}}}]'}, "deeply"),
        ({"input": {"messages": [ASKED], "tools": f"[{TWICE}]"}, "preferred_output": [SAID], "id": 1}, "key"),
    ],
)
def test_nor_in_json_that_is_text(tmp_path: Path, line: dict[str, Any], words: str) -> None:
    item = read(tmp_path, json.dumps(line))
    assert isinstance(item, LineError)
    assert {"key": "appears twice in one object", "deeply": "nested too deeply"}[words] in item.message


@pytest.mark.parametrize("twice", ['"messages": M, "messages": M', '"messages": M, "tools": [{"a": 1, "a": 2}]'])
@pytest.mark.parametrize("depth", [200, 260, 900, 1010, 1020])
def test_nor_beside_what_is_nested(tmp_path: Path, twice: str, depth: int) -> None:
    """Some of it is too deep for the search for keys, and not for the decoder."""
    messages = json.dumps([ASKED, SAID])
    item = read(tmp_path, f'{{{twice}, "meta": {"[" * depth}{"]" * depth}}}'.replace("M", messages))
    assert isinstance(item, LineError)
    assert "appears twice in one object" in item.message or "nested too deeply" in item.message


@pytest.mark.parametrize(
    ("line", "method", "unread"),
    [
        ({"messages": [ASKED, SAID], "prompt": "2+2?", "completion": "5"}, "SFT", {"prompt", "completion"}),
        ({"messages": [ASKED, SAID], "chosen": "4", "rejected": "5"}, "SFT", {"chosen", "rejected"}),
        (
            {"messages": [ASKED, SAID], "prompt": "2+2?", "chosen": "4", "rejected": "5", "id": 1},
            "DPO",
            {"messages", "id"},
        ),
        ({"messages": [ASKED, SAID], "prompt": None}, "SFT", set()),
    ],
)
def test_what_belongs_to_another_form_of_the_line_is_reported(
    tmp_path: Path, line: dict[str, Any], method: Any, unread: set[str]
) -> None:
    assert read(tmp_path, json.dumps(line), method).unread == unread


def test_an_empty_output_is_named_by_its_own_key(tmp_path: Path) -> None:
    item = read(tmp_path, json.dumps({"instruction": "2+2?", "input": "", "output": " "}))
    assert isinstance(item, LineError)
    assert item.message == "'output' is empty: there is nothing to learn."


def test_a_label_of_ones_own_is_no_label_of_ktos(tmp_path: Path) -> None:
    assert read(tmp_path, json.dumps({"messages": [ASKED, SAID], "label": "sums"})).unread == {"label"}
    assert isinstance(read(tmp_path, json.dumps({"messages": [ASKED, SAID], "label": True})), LineError)


@pytest.mark.parametrize("label", [True, False, 1, 0, 1.0, "true", "False", "0"])
@pytest.mark.parametrize("form", [{"messages": [ASKED, SAID]}, {"instruction": "2+2?", "output": "5"}])
def test_a_label_of_ktos_is_refused_however_it_is_written(tmp_path: Path, form: dict[str, Any], label: object) -> None:
    item = read(tmp_path, json.dumps({**form, "label": label}))
    assert isinstance(item, LineError)
    assert item.message.startswith("The key 'label' of a line is not supported. It belongs to KTO")


def test_a_table_and_its_lines_are_the_same(tmp_path: Path) -> None:
    """As `datasets` writes them with to_parquet and to_json: every key in every row."""
    rows = [
        {"messages": [{**ASKED, "tool_calls": None}, {**SAID, "tool_calls": None}], "source": "a"},
        {"messages": [{**ASKED, "tool_calls": None}, {**SAID, "content": None, "tool_calls": [CALL]}], "source": None},
    ]
    lines, table = tmp_path / "a.jsonl", tmp_path / "a.parquet"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), table)
    assert [item.example for item in read_examples(lines)] == [item.example for item in read_examples(table)]  # type: ignore[union-attr]


numbers = st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?", fullmatch=True)


@given(number=numbers)
def test_numbers_of_arguments_that_are_objects_keep_their_text(tmp_path_factory: Any, number: str) -> None:
    called = {"role": "assistant", "tool_calls": [{"function": {"name": "add", "arguments": {"a": "NUMBER"}}}]}
    line = json.dumps({"messages": [ASKED, called]}).replace('"NUMBER"', number)
    example = read(tmp_path_factory.getbasetemp(), line).example
    assert example.messages[1].tool_calls[0].function.arguments == f'{{"a":{number}}}'


KEYS = ["from", "value", "role", "content", "function_call", "tool_calls", "function", "arguments", "name"]
LINE_KEYS = ["conversations", "instruction", "history", "functions", "tools", "system", "messages", "chosen", "prompt"]
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.sampled_from(["gpt", "human", "assistant"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=8,
)


@given(value=values, key=st.sampled_from([*LINE_KEYS, "input"]), method=st.sampled_from(["SFT", "DPO", None]))
def test_anything_under_any_key_is_an_example_or_has_words(
    tmp_path_factory: Any, key: str, value: Any, method: Any
) -> None:
    line = {"instruction": "2+2?", "output": "4", "rejected": [WORSE], key: value}
    item = read(tmp_path_factory.getbasetemp(), json.dumps(line), method)
    assert isinstance(item, NumberedExample) or item.message
