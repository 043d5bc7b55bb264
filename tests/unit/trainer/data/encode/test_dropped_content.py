"""Whatever a line holds is in the tokens, or told; and nothing is learned but the assistant's own: in any template."""

from __future__ import annotations

import contextlib
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import trl
from trl import chat_template_utils as published

from finetune_trainer.data.encode.chat_template import TemplateError
from finetune_trainer.data.encode.dropped_content import names_left_out, refuse_lost
from finetune_trainer.data.encode.tokenization import IGNORED, tokenize
from finetune_trainer.data.encode.turns import find_each_turn
from finetune_trainer.data.read.examples import ChatExample, PreferenceExample
from finetune_trainer.data.read.messages import (
    Assistant,
    Developer,
    Function,
    ImagePart,
    ImageUrl,
    System,
    Tool,
    ToolCall,
    User,
)
from finetune_trainer.methods.dpo import tokenize_pair
from tests.unit.trainer.data.encode.chat_templates import call_id, make_tokenizer

FOLDER = Path(trl.__file__).parent / "chat_templates"
TEMPLATES = sorted(file.stem for file in FOLDER.glob("*.jinja") if not file.stem.endswith("_training"))
PARAMETERS = {"type": "object", "properties": {"toolparam": {"type": "string", "description": "x"}}}
TOOLS = [{"type": "function", "function": {"name": "tool", "description": "tooldesc", "parameters": PARAMETERS}}]
ASKED = User(content="asked")
SAID = Assistant(content="said")
CALL = [ToolCall(Function("tool", '{"callkey": "callvalue"}'), id=call_id(0), type="function")]
ANSWERED = Tool(content="answered", tool_call_id=call_id(0))
OF_CALL = {"callkey", "callvalue"}

# Messages, tools, what must be in the tokens, and what must be learned.
CONVERSATIONS: dict[str, tuple[list[Any], Any, set[str], set[str]]] = {
    "plain": ([ASKED, SAID], None, {"asked"}, {"said"}),
    "system": ([System(content="told"), ASKED, SAID], None, {"told", "asked"}, {"said"}),
    "developer": ([Developer(content="told"), ASKED, SAID], None, {"told", "asked"}, {"said"}),
    "second system": (
        [System(content="told"), ASKED, SAID, System(content="later"), User(content="again"), Assistant(content="so")],
        None,
        {"told", "asked", "later", "again"},
        {"said", "so"},
    ),
    "tools": ([ASKED, SAID], TOOLS, {"asked", "tooldesc", "toolparam"}, {"said"}),
    "calls": ([ASKED, Assistant(tool_calls=CALL), ANSWERED, SAID], None, {"asked", "answered"}, {"said", *OF_CALL}),
    "text beside calls": (
        [ASKED, Assistant(content="beside", tool_calls=CALL), ANSWERED, SAID],
        None,
        {"asked", "answered"},
        {"said", "beside", *OF_CALL},
    ),
    "reasoning": ([ASKED, Assistant(content="said", reasoning_content="since")], None, {"asked"}, {"said", "since"}),
    "reasoning in the text": (
        [ASKED, Assistant(content="<think>\nsince\n</think>\n\nsaid")],
        None,
        {"asked"},
        {"said", "since"},
    ),
    "reasoning twice": (
        [ASKED, Assistant(content="one", reasoning_content="since"), User(content="more"), SAID],
        None,
        {"asked", "more"},
        {"one", "since", "said"},
    ),
    "assistant first": ([Assistant(content="hello"), ASKED, SAID], None, {"asked"}, {"hello", "said"}),
    "all at once": (
        [
            System(content="told"),
            ASKED,
            Assistant(content="beside", reasoning_content="since", tool_calls=CALL),
            ANSWERED,
            SAID,
        ],
        TOOLS,
        {"told", "asked", "answered", "tooldesc", "toolparam"},
        {"said", "beside", "since", *OF_CALL},
    ),
}
COMPLETE = ["qwen3", "qwen2_5", "glm4moe", "nemotron_3_nano"]
"""Templates that know all of it: none is refused to be on the safe side."""


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer()


def seen_and_learned(tokenizer: Any, example: ChatExample) -> tuple[str, str]:
    sequences = tokenize(tokenizer, example)
    runs = [list(run) for one in sequences for loss, run in groupby(one.labels, lambda label: label != IGNORED) if loss]
    return tokenizer.decode([token for one in sequences for token in one.input_ids]), "\n".join(
        tokenizer.decode(run) for run in runs
    )


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_part_is_in_the_tokens_or_reported_and_only_the_assistants_are_learned(tokenizer: Any, name: str) -> None:
    """A minute of all templates that TRL ships, since each is another program."""
    tokenizer.chat_template = (FOLDER / f"{name}.jinja").read_text()
    for case, (messages, tools, given, learned) in CONVERSATIONS.items():
        try:
            seen, trained = seen_and_learned(tokenizer, ChatExample(messages, tools))
        except TemplateError as error:
            assert case != "plain", f"{name}: {error}"
            continue
        assert {part for part in given | learned if part not in seen} == set(), case
        assert {part for part in learned if part not in trained} == set(), case
        assert {part for part in given if part in trained} == set(), case


