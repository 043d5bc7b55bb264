"""What evaluation asks a model is, to the last token, what training has let stand before the answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trl import chat_template_utils as published

from finetune_trainer.data.encode.tokenization import IGNORED, tokenize
from finetune_trainer.data.read.reader import NumberedExample, read_examples
from finetune_trainer.outputs.heldout import read_held_out, tokenize_prompts
from tests.unit.trainer.data.encode.chat_templates import make_tokenizer

OBJECTS: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    st.sampled_from(["z", "a", "type", "m", "b"]),
    st.integers(-2, 2) | st.text("ab", max_size=2) | st.dictionaries(st.sampled_from(["y", "x", "c"]), st.just("é")),
    min_size=1,
)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    made = make_tokenizer()
    made.chat_template = published.qwen3_chat_template
    return made


@st.composite
def lines(draw: st.DrawFn) -> dict[str, Any]:
    """A line in each of the spellings of tools, calls and the system's message, with fields for graders."""
    function = {"name": "f", "description": "d", "parameters": draw(OBJECTS)}
    tools = [{"type": "function", "function": function}]
    arguments = draw(OBJECTS)
    called = {"name": "f", "arguments": arguments if draw(st.booleans()) else json.dumps(arguments)}
    call = {"id": "c", "type": "function", "function": called}
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "tool_calls": [call], "weight": 0},
        {"role": "tool", "tool_call_id": "c", "content": "r"},
        {"role": "assistant", "content": "done"},
    ]
    spelled = draw(st.sampled_from([{"tools": tools}, {"functions": [function]}, {"tools": json.dumps(tools)}]))
    said = draw(st.sampled_from([{}, {"system": "Be brief."}, {"id": 1}]))
    return {"messages": messages, **spelled, **said}


@given(line=lines(), refused=st.sampled_from([{}, {"label": 1}, {"documents": ["x"]}]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_prompt_is_the_text_that_was_learned_from(
    tokenizer: Any, tmp_path: Path, line: dict[str, Any], refused: dict[str, Any]
) -> None:
    (tmp_path / "training.jsonl").write_text(json.dumps(line))
    (tmp_path / "held-out.jsonl").write_text(json.dumps({**line, **refused}))  # training takes no such keys
    (read,) = read_examples(tmp_path / "training.jsonl")
    assert isinstance(read, NumberedExample)
    (learned,) = tokenize(tokenizer, read.example)
    before_the_answer = learned.labels.index(next(label for label in learned.labels if label != IGNORED))
    held_out = read_held_out(tmp_path / "held-out.jsonl", "s3://b/held-out.jsonl", [])
    (prompt,) = tokenize_prompts(tokenizer, held_out, "", 100_000, [[]])
    assert tokenizer.decode(prompt) == tokenizer.decode(learned.input_ids[:before_the_answer])
    assert held_out[0].item.items() >= refused.items()
