"""OpenAI's templates in our spelling, and the names of an item's fields in our datasets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from finetune_grading.sample import REFERENCE_TOOLS
from finetune_grading.templates import TemplateError, render_with, variables
from finetune_trainer.data.read.conversions import MEANT, READ, REFUSED
from finetune_trainer.evaluation.heldout import REFERENCE

TAKEN = READ | (MEANT - REFUSED) | {REFERENCE, REFERENCE_TOOLS}
"""Keys of a line that are the example itself, or what graders read of it: a field of an item gets another name."""
_PREFIX = "openai_"
_INDEX = re.compile(r"""\[\s*(?:(\d+)|'([\w-]+)'|"([\w-]+)")\s*\]""")
_SAME = (
    ("sample.choices.0.message.content", "sample.output_text"),
    ("sample.choices.0.message.tool_calls", "sample.output_tools"),
)
_STATEMENTS = re.compile(r"\{[%#]")


def translate(template: str) -> str:
    """Raises TemplateError for what has no equivalent."""
    if (statement := _STATEMENTS.search(template)) is not None:
        raise TemplateError(
            f"{template[statement.start() :][:40]!r}: there are no statements or comments in templates."
        )
    translated = render_with(template, lambda name: f"{{{{{_spelled(name)}}}}}")
    variables(translated)
    return translated


def reads(template: str, root: str) -> bool:
    """Whether a translated template reads something of `item` or `sample`."""
    return any(name.startswith(f"{root}.") for name in variables(template))


def renamed_field(name: str) -> str:
    """What an item's field is called in our dataset. No two fields get one name."""
    bare = name
    while bare.startswith(_PREFIX):
        bare = bare.removeprefix(_PREFIX)
    return f"{_PREFIX}{name}" if bare in TAKEN else name


def renamed(item: Mapping[str, Any]) -> dict[str, Any]:
    """The item as fields of a line of our dataset."""
    return {renamed_field(name): value for name, value in item.items()}


def _spelled(name: str) -> str:
    dotted = _INDEX.sub(lambda found: f".{found[1] or found[2] or found[3]}", name)
    for theirs, ours in _SAME:
        if dotted == theirs or dotted.startswith(f"{theirs}."):
            dotted = ours + dotted.removeprefix(theirs)
    root, dot, path = dotted.partition(".")
    if root != "item" or not dot:
        return dotted
    first, dot, rest = path.partition(".")
    return f"item.{renamed_field(first)}{dot}{rest}"
