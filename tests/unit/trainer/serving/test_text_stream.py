"""The answer with stop strings is the answer without them, cut before the first one: whatever the tokens are."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, PreTrainedTokenizerFast

from finetune_trainer.serving.engine.orders import Text
from finetune_trainer.serving.engine.rows import Vocabulary
from finetune_trainer.serving.engine.text_stream import TextStream
from finetune_trainer.serving.responses.answer_parser import marks_in

SAMPLE = ["the theme of that thesis is thin", "日本語 日本 本日", "😀😃 naïve café", "a\n\n\n b  c"]


def byte_level() -> PreTrainedTokenizerFast:
    """As GPT-2's: a character may be of several tokens."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|end|>", "<|im_start|>", "<think>"]
    inner.train_from_iterator(
        SAMPLE, trainers.BpeTrainer(vocab_size=330, special_tokens=special, initial_alphabet=alphabet)
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|end|>")


def metaspace() -> PreTrainedTokenizerFast:
    """As Llama 2's: a space is part of the next word, and rare characters are bytes."""
    inner = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    inner.train_from_iterator(SAMPLE, trainers.BpeTrainer(vocab_size=420, special_tokens=["<unk>", "</s>", *bytes_]))
    made = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", unk_token="<unk>")
    made.add_special_tokens({"additional_special_tokens": [AddedToken("<think>", special=True)]})
    return made


def special_of(tokenizer: PreTrainedTokenizerFast) -> frozenset[int]:
    return Vocabulary.of(tokenizer, GenerationConfig()).special - {
        token for token, text in enumerate(tokenizer.convert_ids_to_tokens(range(len(tokenizer)))) if text[:3] == "<0x"
    }


def answered(tokenizer: Any, tokens: list[int], stops: list[str], marks: str = "") -> tuple[list[Text], bool]:
    """What a client gets of an answer of these tokens, and whether a stop string ended it."""
    seen: list[Text] = []
    stream = TextStream(tokenizer._tokenizer, special_of(tokenizer), stops, marks, seen.append)
    stopped = any(stream.put(token) for token in tokens) or stream.end()
    return seen, stopped


def text_of(seen: list[Text]) -> str:
    return "".join(piece.text for piece in seen if not piece.special)


TOKENIZERS = {"byte level": byte_level(), "metaspace": metaspace()}


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
@given(data=st.data())
def test_an_answer_is_cut_before_the_first_stop_string(tokenizer: Any, data: st.DataObject) -> None:
    special = sorted(special_of(tokenizer))
    token = st.sampled_from(special) | st.integers(0, len(tokenizer) - 1)
    tokens = data.draw(st.lists(token, min_size=1, max_size=16))
    whole, _ = answered(tokenizer, tokens, [])
    text = text_of(whole)
    if not text:
        return
    start = data.draw(st.integers(0, len(text) - 1))
    stop = text[start : data.draw(st.integers(start + 1, len(text)))]
    seen, stopped = answered(tokenizer, tokens, [stop, "never said"])
    assert stopped
    assert text_of(seen) == text[: text.index(stop)]
    marks = [piece.text for piece in seen if piece.special]
    assert marks == [piece.text for piece in whole if piece.special][: len(marks)]


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
@given(data=st.data())
def test_stop_strings_that_are_not_said_change_nothing(tokenizer: Any, data: st.DataObject) -> None:
    token = st.sampled_from(sorted(special_of(tokenizer))) | st.integers(0, len(tokenizer) - 1)
    tokens = data.draw(st.lists(token, max_size=16))
    plain = list_of_parts(answered(tokenizer, tokens, [])[0])
    text = "".join(part for part, special in plain if not special)
    stops = [stop for start in range(0, len(text), 3) if (stop := text[start:] + "\x00") not in text][:4]
    assert list_of_parts(answered(tokenizer, tokens, stops)[0]) == plain


def list_of_parts(seen: list[Text]) -> list[tuple[str, bool]]:
    """Texts and special tokens in their order, whatever the pieces."""
    parts: list[tuple[str, bool]] = []
    for piece in seen:
        if parts and not piece.special and not parts[-1][1]:
            parts[-1] = (parts[-1][0] + piece.text, False)
        else:
            parts.append((piece.text, piece.special))
    return parts


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
@given(text=st.text(st.sampled_from("".join(SAMPLE) + "ßя☃🎉\ufffd"), max_size=15))
def test_the_text_is_what_the_tokenizer_itself_makes_of_the_tokens(tokenizer: Any, text: str) -> None:
    """The server's answer is the one that was evaluated."""
    tokens = encoded(tokenizer, text)
    assert text_of(answered(tokenizer, tokens, [])[0]) == tokenizer.decode(tokens)


@given(text=st.text(), data=st.data())
def test_also_where_a_limit_cuts_through_a_character(text: str, data: st.DataObject) -> None:
    tokenizer = TOKENIZERS["byte level"]
    tokens = encoded(tokenizer, text)
    tokens = tokens[: data.draw(st.integers(0, len(tokens)))]
    assert text_of(answered(tokenizer, tokens, [])[0]) == tokenizer.decode(tokens)


def encoded(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def test_a_stop_string_may_lie_around_a_token_that_nobody_sees() -> None:
    tokenizer = TOKENIZERS["byte level"]
    tokens = encoded(tokenizer, "say EN<|im_start|>D and more")
    assert text_of(answered(tokenizer, tokens, ["END"])[0]) == "say "


@pytest.mark.parametrize("pattern", ["<think>", r"\<think\>\n?"])
def test_but_not_around_one_that_parts_two_texts(pattern: str) -> None:
    """What a model thinks and what it says are two texts for the client."""
    tokenizer = TOKENIZERS["byte level"]
    tokens = encoded(tokenizer, "say EN<think>D and more")
    marks = marks_in({"fields": {"thinking": {"open_pattern": pattern}}})
    assert text_of(answered(tokenizer, tokens, ["END"], marks)[0]) == "say END and more"