@pytest.mark.parametrize("name", COMPLETE)
def test_templates_that_know_everything_are_refused_nothing(tokenizer: Any, name: str) -> None:
    tokenizer.chat_template = (FOLDER / f"{name}.jinja").read_text()
    for messages, tools, _, _ in CONVERSATIONS.values():
        tokenize(tokenizer, ChatExample(messages, tools))


@pytest.mark.parametrize(
    ("template", "messages", "tools", "words"),
    [
        (
            "llama3_1",
            CONVERSATIONS["text beside calls"][0],
            None,
            "the text of message 2, which stands beside its tool",
        ),
        ("llama3", CONVERSATIONS["calls"][0], None, "a call of 'tool' in message 2"),
        ("llama3", [ASKED, SAID], TOOLS, "leaves out the tools"),
        (
            "qwen3",
            [ASKED, Assistant(content="a<think>b</think>c")],
            None,
            "message 2, or a part of it that stands before",
        ),
        ("gptoss", CONVERSATIONS["second system"][0], None, r"message 4 \(system\)"),
    ],
)
def test_what_is_left_out_is_named(tokenizer: Any, template: str, messages: Any, tools: Any, words: str) -> None:
    tokenizer.chat_template = (FOLDER / f"{template}.jinja").read_text()
    with pytest.raises(TemplateError, match=words) as told:
        tokenize(tokenizer, ChatExample(messages, tools))
    assert "Take it out of the line, or use a model whose chat template knows it" in str(told.value)


@pytest.mark.parametrize("parameters", ["text", ["list"], {"properties": ["list"]}, {"properties": "text"}, None, 5])
def test_tools_of_any_kind_are_rendered_or_refused(tokenizer: Any, parameters: Any) -> None:
    tools = [{"type": "function", "function": {"name": "tool", "parameters": parameters}}]
    for name in ("qwen2_5", "gptoss", "llama3_1"):
        tokenizer.chat_template = (FOLDER / f"{name}.jinja").read_text()
        try:
            (sequence,) = tokenize(tokenizer, ChatExample([ASKED, SAID], tools))
        except TemplateError as error:
            assert str(error)
        else:
            rendered = tokenizer.decode(sequence.input_ids)
            assert all(word in rendered for word in ("tool", "asked", "said")), (name, rendered)


def test_a_template_that_calls_itself_without_end_refuses_the_example(tokenizer: Any) -> None:
    tokenizer.chat_template = "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}"
    with pytest.raises(TemplateError, match="recursion"):
        tokenize(tokenizer, ChatExample([ASKED, SAID]))


def test_beside_an_image_nothing_is_left_out_either(tokenizer: Any) -> None:
    image = User(content=[ImagePart(ImageUrl("https://images.test/a.png"))])
    for name, tools in (("qwen2_5_vl", TOOLS), ("qwen2_5", None)):
        tokenizer.chat_template = (FOLDER / f"{name}.jinja").read_text()
        with contextlib.nullcontext() if tools is None else pytest.raises(TemplateError, match="leaves out the tools"):
            refuse_lost(tokenizer, ChatExample([image, SAID], tools), find_each_turn)


def test_a_name_that_the_template_leaves_out_is_reported(tokenizer: Any) -> None:
    named = ChatExample([User(content="asked", name="ann"), Assistant(content="said", name="bob")])
    tokenizer.chat_template = published.qwen3_chat_template
    assert list(names_left_out(tokenizer, named)) == ["user", "assistant"]
    assert list(names_left_out(tokenizer, ChatExample([ASKED, SAID]))) == []
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }} {{ m.name }}: {{ m.content }}\n{% endfor %}"
    assert list(names_left_out(tokenizer, named)) == []


def test_a_pair_is_looked_at_as_a_conversation_is(tokenizer: Any) -> None:
    tokenizer.chat_template = published.llama3_chat_template
    other = [ToolCall(Function("tool", '{"callkey": 1}'), id=call_id(0))]
    pair = PreferenceExample([ASKED], [Assistant(tool_calls=CALL)], [Assistant(tool_calls=other)])
    with pytest.raises(TemplateError, match="leaves out a call of 'tool' in message 2"):
        tokenize_pair(tokenizer, pair)
    with pytest.raises(TemplateError, match="leaves out the tools"):
        tokenize_pair(tokenizer, PreferenceExample([ASKED], [SAID], [Assistant(content="no")], TOOLS))


def test_the_history_of_a_pair_may_lose_its_reasoning_as_the_model_will_see_it(tokenizer: Any) -> None:
    tokenizer.chat_template = published.qwen3_chat_template
    history: Any = [ASKED, Assistant(content="one", reasoning_content="since"), User(content="more")]
    tokens = tokenize_pair(tokenizer, PreferenceExample(history, [SAID], [Assistant(content="no")]))
    assert "since" not in tokenizer.decode(tokens.prompt_ids)
