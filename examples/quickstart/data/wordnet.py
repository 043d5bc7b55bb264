"""WordNet's dictionary files as Python objects, and the synsets that are kept away from the base model.

File format: wndb(5WN), "WordNet database file formats". Lexicographer files: lexnames(5WN).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

FILES = {"noun": "data.noun", "verb": "data.verb", "adjective": "data.adj", "adverb": "data.adv"}

# Lexicographer files of nouns, numbers 04 to 28. 03 is noun.Tops, the roots of the hierarchy, and no domain.
DOMAINS = (
    "act", "animal", "artifact", "attribute", "body", "cognition", "communication", "event", "feeling", "food",
    "group", "location", "motive", "object", "person", "phenomenon", "plant", "possession", "process", "quantity",
    "relation", "shape", "state", "substance", "time",
)  # fmt: skip
TOPS = 3

_EXAMPLE = re.compile(r';?\s*"[^"]*"?[^;]*')
_MARKER = re.compile(r"\((?:a|p|ip)\)$")  # the syntactic marker of an adjective, as in "galore(ip)"


@dataclass(frozen=True)
class Synset:
    """One sense: the words that share it, its definition, and what it is a kind of."""

    id: str  # part of speech and byte offset in its data file, e.g. "noun-02084071"
    part_of_speech: str
    lexicographer_file: int
    words: tuple[str, ...]
    definition: str
    examples: tuple[str, ...]
    hypernyms: tuple[str, ...]  # ids, instance hypernyms included
    has_hyponyms: bool

    @property
    def domain(self) -> str | None:
        """The noun's lexicographer file by name; None for the roots and for other parts of speech."""
        if self.part_of_speech != "noun" or self.lexicographer_file == TOPS:
            return None
        return DOMAINS[self.lexicographer_file - TOPS - 1]

    @property
    def headwords(self) -> frozenset[str]:
        return frozenset(word.lower() for word in self.words)


def read(folder: Path) -> dict[str, Synset]:
    """All synsets of the dictionary files in `folder`, by id, in the order of the files."""
    return {
        synset.id: synset
        for part_of_speech, name in FILES.items()
        for line in (folder / name).read_text("utf-8").splitlines()
        if not line.startswith("  ")  # the licence at the head of each file
        for synset in [_parse(part_of_speech, line)]
    }


def _parse(part_of_speech: str, line: str) -> Synset:
    fields, _, gloss = line.partition(" | ")
    offset, lexicographer_file, _, word_count, *rest = fields.split(" ")
    word_fields, rest = rest[: 2 * int(word_count, 16)], rest[2 * int(word_count, 16) :]
    pointer_fields = rest[1 : 1 + 4 * int(rest[0])]
    pointers = [tuple(pointer_fields[i : i + 3]) for i in range(0, len(pointer_fields), 4)]
    return Synset(
        id=f"{part_of_speech}-{offset}",
        part_of_speech=part_of_speech,
        lexicographer_file=int(lexicographer_file),
        words=tuple(_MARKER.sub("", word).replace("_", " ") for word in word_fields[::2]),
        definition=_EXAMPLE.sub("", gloss).strip(" ;"),
        examples=tuple(re.findall(r'"([^"]+)"', gloss)),
        hypernyms=tuple(f"{part_of_speech}-{target}" for symbol, target, _ in pointers if symbol in ("@", "@i")),
        has_hyponyms=any(symbol in ("~", "~i") for symbol, _, _ in pointers),
    )


def shuffled(synsets: Iterable[Synset], seed: int) -> list[Synset]:
    """In an order that depends on each synset's id and the seed alone, so it's the same on every machine."""
    return sorted(synsets, key=lambda synset: hashlib.sha256(f"{seed} {synset.id}".encode()).digest())


def overlap(synsets: Iterable[Synset], held_out: Iterable[Synset]) -> set[str]:
    """Ids of those `synsets` that share a headword or the whole definition with a held-out one, or are one."""
    held_out = list(held_out)
    headwords = frozenset[str]().union(*(synset.headwords for synset in held_out))
    definitions = {synset.definition for synset in held_out}
    return {synset.id for synset in synsets if synset.definition in definitions or synset.headwords & headwords}


def ancestry(synset: Synset, synsets: Mapping[str, Synset]) -> list[Synset]:
    """From the synset's nearest hypernym to a root, along each one's first hypernym."""
    path: list[Synset] = []
    while synset.hypernyms:
        synset = synsets[synset.hypernyms[0]]
        if synset in path:
            break  # WordNet 3.0 has one cycle, between two verbs
        path.append(synset)
    return path
