"""The chat templates of the families of models, and what each lets an answer and its tool calls carry loss with.

Those that TRL ships are the published ones; the others are written here as published.
"""

# ruff: noqa: RUF001 (DeepSeek's tokens have wide bars)

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from trl import chat_template_utils as published

Calls = Sequence[tuple[str, dict[str, Any]]]
"""Names and arguments."""

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# With the markers that transformers' own mask needs; ours does without.
CHATML_MARKED = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}<|im_end|>{% endgeneration %}\n"
    "{% else %}{{ message['content'] }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
    "{% set system_message = false %}{% endif %}{% for message in loop_messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
# Mistral 7B Instruct v0.3: answers of tools by id, the tools before the last question.
MISTRAL = (
    "{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content'] %}"
    "{%- set loop_messages = messages[1:] %}{%- else %}{%- set loop_messages = messages %}{%- endif %}"
    "{%- set user_messages = loop_messages | selectattr('role', 'equalto', 'user') | list %}"
    "{{- bos_token }}{%- for message in loop_messages %}{%- if message['role'] == 'user' %}"
    "{%- if tools is defined and tools is not none and (message == user_messages[-1]) %}"
    "{{- '[AVAILABLE_TOOLS] ' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}{%- endif %}"
    "{%- if loop.last and system_message is defined %}"
    "{{- '[INST] ' + system_message + '\\n\\n' + message['content'] + '[/INST]' }}"
    "{%- else %}{{- '[INST] ' + message['content'] + '[/INST]' }}{%- endif %}"
    "{%- elif message['tool_calls'] is defined %}{{- '[TOOL_CALLS] [' }}{%- for call in message['tool_calls'] %}"
    '{{- \'{"name": "\' + call.function.name + \'", "arguments": \' + (call.function.arguments | tojson) }}'
    "{%- if call.id | length != 9 %}{{- raise_exception('Tool call IDs must be 9 characters') }}{%- endif %}"
    "{{- ', \"id\": \"' + call.id + '\"}' }}"
    "{%- if not loop.last %}{{- ', ' }}{%- else %}{{- ']' + eos_token }}{%- endif %}{%- endfor %}"
    "{%- elif message['role'] == 'assistant' %}{{- ' ' + message['content'] | trim + eos_token }}"
    "{%- elif message['role'] == 'tool' %}"
    "{{- '[TOOL_RESULTS] {\"content\": ' + message['content'] | string + ', \"call_id\": \"' }}"
    "{{- message['tool_call_id'] + '\"}[/TOOL_RESULTS]' }}{%- endif %}{%- endfor %}"
)
PLAIN = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}" + (
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


@dataclass(frozen=True)
class Family:
    """`answer`: how an answer is written, `{}` its text. `calls`: how a message of calls is; None: not at all."""

    template: str
    answer: str
    calls: Callable[[Calls], str] | None = None
    several_calls: bool = True
    system: bool = True
    tools: bool = True
    """Whether it renders which tools there are."""


def to_json(value: object) -> str:
    """As `tojson` of chat templates writes it."""
    return json.dumps(value, ensure_ascii=False)


def _hermes(calls: Calls) -> str:
    texts = [f'<tool_call>\n{{"name": "{name}", "arguments": {to_json(given)}}}\n</tool_call>' for name, given in calls]
    return "\n".join(texts) + "<|im_end|>"


def _thinking_hermes(calls: Calls) -> str:
    return "<think>\n\n</think>\n\n" + _hermes(calls)


def _llama(calls: Calls) -> str:
    ((name, given),) = calls
    return f'{{"name": "{name}", "parameters": {to_json(given)}}}<|eot_id|>'


def _mistral(calls: Calls) -> str:
    texts = [
        f'{{"name": "{name}", "arguments": {to_json(given)}, "id": "{call_id(number)}"}}'
        for number, (name, given) in enumerate(calls)
    ]
    return "[TOOL_CALLS] [" + ", ".join(texts) + "]</s>"


def _deepseek(calls: Calls) -> str:
    texts = [
        f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n"
        f"{json.dumps(given, ensure_ascii=False, separators=(',', ':'))}\n```<｜tool▁call▁end｜>"
        for name, given in calls
    ]
    return "<｜tool▁calls▁begin｜>" + "\n".join(texts) + "<｜tool▁calls▁end｜><｜end▁of▁sentence｜>"


def call_id(number: int) -> str:
    """Nine characters, as Mistral's template wants them."""
    return f"call{number:05d}"


END = "<｜end▁of▁sentence｜>"

FAMILIES: dict[str, Family] = {
    "ChatML": Family(CHATML, "{}<|im_end|>"),
    "ChatML with markers": Family(CHATML_MARKED, "{}<|im_end|>"),
    "Llama 2": Family(LLAMA2, " {} </s>"),
    "Llama 3": Family(published.llama3_chat_template, "{}<|eot_id|>"),
    "Llama 3.1": Family(published.llama3_1_chat_template, "{}<|eot_id|>", _llama, several_calls=False),
    "Llama 3.2": Family(published.llama3_2_chat_template, "{}<|eot_id|>", _llama, several_calls=False),
    "Mistral": Family(MISTRAL, " {}</s>", _mistral),
    "Gemma": Family(published.gemma_chat_template, "{}<end_of_turn>", system=False),
    "Gemma 3": Family(published.gemma3_chat_template, "{}<end_of_turn>"),
    "Phi 3": Family(published.phi3_chat_template, "{}<|end|>"),
    "Phi 3.5": Family(published.phi3_5_chat_template, "{}<|end|>"),
    "Qwen 2.5": Family(published.qwen2_5_chat_template, "{}<|im_end|>", _hermes),
    "Qwen 3": Family(published.qwen3_chat_template, "<think>\n\n</think>\n\n{}<|im_end|>", _thinking_hermes),
    "Qwen 3 Instruct": Family(published.qwen3_instruct_2507_chat_template, "{}<|im_end|>", _hermes),
    "DeepSeek V3": Family(published.deepseekv3_chat_template, "{}" + END, _deepseek, tools=False),
    "DeepSeek R1": Family(published.deepseek_r1_distill_chat_template, "{}" + END),
    "Command R": Family(published.cohere_chat_template, "{}<|END_OF_TURN_TOKEN|>"),
    "Command R7B": Family(published.cohere2_chat_template, "{}<|END_RESPONSE|><|END_OF_TURN_TOKEN|>"),
    "no end-of-turn token": Family(PLAIN, " {}\n"),
}

_TOKEN = re.compile(r"<\|\w+\|>|<｜[^｜]+｜>|</?(?:tool_call|think|start_of_turn|end_of_turn)>|\[/?[A-Z_]{4,}\]")
SPECIAL_TOKENS = list(
    dict.fromkeys(
        [
            *("<s>", "</s>", "<pad>"),
            *(token for family in FAMILIES.values() for token in _TOKEN.findall(family.template)),
        ]
    )
)


def make_tokenizer() -> Any:
    """A byte-level BPE that merges across words and lines, so that bad boundaries would show."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        ["What is two and two? It is four.\n\nIt is five.\n Hello, how are you? assistant user model\n"] * 9,
        trainers.BpeTrainer(
            vocab_size=700, special_tokens=SPECIAL_TOKENS, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        ),
    )
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
