"""The base model's training text: WordNet's entries, as plain text and as conversations about them."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "data"))

import derive
import wordnet
from wordnet import Synset

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

# How often an entry is told in which form. Nothing here names a domain or asks for one.
FORM_WEIGHTS = {"plain": 30, "kind": 35, "json": 15, "define": 10, "name": 10}


def entries(synsets: Mapping[str, Synset]) -> list[Synset]:
    """Every synset that the base model may see."""
    unseen = derive.unseen_ids(synsets)
    return [synset for synset in synsets.values() if synset.id not in unseen]


def documents(synsets: Mapping[str, Synset], generator: random.Random) -> list[str]:
    """One pass over the dictionary in random order, each entry in one form drawn for it."""
    seen = entries(synsets)
    generator.shuffle(seen)
    forms = generator.choices(list(FORM_WEIGHTS), list(FORM_WEIGHTS.values()), k=len(seen))
    return [document(synset, form, synsets) for synset, form in zip(seen, forms, strict=True)]


def document(synset: Synset, form: str, synsets: Mapping[str, Synset]) -> str:
    words, definition = ", ".join(synset.words), synset.definition
    entry = f"{words}: {definition}"
    kinds = _kinds(synset, synsets)
    match form:
        case "kind" if kinds:
            return _conversation("Tell what the entry is a kind of.", entry, " > ".join(kinds))
        case "json":
            fields = {"word": synset.words[0]} | ({"kind": kinds[-1]} if kinds else {})
            return _conversation("Answer with the entry as JSON.", entry, json.dumps(fields, ensure_ascii=False))
        case "define":
            return _conversation("Define the word.", words, definition)
        case "name":
            return _conversation("Name the word for this definition.", definition, words)
        case _:
            examples = "".join(f' "{example}"' for example in synset.examples)
            kind = f" Kind of {kinds[-1]}." if kinds else ""
            return f"{words} ({synset.part_of_speech}): {definition}.{examples}{kind}{END_OF_TEXT}"


def _kinds(synset: Synset, synsets: Mapping[str, Synset]) -> list[str]:
    """What it is a kind of, most general first, starting at the first of the noun hierarchy's named roots."""
    path: list[str] = []
    for ancestor in wordnet.ancestry(synset, synsets):
        path.append(ancestor.words[0])
        if ancestor.part_of_speech == "noun" and ancestor.lexicographer_file == wordnet.TOPS:
            break  # above it are only "entity", "abstraction" and the like
    return path[::-1]


def _conversation(instruction: str, question: str, answer: str) -> str:
    """The text that the chat template makes of the three messages."""
    turns = (("system", instruction), ("user", question), ("assistant", answer))
    return "".join(f"{TURN_START}{role}\n{content}{TURN_END}\n" for role, content in turns)
