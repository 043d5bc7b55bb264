"""A corpus of broken datasets: what `finetune-trainer validate` says of each. Never a traceback, never a hang."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from finetune_trainer.__main__ import app
from finetune_trainer.data.read.jsonl import LineError
from finetune_trainer.data.read.reader import read_examples

USER = {"role": "user", "content": "2+2?"}
ASSISTANT = {"role": "assistant", "content": "4"}
GOOD = json.dumps({"messages": [USER, ASSISTANT]}).encode() + b"\n"
PAIR = b'{"prompt": "2+2=", "completion": "4"}\n'
PREFERENCE = b'{"prompt": "2+2=", "chosen": "4", "rejected": "5"}\n'
FORMATS = "Unexpected file format, expected either prompt/completion pairs or chat messages."


def chat(*messages: object, **more: object) -> bytes:
    return json.dumps({"messages": list(messages), **more}).encode() + b"\n"


def call(**function: object) -> dict[str, Any]:
    return {"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": function}]}


def images(count: int, url: str = "https://images/a.png") -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}] * count}


CALLED = call(name="add", arguments="{}")

CORPUS: dict[str, tuple[bytes, list[str]]] = {
    # JSON
    "truncated": (GOOD + GOOD[:40], ["2: The line is not JSON: unexpected end of data at column 41."]),
    "no JSON": (
        GOOD + b"hello\n",
        ["2: The line is not JSON: unexpected character, expected a JSON value at column 1."],
    ),
    "single quotes": (
        b"{'prompt': 'a'}\n",
        ["1: The line is not JSON: unexpected character, expected a string key at column 2."],
    ),
    "a JSON array": (
        b"[" + GOOD.strip() + b"," + GOOD.strip() + b"]",
        ["1: The file is one JSON array. Write one object per line: jq -c '.[]' FILE."],
    ),
    "a JSON array, indented": (
        json.dumps([json.loads(GOOD)], indent=1).encode(),
        ["1: The file is one JSON array. Write one object per line: jq -c '.[]' FILE."],
    ),
    "indented objects": (
        json.dumps(json.loads(GOOD), indent=1).encode(),
        ["1: The file is indented JSON. Write each object on one line: jq -c . FILE."],
    ),
    "CSV": (
        b"prompt,completion\r\n2+2=,4\r\n",
        ["1: The file looks like CSV. Write each of its rows as a JSON object, one per line."],
    ),
    "no objects": (
        b'1\n"a"\nnull\n',
        [
            "1: Expected a JSON object, found a number.",
            "2: Expected a JSON object, found text.",
            "3: Expected a JSON object, found null.",
        ],
    ),
    "deep nesting": (
        b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n",
        ["1: The line is not JSON: depth limit exceeded at column 1038."],
    ),
    "deep nesting in a key that is not known": (
        PAIR.replace(b"}", b', "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        ["1: The line is not JSON: depth limit exceeded at column 1068."],
    ),
    "deep nesting in arguments": (
        chat(USER, call(name="add", arguments='{"a": ' + "[" * 5000 + "]" * 5000 + "}")),
        ["1: Message 2: tool call 1: 'arguments' must be a JSON object as text."],
    ),
    "huge numbers": (
        chat(USER, ASSISTANT).replace(b'"4"', b'"4", "weight": ' + b"9" * 5000),
        ["1: The line is not JSON: number is infinity when parsed as double at column 100."],
    ),
    "a key twice": (
        b'{"messages": [{"role": "user", "role": "assistant", "content": "4"}, {"role": "assistant", "content": "4"}]}',
        ["1: The key 'role' appears twice in one object."],
    ),
    "half a surrogate pair": (
        b'{"prompt": "2+2=", "completion": "\\ud83d"}\n',
        ["1: The line is not JSON: no low surrogate in string at column 35."],
    ),
    # Bytes
    "empty": (b"", ["1: The file is empty."]),
    "blank": (b"\n  \r\n\n", ["1: The file is empty."]),
    "BOM": (
        b"\xef\xbb\xbf" + GOOD,
        ["1: The line starts with a byte order mark (BOM). Save the file as UTF-8 without one."],
    ),
    "UTF-16": (GOOD.decode().encode("utf-16"), ["1: The file is UTF-16. Save it as UTF-8."]),
    "Latin-1": (
        '{"prompt": "é", "completion": "4"}\n'.encode("latin-1"),
        ["1: The line is not UTF-8: invalid byte 0xe9 at column 13."],
    ),
    "NUL in text": (
        PAIR + PAIR.replace(b"2+2", b"2\x002"),
        ["2: The line has a NUL byte at column 14. Is the file really UTF-8 text?"],
    ),
    "NULs at the end": (
        PAIR + b"\x00" * 4096,
        ["2: The line has a NUL byte at column 1. Is the file really UTF-8 text?"],
    ),
    "a line of 50 MB": (
        GOOD + b'{"prompt": "' + b"a" * 50 * 2**20 + b'"}\n' + b"{}\n",
        ["2: The line is longer than 16 MiB.", f"3: {FORMATS}"],
    ),
    # Examples
    "another key": (b'{"text": "4"}\n', [f"1: {FORMATS}"]),
    "no role": (chat({"content": "4"}), ["1: Message 1: Discriminator 'role' is missing in value."]),
    "wrong role": (
        chat(USER, {"role": "bot", "content": "4"}),
        ["1: Message 2: 'role' must be one of system, developer, user, assistant, tool, found 'bot'."],
    ),
    "role in capitals": (
        chat(USER, {"role": "Assistant", "content": "4"}),
        ["1: Message 2: 'role' must be one of system, developer, user, assistant, tool, found 'Assistant'."],
    ),
    "ends with the user": (GOOD + chat(USER, ASSISTANT, USER), ["2: The last message must be from the assistant."]),
    "all end with the user": (
        chat(USER, ASSISTANT, USER) + chat(USER, answer="4"),
        [
            "1: No example has an answer. These are prompts with fields for graders (the fine-tune-reinforcement "
            "format), which are read as such only where that is said. Name the method that the file is for: --method "
            "RFT or Distillation. Or add the answers."
        ],
    ),
    "empty answer": (
        chat(USER, {"role": "assistant", "content": " \n"}),
        ["1: Message 2: 'content' is empty: there is nothing to learn."],
    ),
    "empty completion": (
        b'{"prompt": "2+2=", "completion": " "}\n',
        ["1: completion is empty: there is nothing to learn."],
    ),
    "two formats": (
        GOOD + PAIR,
        ["2: Expected chat messages as in the lines before, found prompt/completion pairs."],
    ),
    "a call that nothing answers": (
        chat(USER, CALLED, ASSISTANT),
        ["1: Message 2: no tool message answers its tool call 'a'."],
    ),
    "an answer that nothing called": (
        chat(USER, {"role": "tool", "tool_call_id": "b", "content": "4"}, ASSISTANT),
        ["1: Message 2: no tool call before it has the id 'b'."],
    ),
    "arguments that are a list": (
        chat(USER, call(name="add", arguments=[2])),
        ["1: Message 2: tool call 1: 'arguments' must be text, found a list."],
    ),
    "65 images": (chat(images(65), ASSISTANT), ["1: The example has 65 images; the maximum is 64."]),
    "an image in a local file": (
        chat(images(1, "file:///etc/passwd"), ASSISTANT),
        [
            "1: Message 1: an image must be an https:// or s3:// URL, or a data URI of a JPEG, PNG or WEBP in base64, "
            "found 'file:///etc/passwd'."
        ],
    ),
    "an SVG": (
        chat(images(1, "data:image/svg+xml;base64,PHN2Zz4="), ASSISTANT),
        [
            "1: Message 1: an image must be an https:// or s3:// URL, or a data URI of a JPEG, PNG or WEBP in base64, "
            "found 'data:image/svg+xml;base64,PHN2Zz4='."
        ],
    ),
    "no preference": (
        b'{"prompt": "2+2=", "chosen": "4", "rejected": "4"}\n',
        ["1: 'chosen' and 'rejected' are the same: there is no preference to learn."],
    ),
    # Packed
    "gzip that is cut off": (
        gzip.compress(GOOD * 100)[:-20],
        ["72: The gzip file is broken: Compressed file ended before the end-of-stream marker was reached."],
    ),
    "gzip of something else": (
        gzip.compress(b"\x00\x01\x02" * 10),
        ["1: The line has a NUL byte at column 1. Is the file really UTF-8 text?"],
    ),
    "a gzip bomb": (
        gzip.compress(b"\n") + gzip.compress(b"0" * 2**20) * 300,
        ["2: The line is longer than 16 MiB.", "2: The file unpacks to more than 256 MiB: it is not read further."],
    ),
    "zstd that is none": (b"\x28\xb5\x2f\xfd" + b"no" * 40, ["1: The zstd file is broken: ZSTD decompress failed"]),
    "a Parquet file that is cut off": (b"PAR1" + b"\x00" * 100, ["1: The file can't be read beyond row 0: Parquet"]),
    "an Arrow file that is none": (b"ARROW1\x00\x00" + b"\xff" * 64, ["1: The file can't be read beyond row 0: "]),
}


def told(file: Path, *options: str) -> list[str]:
    """What the command prints of a broken file, each line without the file's name."""
    result = CliRunner().invoke(app, ["validate", str(file), *options])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    return [line.removeprefix(f"{file}:") for line in result.output.splitlines()]


