"""What a chat template has no place for is known before the first request."""

from __future__ import annotations

from pathlib import Path

import pytest
import trl

from finetune_trainer.data.encode.prompt_parts import PromptPart, part_of, parts_left_out
from tests.unit.trainer.data.encode.chat_templates import CHATML, LLAMA2, MISTRAL, make_tokenizer

FOLDER = Path(trl.__file__).parent / "chat_templates"
OFFER = {PromptPart.TOOLS, PromptPart.CALLS}


def left_out(template: str) -> frozenset[PromptPart]:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    return parts_left_out(tokenizer)


def test_a_template_of_roles_and_contents_has_no_place_for_tools() -> None:
    assert left_out(CHATML) == OFFER


@pytest.mark.parametrize("name", ["qwen2_5", "qwen3", "llama3_1"])
def test_templates_that_know_tools_leave_nothing_out(name: str) -> None:
    files = [file for file in FOLDER.glob("*.jinja") if file.stem == name]
    assert files, sorted(file.stem for file in FOLDER.glob("*.jinja"))
    assert left_out(files[0].read_text()) == set()


def test_mistrals_template_knows_tools_and_calls() -> None:
    assert not left_out(MISTRAL) & {*OFFER, PromptPart.ANSWERS}


def test_a_template_that_refuses_leaves_nothing_out() -> None:
    assert left_out("{{ raise_exception('no') }}") == set()
    assert PromptPart.ANSWERS not in left_out(LLAMA2), "it refuses the role"


def test_a_message_that_is_left_out_is_found_by_its_role() -> None:
    template = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    assert left_out(template) == set(PromptPart)
    parts = left_out(template)
    asked = {"role": "user", "content": "x"}
    assert part_of([asked], None, parts) is None
    assert part_of([asked], [], parts) is None
    assert part_of([asked], [{}], parts) is PromptPart.TOOLS
    assert part_of([{"role": "system", "content": "x"}, asked], None, parts) is PromptPart.SYSTEM
    assert part_of([asked, {"role": "assistant", "tool_calls": [{}]}], None, parts) is PromptPart.CALLS
    assert part_of([{"role": "system", "content": "x"}], [{}], frozenset()) is None
