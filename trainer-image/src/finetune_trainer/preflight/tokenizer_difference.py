"""Whether two tokenizers make the same tokens of any text, by a digest of their tokenizer.json, and where they differ.

What is around the tokens of a text is not compared: truncation, padding, and what a post-processor puts before and
after. Flags of special tokens are not, either: later versions of a model set them otherwise.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

COMPARED = ("model", "normalizer", "pre_tokenizer")
NAMES = {"model": "rules by which it joins tokens", "normalizer": "normalizer", "pre_tokenizer": "pre-tokenizer"}


def first_difference(tokenizer: Any, other: Any) -> str | None:
    """A sentence about the first token, or rule, that differs; None of tokenizers with one digest.

    The library writes all versions of tokenizer.json alike.
    """
    ours, theirs = (json.loads(one.backend_tokenizer.to_str()) for one in (tokenizer, other))
    if _digest(tokenizer, ours) == _digest(other, theirs):
        return None
    return _of_tokens(_tokens(tokenizer), _tokens(other)) or _of_rules(ours, theirs)


def _digest(tokenizer: Any, written: dict[str, Any]) -> str:
    compared = [sorted(_tokens(tokenizer).items()), *(_rule(written, part) for part in COMPARED)]
    return hashlib.sha256(json.dumps(compared, sort_keys=True).encode()).hexdigest()


def _tokens(tokenizer: Any) -> dict[int, str]:
    """All of them, by number: those that were added, too."""
    return {number: token for token, number in tokenizer.get_vocab().items()}


def _rule(written: dict[str, Any], part: str) -> Any:
    found = written.get(part)
    return {name: value for name, value in found.items() if name != "vocab"} if part == "model" and found else found


def _of_tokens(ours: dict[int, str], theirs: dict[int, str]) -> str | None:
    for number in sorted(ours.keys() | theirs.keys()):
        if ours.get(number) != theirs.get(number):
            return f"token {number} is {_shown(theirs, number)} there, and {_shown(ours, number)} here."
    return None


def _shown(tokens: dict[int, str], number: int) -> str:
    return repr(tokens[number][:100]) if number in tokens else "none"


def _of_rules(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    parts = [NAMES[part] for part in COMPARED if _rule(ours, part) != _rule(theirs, part)]
    return f"the tokens are the same, and the {' and the '.join(parts)} of its tokenizer.json is not."
