"""The names of an item's fields in our datasets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetune_grading.openai_graders import variables
from finetune_grading.sample import REFERENCE_TOOLS
from finetune_trainer.data.read.conversions import MEANT, READ, REFUSED
from finetune_trainer.outputs.heldout import REFERENCE

TAKEN = READ | (MEANT - REFUSED) | {REFERENCE, REFERENCE_TOOLS}
"""Keys of a line that are the example itself, or what graders read of it: a field of an item gets another name."""
_PREFIX = "openai_"


def translate(template: str) -> str:
    """OpenAI's template as one that reads our dataset. Raises TemplateError for what has no equivalent."""
    return variables.translate(template, renamed_field)


def renamed_field(name: str) -> str:
    """What an item's field is called in our dataset. No two fields get one name."""
    bare = name
    while bare.startswith(_PREFIX):
        bare = bare.removeprefix(_PREFIX)
    return f"{_PREFIX}{name}" if bare in TAKEN else name


def renamed(item: Mapping[str, Any]) -> dict[str, Any]:
    """The item as fields of a line of our dataset."""
    return {renamed_field(name): value for name, value in item.items()}
