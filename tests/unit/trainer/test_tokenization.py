"""The tokens that carry loss, decoded, are exactly what the assistant says and its end of turn, in any template."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from finetune_trainer.data.examples import (
    Assistant,
    ChatExample,
    CompletionExample,
    Function,
    ImagePart,
    ImageUrl,
    PreferenceExample,
    ToolCall,
    User,
)
from finetune_trainer.data.tokenization import IGNORED, Sequence, TemplateError, has_loss, tokenize, tokenize_preference

SPECIAL_TOKENS = [
    *("<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>", "<|start|>", "<|end|>", "<|eot|>"),
    *("<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]"),
]

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
LLAMA3 = (
    "<s>{% for message in messages %}<|start|>{{ message['role'] }}<|end|>\n\n{{ message['content'] | trim }}<|eot|>"
    "{% endfor %}{% if add_generation_prompt %}<|start|>assistant<|end|>\n\n{% endif %}"
)
MISTRAL = (
    "<s>{% for message in messages %}{% if message['role'] == 'user' %}[INST] {{ message['content'] }} [/INST]"
    "{% else %} {{ message['content'] | trim }}</s>{% endif %}{% endfor %}"
)
GEMMA = (
    "<s>{% for message in messages %}{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "<start_of_turn>{{ role }}\n{{ message['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
# As Qwen3: an empty thought before the last answer, none before the earlier ones.
REWRITING = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PLAIN = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}" + (
    "{% if add_generation_prompt %}assistant:{% endif %}"
)

# A template, and what it lets an answer carry loss with.
FAMILIES: Mapping[str, tuple[str, str]] = {
    "ChatML": (CHATML, "{}<|im_end|>"),
    "ChatML with markers": (CHATML_MARKED, "{}<|im_end|>"),
    "Llama 3": (LLAMA3, "{}<|eot|>"),
    "Mistral": (MISTRAL, " {}</s>"),
    "Gemma": (GEMMA, "{}<end_of_turn>"),
    "no end-of-turn token": (PLAIN, " {}\n"),
}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """A byte-level BPE that merges across words and lines, so that bad boundaries would show."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        ["What is two and two? It is four.\n\nIt is five.\n Hello, how are you? assistant user model\n"] * 9,
        trainers.BpeTrainer(
            vocab_size=600, special_tokens=SPECIAL_TOKENS, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        ),
    )
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def example(*turns: tuple[str, str, int]) -> ChatExample:
    """From (question, answer, weight of the answer)."""
    messages: list[User | Assistant] = []
    for question, answer, weight in turns:
        messages += [User(content=question), Assistant(content=answer, weight=1 if weight else 0)]
    return ChatExample([*messages])


def learned(tokenizer: Any, sequence: Sequence) -> list[str]:
    """Each run of tokens with loss, decoded."""
    runs = groupby(sequence.labels, key=lambda label: label != IGNORED)
    return [tokenizer.decode(list(labels)) for has_loss, labels in runs if has_loss]


@pytest.mark.parametrize(("template", "form"), FAMILIES.values(), ids=FAMILIES)
def test_every_answer_and_nothing_else_is_learned(tokenizer: Any, template: str, form: str) -> None:
    tokenizer.chat_template = template
    conversation = example(("What is two and two?", "It is four.", 1), ("How are you?", "Hello, I am 4.", 1))
    (sequence,) = tokenize(tokenizer, conversation)
    assert learned(tokenizer, sequence) == [form.format("It is four."), form.format("Hello, I am 4.")]


@pytest.mark.parametrize(("template", "form"), FAMILIES.values(), ids=FAMILIES)
def test_an_answer_of_weight_0_is_context_only(tokenizer: Any, template: str, form: str) -> None:
    tokenizer.chat_template = template
    (sequence,) = tokenize(tokenizer, example(("two?", "It is five.", 0), ("two?", "It is four.", 1)))
    assert learned(tokenizer, sequence) == [form.format("It is four.")]
    assert "It is five." in tokenizer.decode(sequence.input_ids)


answers = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=40).filter(
    lambda text: text.strip() == text and not any(token in text for token in SPECIAL_TOKENS)
)


@settings(max_examples=60, deadline=None)
@given(first=answers, second=answers, family=st.sampled_from(sorted(FAMILIES)))
def test_any_text_is_learned_as_it_is(tokenizer: Any, first: str, second: str, family: str) -> None:
    tokenizer.chat_template, form = FAMILIES[family]
    (sequence,) = tokenize(tokenizer, example(("What?", first, 1), ("And?", second, 1)))
    assert learned(tokenizer, sequence) == [form.format(first), form.format(second)]


def test_a_first_word_that_merges_with_the_prompt_is_learned(tokenizer: Any) -> None:
    tokenizer.chat_template = PLAIN.replace("assistant:{% endif", "assistant: {% endif")
    (sequence,) = tokenize(tokenizer, example(("two?", "It is four.", 1)))
    assert learned(tokenizer, sequence) == [" It is four.\n"]


