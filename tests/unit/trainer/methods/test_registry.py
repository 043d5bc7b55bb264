"""The methods of the trainer are those of the API, and nothing else in the trainer names one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest

import finetune_trainer
from finetune_api.finetunejob import RFT, SETTINGS, Distillation, Method, MethodType
from finetune_trainer.methods.method import METHODS, method_of, packs_rows
from tests.unit.trainer.data.encode.chat_templates import make_tokenizer

SOURCES = Path(finetune_trainer.__file__).parent
_NAME = "(SFT|DPO|RFT|Distillation)"
NAMES = re.compile(rf"""\b{_NAME}\b["']|\bapi\.{_NAME}\b|import .*\b{_NAME}\b""")
REQUIRED: Mapping[str, object] = {
    "RFT": RFT.from_wire({"graders": [{"name": "exact", "type": "StringCheck"}]}),
    "Distillation": Distillation.from_wire({"teacher": {"uri": "s3://models/large"}}),
}
"""Settings of methods that have some without a default."""


def test_every_method_of_the_api_is_registered_with_the_formats_of_its_rules() -> None:
    assert list(METHODS) == list(get_args(MethodType)) == list(SETTINGS)
    for name, registered in METHODS.items():
        assert registered.formats == SETTINGS[name].rules.formats  # type: ignore[index]


@pytest.mark.parametrize("kind", get_args(MethodType))
def test_a_method_is_made_of_its_settings(kind: MethodType) -> None:
    method = method_of(Method.model_validate({"type": kind, kind.lower(): REQUIRED.get(kind)}))
    assert type(method).__name__ == f"{kind}Method"
    assert method.memory.can_be_sharded == SETTINGS[kind].rules.shards


@pytest.mark.parametrize(
    ("kind", "reads_images", "packs"), [("SFT", False, True), ("SFT", True, False), ("DPO", False, False)]
)
def test_rows_are_packed_where_method_and_model_allow_it(kind: MethodType, reads_images: bool, packs: bool) -> None:
    processor = SimpleNamespace(image_processor=object()) if reads_images else make_tokenizer()
    assert packs_rows(Method(type=kind), processor, packing=True) is packs
    assert not packs_rows(Method(type=kind), processor, packing=False)


def test_only_methods_name_a_method() -> None:
    others = (file for file in SOURCES.rglob("*.py") if SOURCES / "methods" not in file.parents)
    assert [str(file) for file in others if NAMES.search(file.read_text())] == []
