"""Which part of an example distillation reads, and which tokenizers it takes for the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trl

from finetune_api.finetunejob import Distillation
from finetune_api.finetunesweep.parameters import PATHS
from finetune_trainer.data.encode.chat_template import TemplateError
from finetune_trainer.data.read.jsonl import LineError
from finetune_trainer.data.read.reader import NumberedExample, read_examples
from finetune_trainer.methods.distillation.method import DistillationMethod
from finetune_trainer.methods.method import formats_of
from finetune_trainer.preflight.tokenizer_difference import first_difference
from tests.unit.trainer.data.encode.chat_templates import CHATML, make_tokenizer

USER = {"role": "user", "content": "Two and two?"}
FOUR = {"role": "assistant", "content": "four"}
METHOD = DistillationMethod(Distillation.from_wire({"teacher": {"uri": "s3://models/large"}, "maxCompletionTokens": 5}))


def read(tmp_path: Path, *lines: object) -> list[NumberedExample | LineError]:
    file = tmp_path / "data.jsonl"
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return list(read_examples(file, formats_of("Distillation")))


def prompt_text(tmp_path: Path, line: dict[str, Any]) -> str:
    """The prompt of a line's row, as text."""
    tokenizer = make_tokenizer()
    tokenizer.chat_template = CHATML
    (found,) = read(tmp_path, line)
    assert isinstance(found, NumberedExample), found
    (row,) = METHOD.rows(tokenizer, found.example, [], training=True)
    return str(tokenizer.decode(row["prompt"]))


def test_the_answer_of_an_example_is_not_read(tmp_path: Path) -> None:
    asked = prompt_text(tmp_path, {"messages": [USER]})
    assert "Two and two?" in asked
    assert prompt_text(tmp_path, {"messages": [USER, FOUR]}) == asked
    assert prompt_text(tmp_path, {"prompt": "two"}) == prompt_text(tmp_path, {"prompt": "two", "completion": " 4"})


def test_earlier_answers_of_a_conversation_are_part_of_the_prompt(tmp_path: Path) -> None:
    asked = prompt_text(tmp_path, {"messages": [USER, FOUR, {"role": "user", "content": "And three?"}]})
    assert asked.index("four") < asked.index("And three?")


LLAMA_3_1 = (Path(trl.__file__).parent / "chat_templates" / "llama3_1.jinja").read_text()
CALL = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 2}'}}
TOOL = {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object"}}}
CALLED = [
    USER,
    {"role": "assistant", "content": "One moment.", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "1", "content": "4"},
    FOUR,
]


@pytest.mark.parametrize(
    ("template", "line", "told"),
    [
        (CHATML, {"messages": [USER, FOUR], "tools": [TOOL]}, "leaves out the tools"),
        (CHATML, {"messages": CALLED}, "leaves out a call of 'add' in message 2"),
        (LLAMA_3_1, {"messages": CALLED}, "the text of message 2, which stands beside its tool"),
    ],
)
def test_what_the_template_leaves_out_of_a_prompt_is_reported(
    tmp_path: Path, template: str, line: dict[str, Any], told: str
) -> None:
    """Also what came before the answer: the model would be asked something else than the line says."""
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    (found,) = read(tmp_path, line)
    assert isinstance(found, NumberedExample), found
    with pytest.raises(TemplateError, match=told):
        METHOD.tokenize(tokenizer, found.example, [])


def test_a_prompt_needs_room_for_a_completion(tmp_path: Path) -> None:
    (found,) = read(tmp_path, {"prompt": "2 + 2 ="})
    assert isinstance(found, NumberedExample)
    sequences = METHOD.tokenize(make_tokenizer(), found.example, [])
    assert METHOD.refusal(sequences, sequences[0].length) == ""
    assert "maxCompletionTokens" in METHOD.refusal(sequences, sequences[0].length - 1)


def test_lines_with_and_without_answers_are_not_mixed(tmp_path: Path) -> None:
    _, second = read(tmp_path, {"messages": [USER, FOUR]}, {"messages": [USER]})
    assert isinstance(second, LineError)
    assert "Expected chat messages as in the lines before" in second.message


def test_pairs_are_refused(tmp_path: Path) -> None:
    (only,) = read(tmp_path, {"prompt": "a", "chosen": "b", "rejected": "c"})
    assert isinstance(only, LineError)
    assert "is not using 'DPO' as the training method" in only.message


@pytest.mark.parametrize(
    "change",
    [
        lambda tokenizer: tokenizer.backend_tokenizer.enable_truncation(7),
        lambda tokenizer: tokenizer.backend_tokenizer.enable_padding(),
        lambda tokenizer: setattr(tokenizer, "chat_template", "{{ messages }}"),
    ],
    ids=["truncation", "padding", "template"],
)
def test_tokenizers_that_make_the_same_tokens_are_the_same(change: Any) -> None:
    other = make_tokenizer()
    change(other)
    assert first_difference(make_tokenizer(), other) is None


def test_tokenizers_with_another_token_differ_at_it() -> None:
    other, known = make_tokenizer(), len(make_tokenizer())
    other.add_tokens(["<other>"])
    assert first_difference(make_tokenizer(), other) == f"token {known} is '<other>' there, and none here."


def test_tokenizers_with_the_same_tokens_and_other_rules_differ() -> None:
    from tokenizers import normalizers

    other = make_tokenizer()
    other.backend_tokenizer.normalizer = normalizers.Lowercase()
    assert first_difference(make_tokenizer(), other) == (
        "the tokens are the same, and the normalizer of its tokenizer.json is not."
    )


def test_a_sweep_searches_nothing_that_changes_what_the_divergence_is() -> None:
    """Losses of trials with different teachers, divergences or temperatures can't be compared."""
    assert [path for path in PATHS if path.startswith("method.distillation")] == []
    assert "method.sft.promptLossWeight" in PATHS