@pytest.mark.parametrize(("content", "expected"), CORPUS.values(), ids=CORPUS)
def test_a_broken_dataset_is_reported(tmp_path: Path, content: bytes, expected: list[str]) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(content)
    printed = told(file)
    assert len(printed) == len(expected), printed
    assert all(line.startswith(words) for line, words in zip(printed, expected, strict=True)), printed


@pytest.mark.parametrize(
    ("content", "method", "words"),
    [
        (
            GOOD,
            "DPO",
            "fine-tune-chat format, but the specified fine-tuning job is not using 'SFT' or 'Distillation' as",
        ),
        (PREFERENCE, "SFT", "fine-tune-preference format, but the specified fine-tuning job is not using 'DPO' as the"),
    ],
)
def test_a_format_that_the_method_can_not_learn_from_is_reported_once(
    tmp_path: Path, content: bytes, method: str, words: str
) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(content * 1000)
    (line,) = told(file, "--method", method)
    assert line.startswith(f"1: Input file is in the {words}")


def parquet(rows: Any) -> Callable[[Path], None]:
    return lambda file: pyarrow.parquet.write_table(pyarrow.table(rows), file)


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (parquet({"question": ["2+2?"], "answer": ["4"]}), f"1: {FORMATS}"),
        (parquet({"prompt": ["2+2="], "completion": [4]}), "1: completion must be text, found a number."),
        (parquet({"prompt": pyarrow.array([], "string")}), "1: The file is empty."),
    ],
    ids=["other columns", "other types", "no rows"],
)
def test_a_parquet_file_of_something_else_is_reported(
    tmp_path: Path, write: Callable[[Path], None], expected: str
) -> None:
    write(tmp_path / "data.parquet")
    assert told(tmp_path / "data.parquet") == [expected]