def test_a_template_that_rewrites_history_gets_a_sequence_for_each_answer(tokenizer: Any) -> None:
    tokenizer.chat_template = REWRITING
    sequences = tokenize(tokenizer, example(("two?", "It is four.", 1), ("three?", "It is five.", 1)))
    assert [learned(tokenizer, sequence) for sequence in sequences] == [
        ["<think>\n\n</think>\n\nIt is four.<|im_end|>"],
        ["<think>\n\n</think>\n\nIt is five.<|im_end|>"],
    ]
    second = tokenizer.decode(sequences[1].input_ids)
    assert "<|im_start|>assistant\nIt is four.<|im_end|>" in second


def test_the_mask_is_that_of_transformers_where_the_template_has_markers(tokenizer: Any) -> None:
    tokenizer.chat_template = CHATML_MARKED
    conversation = example(("two?", "It is four.", 1), ("three?", "It is five.", 1))
    (sequence,) = tokenize(tokenizer, conversation)
    expected = tokenizer.apply_chat_template(
        conversation.to_template(),
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    assert sequence.input_ids == expected["input_ids"]
    assert [label != IGNORED for label in sequence.labels] == [bool(bit) for bit in expected["assistant_masks"]]


def test_tools_and_calls_are_rendered_by_the_template(tokenizer: Any) -> None:
    tokenizer.chat_template = (
        "{% for tool in tools %}{{ tool.function.name }}\n{% endfor %}"
        "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
        "{% for call in message.tool_calls %}{{ call.function | tojson }}{% endfor %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    call = ToolCall(Function("add", '{"a": 2}'))
    conversation = ChatExample(
        messages=[User(content="two?"), Assistant(tool_calls=[call])],
        tools=[{"type": "function", "function": {"name": "add"}}],
    )
    (sequence,) = tokenize(tokenizer, conversation)
    assert learned(tokenizer, sequence) == ['{"name": "add", "arguments": {"a": 2}}<|im_end|>']
    assert tokenizer.decode(sequence.input_ids).startswith("add\n")


def test_a_completion_is_learned_up_to_the_end_of_text(tokenizer: Any) -> None:
    (sequence,) = tokenize(tokenizer, CompletionExample(prompt="What is two and two?", completion=" It is four."))
    assert learned(tokenizer, sequence) == [" It is four.</s>"]


@pytest.mark.parametrize(
    "template",
    ["{{ raise_exception('roles must alternate') }}", "{{ messages[9].content }}", "{{ 1 / 0 }}{% broken"],
)
def test_what_the_template_refuses_is_told(tokenizer: Any, template: str) -> None:
    tokenizer.chat_template = template
    with pytest.raises(TemplateError, match="The model's chat template refuses the example"):
        tokenize(tokenizer, example(("two?", "four", 1)))


def test_a_template_that_leaves_the_answer_out_is_told(tokenizer: Any) -> None:
    tokenizer.chat_template = "{% for message in messages %}{% if message.role == 'user' %}?{% endif %}{% endfor %}"
    with pytest.raises(TemplateError, match="renders nothing of message 2"):
        tokenize(tokenizer, example(("two?", "four", 1)))


def test_truncation_can_leave_nothing_to_learn() -> None:
    sequence = Sequence(input_ids=[1, 2, 3, 4], labels=[IGNORED, IGNORED, 3, 4])
    assert [has_loss(sequence, length) for length in (1, 2, 3, None)] == [False, False, True, True]


def test_a_preference_pair_is_tokenized_as_trl_does_it(tokenizer: Any) -> None:
    tokenizer.chat_template = CHATML
    pair = PreferenceExample([User(content="two?")], [Assistant(content="It is four.")], [Assistant(content="Five.")])
    tokens = tokenize_preference(tokenizer, pair)
    assert tokenizer.decode(tokens.prompt_ids).endswith("two?<|im_end|>\n<|im_start|>assistant\n")
    assert tokenizer.decode(tokens.chosen_ids) == "It is four.<|im_end|>\n"
    assert tokenizer.decode(tokens.rejected_ids) == "Five.<|im_end|>\n"


def test_a_preference_pair_of_texts_ends_with_the_end_of_text(tokenizer: Any) -> None:
    tokens = tokenize_preference(tokenizer, PreferenceExample("What is two and two?", " Four.", " Five."))
    assert tokenizer.decode(tokens.prompt_ids) == "What is two and two?"
    assert tokenizer.decode(tokens.chosen_ids) == " Four.</s>"
    assert tokenizer.decode(tokens.rejected_ids) == " Five.</s>"


def test_images_are_refused_by_a_model_of_text(tokenizer: Any) -> None:
    seen = User(content=[ImagePart(ImageUrl("s3://data/a.png"))])
    with pytest.raises(TemplateError, match="reads only text"):
        tokenize(tokenizer, ChatExample([seen, Assistant(content="A cat.")]))
