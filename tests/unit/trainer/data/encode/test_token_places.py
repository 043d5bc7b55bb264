"""Tokens and where they stand are as the tokenizers library says, also where it is not asked for offsets."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example as shown_example
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from finetune_trainer.data.encode.placeholders import encode_ids, prompt_ids, prompt_text
from finetune_trainer.data.encode.token_places import placed_tokens, token_ids
from tests.unit.trainer.data.encode.chat_templates import CHATML, make_tokenizer

SPELLED = "byte-level"
TEXTS = st.text(max_size=20) | st.lists(
    st.sampled_from([*"ab \n'\u2019éé漢🙂👩‍👩‍👧1<", "<|im_end|>", "</s>", " <x> "]), max_size=40
).map("".join)


class AnotherWay(PreTrainedTokenizerFast):
    """A tokenizer that changes texts before the library sees them, as CodeLlama's does."""

    def _encode_plus(self, text: Any, **settings: Any) -> Any:
        return super()._encode_plus(text.replace("a", "b"), **settings)


def tokenizers() -> dict[str, Any]:
    """Byte-level ones, each but the first with something for which the library must be asked, sometimes or always."""
    found: dict[str, Any] = {}
    for name in (
        SPELLED,
        "NFC",
        "prefix space",
        "trimmed offsets",
        "post-processed",
        "words",
        "split",
        "strips",
    ):
        found[name] = tokenizer = make_tokenizer()
        backend = tokenizer.backend_tokenizer
        match name:
            case "NFC":
                backend.normalizer = normalizers.NFC()
            case "prefix space":
                backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
            case "trimmed offsets":
                backend.post_processor = processors.ByteLevel(trim_offsets=True)
            case "post-processed":
                post = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", backend.token_to_id("<s>"))])
                backend.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), post])
            case "words":
                backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
            case "split":
                tokenizer.split_special_tokens = True
            case "strips":
                backend.add_special_tokens([AddedToken("<x>", lstrip=True, rstrip=True, special=True)])
    return found | {"another way": AnotherWay(tokenizer_object=make_tokenizer().backend_tokenizer)}


TOKENIZERS = tokenizers()


@pytest.mark.parametrize("name", TOKENIZERS)
@given(text=TEXTS)
@settings(max_examples=60, deadline=None)
@shown_example(text="")
@shown_example(text="<s>It is\n four.</s>  👩‍👩‍👧 e\u0301</s>")
def test_tokens_stand_where_the_library_has_them(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]
    placed = placed_tokens(tokenizer, text)
    expected = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    assert placed.ids == expected["input_ids"]
    assert list(zip(placed.starts, placed.ends, strict=True)) == expected["offset_mapping"]


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("name", TOKENIZERS)
@given(text=TEXTS)
@settings(max_examples=30, deadline=None)
def test_tokens_alone_are_the_librarys_too(name: str, special: bool, text: str) -> None:
    tokenizer = TOKENIZERS[name]
    expected = tokenizer(text, add_special_tokens=special)["input_ids"]
    assert token_ids(tokenizer, text, add_special_tokens=special) == expected


def test_a_byte_level_tokenizer_is_not_asked_for_offsets(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take a third of its time."""
    tokenizer = make_tokenizer()
    monkeypatch.setattr(PreTrainedTokenizerFast, "_convert_encoding", None)
    assert placed_tokens(tokenizer, "It is 漢字.</s>").ends[-1] == len("It is 漢字.</s>")


def test_what_the_tokenizer_was_set_to_for_others_cuts_and_pads_nothing() -> None:
    """Files of tokenizers keep such settings."""
    tokenizer = make_tokenizer()
    expected = tokenizer("It is four.")["input_ids"]
    tokenizer.backend_tokenizer.enable_truncation(3)
    assert token_ids(tokenizer, "It is four.") == expected
    tokenizer.backend_tokenizer.enable_padding(length=40)
    assert placed_tokens(tokenizer, "It is four.").ids == expected


def test_a_token_that_is_added_later_is_known() -> None:
    tokenizer = make_tokenizer()
    placed_tokens(tokenizer, "It is")
    tokenizer.add_tokens(["zwölf"])
    assert placed_tokens(tokenizer, "It zwölf.").ends == [
        end for _, end in tokenizer("It zwölf.", return_offsets_mapping=True)["offset_mapping"]
    ]


def test_the_ids_of_a_prompt_are_those_of_its_text() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = CHATML
    for content in ("It is four.", "It is </s> four."):
        messages = [{"role": "user", "content": content}]
        assert encode_ids(tokenizer, prompt_text(tokenizer, messages)) == prompt_ids(tokenizer, messages)
