"""The prompts of methods that learn on the model's own completions."""

from __future__ import annotations

from typing import Any

from finetune_trainer.data.encode.chat_template import TemplateError, reads_images
from finetune_trainer.data.encode.placeholders import prompt_ids
from finetune_trainer.data.encode.tokenization import IGNORED, TokenizedExample, refuse_lost_of_prompt
from finetune_trainer.data.read.examples import call_arguments
from finetune_trainer.data.read.messages import Messages, to_template

NO_CHAT_TEMPLATE = (
    "The model's tokenizer has no chat template, and the prompt is chat messages. Use an instruction-tuned model, or "
    "write each prompt as text, into the field 'prompt'."
)


def tokenize_prompt(
    processor: Any, prompt: str | Messages, tools: list[dict[str, Any]] | None, *, room: int, only_text: str
) -> TokenizedExample:
    """The prompt as an Evaluation puts it, with room for a completion; nothing of it is learned.

    Raises TemplateError, with `only_text` for a vision-language model.
    """
    if reads_images(processor):
        raise TemplateError(only_text)
    ids = _ids(processor, prompt, tools)
    return TokenizedExample(ids, [IGNORED] * len(ids), room=room)


def refusal_without_room(prompt: TokenizedExample, max_length: int) -> str:
    """Why the model can't answer a prompt within `max_length` tokens; empty if it can."""
    if not prompt.input_ids:
        return "The prompt has no token."
    if prompt.length <= max_length:
        return ""
    return (
        f"The prompt has {len(prompt.input_ids)} tokens, and a completion may have {prompt.room} "
        f"(maxCompletionTokens): more than {max_length} (maxLength) together. Shorten the prompt, lower "
        "maxCompletionTokens, or leave such prompts out (dataset.prepare.tooLong: Drop)."
    )


def _ids(tokenizer: Any, prompt: str | Messages, tools: list[dict[str, Any]] | None) -> list[int]:
    if isinstance(prompt, str):
        return list(tokenizer(prompt)["input_ids"])
    if not tokenizer.chat_template:
        raise TemplateError(NO_CHAT_TEMPLATE)
    arguments = [call_arguments(message) for message in prompt]
    ids = prompt_ids(tokenizer, to_template(prompt), tools or (), arguments=arguments)
    refuse_lost_of_prompt(tokenizer, prompt, tools)
    return ids
