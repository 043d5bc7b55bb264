"""Derives train.jsonl, valid.jsonl and test.jsonl from WordNet 3.0: name the domain of a noun's entry, as JSON.

    python derive.py --wordnet /usr/share/wordnet --out .

The same dictionary files and seed give the same bytes. README.md tells the source, the licence and the split.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import wordnet
from wordnet import Synset

SEED = 17
TRAIN, VALID, TEST = 1500, 150, 250
INSTRUCTION = "Answer with the domain of the entry as JSON."


@dataclass(frozen=True)
class Splits:
    train: list[Synset]
    valid: list[Synset]
    test: list[Synset]


def choose_splits(synsets: Mapping[str, Synset]) -> Splits:
    """Draws nouns at random, with the dictionary's own class frequencies.

    Only nouns that nothing else is a kind of are drawn, so that no other entry's ancestry names one. No two
    splits share a headword or a whole definition.
    """
    candidates = wordnet.shuffled(
        (synset for synset in synsets.values() if synset.domain and not synset.has_hyponyms), SEED
    )
    test = candidates[:TEST]
    candidates = _apart_from(test, candidates)
    valid = candidates[:VALID]
    candidates = _apart_from(valid, candidates)
    return Splits(candidates[:TRAIN], valid, test)


def unseen_ids(synsets: Mapping[str, Synset]) -> set[str]:
    """What the base model must not be trained on.

    All three splits, and every synset that shares a headword or a definition with validation or test.
    """
    splits = choose_splits(synsets)
    return {synset.id for synset in splits.train} | wordnet.overlap(synsets.values(), [*splits.valid, *splits.test])


def example(synset: Synset) -> dict[str, list[dict[str, str]]]:
    """One conversation in OpenAI's chat format, whose last message is the reference answer."""
    return {
        "messages": [
            {"role": "system", "content": INSTRUCTION},
            {"role": "user", "content": f"{', '.join(synset.words)}: {synset.definition}"},
            {"role": "assistant", "content": json.dumps({"domain": synset.domain})},
        ]
    }


def _apart_from(held_out: list[Synset], candidates: list[Synset]) -> list[Synset]:
    overlapping = wordnet.overlap(candidates, held_out)
    return [synset for synset in candidates if synset.id not in overlapping]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wordnet", type=Path, required=True, help="folder of data.noun and its like")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the three files to")
    arguments = parser.parse_args()
    splits = choose_splits(wordnet.read(arguments.wordnet))
    for name, members in (("train", splits.train), ("valid", splits.valid), ("test", splits.test)):
        lines = [json.dumps(example(synset), ensure_ascii=False) + "\n" for synset in members]
        (arguments.out / f"{name}.jsonl").write_text("".join(lines), "utf-8", newline="\n")
        domain, count = Counter(synset.domain for synset in members).most_common(1)[0]
        print(f"{name}.jsonl: {len(lines)} examples, {100 * count / len(lines):.1f} % of them {domain}")


if __name__ == "__main__":
    main()
