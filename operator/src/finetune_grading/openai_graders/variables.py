"""OpenAI's templates in our spelling."""

from __future__ import annotations

import re
from collections.abc import Callable

from finetune_grading.templates import TemplateError, render_with, variables

Rename = Callable[[str], str]
"""What an item's field is called where the translated template is read."""
_INDEX = re.compile(r"""\[\s*(?:(\d+)|'([\w-]+)'|"([\w-]+)")\s*\]""")
_SAME = (
    ("sample.choices.0.message.content", "sample.output_text"),
    ("sample.choices.0.message.tool_calls", "sample.output_tools"),
)
_STATEMENTS = re.compile(r"\{[%#]")


def translate(template: str, rename: Rename) -> str:
    """Raises TemplateError for what has no equivalent."""
    if (statement := _STATEMENTS.search(template)) is not None:
        raise TemplateError(
            f"{template[statement.start() :][:40]!r}: there are no statements or comments in templates."
        )
    translated = render_with(template, lambda name: f"{{{{{_spelled(name, rename)}}}}}")
    variables(translated)
    return translated


def reads(template: str, root: str) -> bool:
    """Whether a translated template reads something of `item` or `sample`."""
    return any(name.startswith(f"{root}.") for name in variables(template))


def _spelled(name: str, rename: Rename) -> str:
    dotted = _INDEX.sub(lambda found: f".{found[1] or found[2] or found[3]}", name)
    for theirs, ours in _SAME:
        if dotted == theirs or dotted.startswith(f"{theirs}."):
            dotted = ours + dotted.removeprefix(theirs)
    root, dot, path = dotted.partition(".")
    if root != "item" or not dot:
        return dotted
    first, dot, rest = path.partition(".")
    return f"item.{rename(first)}{dot}{rest}"