def test_text_in_parquet_that_is_no_utf8_is_reported(tmp_path: Path) -> None:
    text = pyarrow.array([b"2+2=", b"\xff\xfe"], "binary").cast("binary")
    broken = pyarrow.Array.from_buffers(pyarrow.string(), 2, text.buffers())
    pyarrow.parquet.write_table(pyarrow.table({"prompt": broken, "completion": broken}), tmp_path / "a.parquet")
    (line,) = told(tmp_path / "a.parquet")
    assert line.startswith("1: The file can't be read beyond row 0: 'utf-8' codec can't decode")


def test_of_many_broken_lines_the_first_are_shown_and_all_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(b"{}\n" * 1000)
    printed = told(file)
    assert printed[:100] == [f"{number}: {FORMATS}" for number in range(1, 101)]
    assert printed[100:] == [" 900 more lines are broken."]


@pytest.mark.parametrize("content", [GOOD.replace(b"\n", b"\r\n") * 12, b"\n\n" + GOOD * 12, (GOOD * 12)[:-1]])
def test_line_ends_of_every_kind_are_good(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(content)
    assert CliRunner().invoke(app, ["validate", str(file)]).exit_code == 0


def test_of_a_folder_every_file_of_data_is_checked(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "README.md").write_text("# What this is")
    (tmp_path / "a.jsonl").write_bytes(GOOD * 12)
    (tmp_path / "deep" / "b.jsonl.gz").write_bytes(gzip.compress(b"{}\n"))
    result = CliRunner().invoke(app, ["validate", str(tmp_path)])
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        f"{tmp_path}/a.jsonl: 12 examples (chat messages), none broken.",
        f"{tmp_path}/deep/b.jsonl.gz:1: {FORMATS}",
    ]
    (tmp_path / "empty").mkdir()
    assert told(tmp_path / "empty") == [" the folder has no file of data."]


@pytest.mark.parametrize("start", [b"a", b'a,"b c",', b""])
def test_a_first_line_of_a_million_spaces_takes_no_time(tmp_path: Path, start: bytes) -> None:
    """Looking for a header of CSV took the square of their number."""
    file = tmp_path / "data.jsonl"
    file.write_bytes(start + b" " * 10**6 + b"!\n")
    began = time.process_time()
    items = list(read_examples(file, None))
    assert time.process_time() - began < 5
    assert all(isinstance(item, LineError) for item in items)
