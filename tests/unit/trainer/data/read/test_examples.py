"""Broken datasets, and the sentence that a person gets to read for each."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_trainer.data.read import jsonl
from finetune_trainer.data.read.conversions import READ, to_known_form
from finetune_trainer.data.read.example_errors import ExampleError, explain
from finetune_trainer.data.read.examples import ChatExample, CompletionExample, PreferenceExample
from finetune_trainer.data.read.jsonl import LineError
from finetune_trainer.data.read.messages import (
    Assistant,
    Function,
    ImagePart,
    ImageUrl,
    System,
    TextPart,
    Tool,
    ToolCall,
    User,
)
from finetune_trainer.data.read.reader import NumberedExample, parse_example, read_examples
from finetune_trainer.methods.method import formats_of
from tests.unit.trainer.data.read.example_lines import (
    ANSWER_A,
    ASSISTANT,
    CALLED_A,
    CALLED_A_AND_B,
    CALLING,
    GOOD,
    KEYS,
    NO_WORDS,
    TOLD,
    USER,
    WORSE,
    answer,
    call,
    called,
    chat,
    image,
    pair,
    preference,
)

BROKEN_LINES = {
    "cut off": (
        b'{"messages": [{"role": "user", "cont',
        "The line is not JSON: unexpected end of data at column 37.",
    ),
    "single quotes": (
        b"{'messages': []}",
        "The line is not JSON: unexpected character, expected a string key at column 2.",
    ),
    "NaN": (b'{"prompt": NaN}', "The line is not JSON: unexpected character, expected a JSON value at column 12."),
    "Latin-1": (
        b'{"prompt": "caf\xe9", "completion": "x"}',
        "The line is not UTF-8: invalid byte 0xe9 at column 16.",
    ),
    "NUL": (b'{"prompt": "a\x00"}', "The line has a NUL byte at column 14. Is the file really UTF-8 text?"),
    "list": (b"[1, 2]", "Expected a JSON object, found a list."),
    "number": (b"7", "Expected a JSON object, found a number."),
    "neither format": (
        b'{"text": "hello"}',
        "Unexpected file format, expected either prompt/completion pairs or chat messages.",
    ),
    "only a prompt": (
        b'{"prompt": "hello"}',
        "Unexpected file format, expected either prompt/completion pairs or chat messages.",
    ),
    "preference pair": (
        preference([USER], [ASSISTANT], [WORSE]),
        "Expected chat messages as in the lines before, found preference pairs.",
    ),
    "no messages": (chat(), "'messages' must be a list with at least one message."),
    "messages as text": (b'{"messages": "hi"}', "'messages' must be a list with at least one message."),
    "message as text": (chat("hi"), "Message 1: expected an object, found text."),
    "no role": (chat(USER, {"content": "4"}), "Message 2: Discriminator 'role' is missing in value."),
    "unknown role": (
        chat({"role": "human", "content": "2+2?"}, ASSISTANT),
        "Message 1: 'role' must be one of system, developer, user, assistant, tool, found 'human'.",
    ),
    "misspelt key": (chat(USER, ASSISTANT | {"wieght": 0}), "Message 2: the key 'wieght' is not known."),
    "no content": (chat({"role": "user"}, ASSISTANT), "Message 1: 'content' is missing."),
    "content as number": (
        chat(USER, {"role": "assistant", "content": 4}),
        "Message 2: 'content' must be text, found a number.",
    ),
    "empty answer": (
        chat(USER, {"role": "assistant", "content": "  "}),
        "Message 2: 'content' is empty: there is nothing to learn.",
    ),
    "image": (
        chat(image("http://169.254.169.254/latest"), ASSISTANT),
        "Message 1: an image must be an https:// or s3:// URL, or a data URI of a JPEG, PNG or WEBP in base64, found "
        "'http://169.254.169.254/latest'.",
    ),
    "image of the assistant": (
        chat(USER, {**image("https://example.com/a.png"), "role": "assistant"}),
        "Message 2: only parts of type 'text' can be learned from, found 'image_url'.",
    ),
    "65 images": (
        chat({"role": "user", "content": image("s3://data/a.png")["content"] * 65}, ASSISTANT),
        "The example has 65 images; the maximum is 64.",
    ),
    "audio": (
        chat({"role": "user", "content": [{"type": "input_audio"}]}, ASSISTANT),
        "Message 1: only parts of type 'text' and 'image_url' can be learned from, found 'input_audio'.",
    ),
    "ends with the user": (chat(ASSISTANT, USER), "The last message must be from the assistant."),
    "weight 2": (chat(USER, ASSISTANT | {"weight": 2}), "Message 2: 'weight' must be 0 or 1, found 2."),
    "weight true": (chat(USER, ASSISTANT | {"weight": True}), "Message 2: 'weight' must be 0 or 1, found True."),
    "weight of the user": (
        chat(USER | {"weight": 0}, ASSISTANT),
        "Message 1: only the assistant's messages can have 'weight'.",
    ),
    "all weights 0": (
        chat(USER, ASSISTANT | {"weight": 0}),
        "There must be at least one assistant message with a weight other than 0.",
    ),
    "call without name": (
        chat(USER, {"role": "assistant", "tool_calls": [{"function": {"arguments": "{}"}}]}),
        "Message 2: tool call 1: the function's 'name' must be text.",
    ),
    "arguments as list": (
        chat(USER, call([1])),
        "Message 2: tool call 1: 'arguments' must be text, found a list.",
    ),
    "arguments no JSON": (
        chat(USER, call("a=1")),
        "Message 2: tool call 1: 'arguments' must be a JSON object as text.",
    ),
    "call by the user": (
        chat(USER | {"tool_calls": []}, ASSISTANT),
        "Message 1: only the assistant's messages can have 'tool_calls'.",
    ),
    "call that nobody answers": (
        chat(USER, called("a", "b"), answer("a"), ASSISTANT),
        "Message 2: no tool message answers its tool call 'b'.",
    ),
    "answer to no call": (chat(USER, answer("a"), ASSISTANT), "Message 2: no tool call before it has the id 'a'."),
    "answer twice": (
        chat(USER, called("a"), answer("a"), answer("a"), ASSISTANT),
        "Message 4: no tool call before it has the id 'a'.",
    ),
    "two calls of one id": (chat(USER, called("a", "a")), "Message 2: two tool calls have the same id."),
    "call of another type": (
        chat(
            USER,
            {"role": "assistant", "tool_calls": [{"type": "custom", "function": {"name": "add", "arguments": "{}"}}]},
        ),
        "Message 2: tool call 1: 'type' must be 'function', found 'custom'.",
    ),
    "parallel_tool_calls as text": (
        chat(USER, ASSISTANT, parallel_tool_calls="no"),
        "'parallel_tool_calls' must be true or false.",
    ),
    "name as number": (chat(USER | {"name": 1}, ASSISTANT), "Message 1: 'name' must be text, found a number."),
    "tools as object": (chat(USER, ASSISTANT, tools={}), "'tools' must be a list of objects."),
    "empty completion": (
        b'{"prompt": "a", "completion": ""}',
        "completion is empty: there is nothing to learn.",
    ),
    "other format": (
        b'{"prompt": "a", "completion": "b"}',
        "Expected chat messages as in the lines before, found prompt/completion pairs.",
    ),
}


@pytest.mark.parametrize(("line", "message"), BROKEN_LINES.values(), ids=BROKEN_LINES)
def test_a_broken_line_is_named_with_what_is_wrong(tmp_path: Path, line: bytes, message: str) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(GOOD + line + b"\n" + GOOD)
    first, error, last = read_examples(file, formats_of("SFT"))
    assert error == LineError(2, message)
    assert isinstance(first, NumberedExample)
    assert isinstance(last, NumberedExample)
    assert last.line == 3


BROKEN_FILES = {
    "empty": (b"", [LineError(1, "The file is empty.")]),
    "blank": (b"\n \n", [LineError(1, "The file is empty.")]),
    "UTF-16": (GOOD.decode().encode("utf-16"), [LineError(1, "The file is UTF-16. Save it as UTF-8.")]),
    "BOM": (
        b"\xef\xbb\xbf" + GOOD,
        [LineError(1, "The line starts with a byte order mark (BOM). Save the file as UTF-8 without one.")],
    ),
    "gzip cut off": (
        gzip.compress(b"{" * 9999)[:40],
        [
            LineError(
                1,
                "The gzip file is broken: Compressed file ended before the end-of-stream marker was reached.",
            )
        ],
    ),
}


@pytest.mark.parametrize(("content", "errors"), BROKEN_FILES.values(), ids=BROKEN_FILES)
def test_a_broken_file_is_named_once(tmp_path: Path, content: bytes, errors: list[LineError]) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(content)
    assert list(read_examples(file)) == errors


def test_a_line_that_is_too_long_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "LONGEST_LINE_BYTES", 2**20)
    file = tmp_path / "data.jsonl"
    file.write_bytes(b'{"prompt": "' + b"a" * 3 * 2**20 + b'"}\n' + GOOD)
    error, good = read_examples(file)
    assert error == LineError(1, "The line is longer than 1 MiB.")
    assert isinstance(good, NumberedExample)
    assert good.line == 2


ASKED = User(content="2+2?")
ANSWERED = Assistant(content="4")
GOOD_LINES = {
    "chat": (
        chat({"role": "system", "content": "Add."}, USER, ASSISTANT, metadata="left out"),
        ChatExample([System(content="Add."), ASKED, ANSWERED]),
    ),
    "weight 0": (
        chat(USER, ASSISTANT | {"weight": 0}, USER, ASSISTANT),
        ChatExample([ASKED, Assistant(content="4", weight=0), ASKED, ANSWERED]),
    ),
    "text parts": (
        chat({"role": "user", "content": [{"type": "text", "text": "2+"}, {"type": "text", "text": "2?"}]}, ASSISTANT),
        ChatExample([User(content=[TextPart("2+"), TextPart("2?")]), ANSWERED]),
    ),
    "tool call": (
        chat(USER, call('{"a": 2}'), tools=[{"type": "function"}], parallel_tool_calls=False),
        ChatExample(
            [ASKED, Assistant(tool_calls=[ToolCall(Function("add", '{"a": 2}'))])], [{"type": "function"}], False
        ),
    ),
    "refusal": (
        chat(USER, {"role": "assistant", "content": None, "refusal": "I can't add."}),
        ChatExample([ASKED, Assistant(refusal="I can't add.")]),
    ),
    "parallel calls, each answered": (
        chat(USER, called("a", "b"), answer("b"), answer("a"), ASSISTANT),
        ChatExample([ASKED, CALLED_A_AND_B, Tool(content="4", tool_call_id="b"), ANSWER_A, ANSWERED]),
    ),
    "image": (
        chat(image("data:image/png;base64,AAAA"), ASSISTANT),
        ChatExample([User(content=[ImagePart(ImageUrl("data:image/png;base64,AAAA"))]), ANSWERED]),
    ),
    "completion": (b'{"prompt": "2+2=", "completion": "4", "id": 1}', CompletionExample("2+2=", "4")),
    "completion as messages": (
        pair(prompt=[USER, ASSISTANT, USER], completion=[ASSISTANT]),
        ChatExample([ASKED, Assistant(content="4", weight=0), ASKED, ANSWERED]),
    ),
    "OpenAI's preference": (
        preference([USER], [ASSISTANT], [WORSE]),
        PreferenceExample([ASKED], [ANSWERED], [Assistant(content="5")]),
    ),
    "TRL's preference": (
        pair(prompt=[USER], chosen=[ASSISTANT], rejected=[WORSE]),
        PreferenceExample([ASKED], [ANSWERED], [Assistant(content="5")]),
    ),
    "preference with the prompt in both": (
        pair(chosen=[USER, ASSISTANT], rejected=[USER, WORSE]),
        PreferenceExample([ASKED], [ANSWERED], [Assistant(content="5")]),
    ),
    "preference of calls": (
        pair(prompt=[USER], chosen=[CALLING], rejected=[WORSE]),
        PreferenceExample([ASKED], [CALLED_A], [Assistant(content="5")]),
    ),
    "preference after a tool has answered": (
        pair(chosen=[USER, CALLING, TOLD, ASSISTANT], rejected=[USER, CALLING, TOLD, WORSE]),
        PreferenceExample([ASKED, CALLED_A, ANSWER_A], [ANSWERED], [Assistant(content="5")]),
    ),
    "preference of texts": (pair(prompt="2+2=", chosen="4", rejected="5"), PreferenceExample("2+2=", "4", "5")),
}


@pytest.mark.parametrize(("line", "example"), GOOD_LINES.values(), ids=GOOD_LINES)
def test_a_good_line_is_an_example(tmp_path: Path, line: bytes, example: object) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(line)
    (read,) = read_examples(file)
    assert isinstance(read, NumberedExample)
    assert (read.line, read.example) == (1, example)


def test_templates_get_text_and_arguments_as_objects() -> None:
    parts = User(content=[TextPart("2+"), TextPart("2?")], name="Ann")
    conversation = ChatExample([parts, CALLED_A, ANSWER_A, Assistant(refusal="I can't add.", weight=0)])
    assert conversation.to_template() == [
        {"role": "user", "content": "2+2?", "name": "Ann"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"a": 2}}, "id": "a"}],
        },
        {"role": "tool", "content": "4", "tool_call_id": "a"},
        {"role": "assistant", "content": "I can't add."},
    ]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", " ", "a", "user", "assistant", "tool", "{}"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=6,
)


@given(st.data())
@settings(max_examples=400)
def test_what_the_decoder_refuses_has_words_and_what_has_words_is_refused(data: st.DataObject) -> None:
    """The decoder and the words are two programs: on a good example changed at one place they agree."""
    value = json.loads(data.draw(st.sampled_from([line for line, _ in GOOD_LINES.values()])))
    place = value
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans()):
            place = place[key]
            continue
        place[key] = data.draw(JSON_VALUES)
        break
    try:
        known = {key: item for key, item in to_known_form(value).items() if key in READ}
    except ExampleError:
        known = value
    refusal = explain(known, NO_WORDS)
    try:
        parse_example(json.dumps(value).encode())
    except ExampleError as error:
        assert str(error) != NO_WORDS
        assert str(refusal) != NO_WORDS, f"{error}: {value}"
    else:
        assert str(refusal) == NO_WORDS, value


def test_gzip_is_read_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl.gz"
    file.write_bytes(gzip.compress(GOOD * 3))
    assert [item.line for item in read_examples(file)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("line", "key"),
    [
        (b'{"messages":[U,{"role":"assistant","content":"b","weight":0,"weight":1},A]}', "weight"),
        (b'{"messages":[U,{"role":"assistant","tool_calls":[C],"tool_calls":[C]}]}', "tool_calls"),
        (b'{"messages":[U,{"tool_calls":[{"function":{"name":"x","arguments":"{}","name":"z"}}],"role":"a"}]}', "name"),
        (b'{"messages":[{"role":"user","content":[{"type":"text","text":"a","text" : "zz"}]},A]}', "text"),
        (b'{"mess\\u0061ges":[U,A],"messages":[U,A]}', "messages"),
        (b'{"messages":[{"role":"user","content":"\\u0022\\u0022","name":1,"name":"a"},A]}', "name"),
    ],
)  # fmt: skip
def test_a_key_that_an_object_repeats_is_refused_wherever_it_stands(tmp_path: Path, line: bytes, key: str) -> None:
    for short, whole in (
        (b"U", b'{"role":"user","content":"a"}'),
        (b"A", b'{"role":"assistant","content":"b"}'),
        (b"C", b'{"function":{"name":"x","arguments":"{}"}}'),
    ):
        line = line.replace(b"[" + short, b"[" + whole).replace(b"," + short, b"," + whole)
    (tmp_path / "data").write_bytes(line)
    assert list(read_examples(tmp_path / "data")) == [LineError(1, f"The key {key!r} appears twice in one object.")]


DEEP = "[" * 1000 + "]" * 1000


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f'{{"prompt":"a","chosen":{DEEP},"rejected":{DEEP}}}', "The line is nested too deeply."),
        (f'{{"messages":[{{"role":{DEEP}}}]}}', "The line is nested too deeply."),
        ('{"prompt":[],"completion":[]}', "There must be at least one message."),
    ],
)
def test_a_line_that_can_not_be_looked_at_is_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "data").write_text(line)
    assert list(read_examples(tmp_path / "data")) == [LineError(1, message)]
