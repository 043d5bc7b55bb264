"""Templates of graders: `{{item.x}}`, `{{item.x.y}}`, `{{sample.output_text}}`, `{{sample.output_json.x}}`,
`{{sample.output_tools.0.function.name}}`.

They are those of OpenAI's graders. Each variable is replaced by its value once: nothing is evaluated, and a value that
contains braces is not expanded again. Text is inserted verbatim, any other value as compact JSON with sorted keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from finetune_grading.exact_json import write_json
from finetune_grading.sample import MissingVariableError, Sample

_BRACES = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_NAME = re.compile(r"(item(\.[\w-]+)+|sample\.output_text|sample\.output_(json|tools)(\.[\w-]+)*)")
_MEANT = re.compile(rf"\{{\s*{_NAME.pattern}\s*\}}|\{{\{{.*", re.DOTALL)
"""Text that was meant to be a variable: with single braces, or never closed."""
_SHOWN = 80


class TemplateError(ValueError):
    """A template names a variable that can't exist: the spec is wrong."""


def variables(template: str) -> list[str]:
    """The variables of a template, in order. Raises TemplateError for one that can't exist, or is written wrongly."""
    texts, names = _parts(template)[::2], _parts(template)[1::2]
    for name in names:
        if _NAME.fullmatch(name) is None:
            raise TemplateError(
                f"{{{{{name}}}}} is not a variable. Use {{{{item.<field>}}}}, {{{{sample.output_text}}}}, "
                "{{sample.output_json}} or {{sample.output_tools}}."
            )
    for text in texts:
        if (meant := _MEANT.search(text)) is not None:
            raise TemplateError(f"{meant[0][:_SHOWN]} is not a variable: it needs {{{{ before it and }}}} after it.")
    return list(names)


def resolve(name: str, item: Mapping[str, Any], sample: Sample) -> Any:
    """The value of a variable. Raises MissingVariableError."""
    root, *path = name.split(".")
    if root == "sample":
        value = getattr(sample, path[0])
        path = path[1:]
    else:
        value = item
    for key in path:
        value = _member(value, key, name)
    return value


def render(template: str, item: Mapping[str, Any], sample: Sample) -> str:
    """The template with its variables replaced. Raises MissingVariableError."""
    return render_with(template, lambda name: as_text(resolve(name, item, sample)))


def render_with(template: str, insert: Callable[[str], str]) -> str:
    """The template with what `insert` makes of each variable."""
    first, *rest = _parts(template)
    if not rest:
        return first
    rendered = [first]
    for name, text in zip(rest[::2], rest[1::2], strict=True):
        rendered += (insert(name), text)
    return "".join(rendered)


def as_text(value: Any) -> str:
    """Text as it is, any other value as compact JSON with sorted keys."""
    return value if isinstance(value, str) else write_json(value)


@lru_cache(maxsize=256)
def _parts(template: str) -> tuple[str, ...]:
    """Text, variable, text, variable, ..., text."""
    parts = _BRACES.split(template)
    return tuple(part.strip() if index % 2 else part for index, part in enumerate(parts))


def _member(value: Any, key: str, name: str) -> Any:
    if isinstance(value, Mapping) and key in value:
        return value[key]
    if isinstance(value, list) and key.isdecimal() and int(key) < len(value):
        return value[int(key)]
    holder = "the output" if name.startswith("sample.") else "the example"
    raise MissingVariableError(name, f"{holder} has no {key!r} there.")
