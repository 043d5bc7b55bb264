"""Generated tokens as graders see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from finetune_grading.sample import Sample
from finetune_trainer.generate.tool_calls import ResponseTemplate, parse_tool_calls


def to_sample(
    tokenizer: Any,
    template: ResponseTemplate | None,
    tools: Sequence[Mapping[str, Any]],
    prompt: Sequence[int],
    output: Sequence[int],
) -> Sample:
    """The output's text without special tokens, and its tool calls if the prompt has tools.

    `template`: how the model writes calls (`response_template`); None where no prompt has tools.
    """
    text = tokenizer.decode(output, skip_special_tokens=True)
    if template is None or not tools:
        return Sample(text)
    said, calls = parse_tool_calls(template, tokenizer.decode(output), tokenizer.decode(prompt), tools)
    return Sample(_without_special_tokens(tokenizer, said) if calls else text, calls)


def _without_special_tokens(tokenizer: Any, text: str) -> str:
    for token in tokenizer.added_tokens_decoder.values():
        if token.special:
            text = text.replace(token.content, "")
    return text.strip()
