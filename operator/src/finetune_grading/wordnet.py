"""WordNet 3.0, as Debian's package `wordnet-base` has it, for METEOR's synonyms."""

from __future__ import annotations

import io
import os
import warnings
from functools import cache
from pathlib import Path
from typing import Any

DIRECTORY_VARIABLE = "WNSEARCHDIR"
"""WordNet's own variable for where its files are."""
DEBIAN_DIRECTORY = "/usr/share/wordnet"

_PARTS_OF_SPEECH = {"noun": 1, "verb": 2, "adj": 3, "adv": 4}
_LEXICOGRAPHER_FILES = {
    "adj": "all pert",
    "adv": "all",
    "noun": "Tops act animal artifact attribute body cognition communication event feeling food group location motive "
    "object person phenomenon plant possession process quantity relation shape state substance time",
    "verb": "body change cognition communication competition consumption contact creation emotion motion perception "
    "possession social stative weather",
    "adj.ppl": "",
}
"""The table of lexnames(5WN), which Debian leaves out and nltk reads."""


class WordNetNotFoundError(LookupError):
    """WordNet's files are not on this machine. The message says what to install."""


@cache
def wordnet() -> Any:
    """nltk's reader of WordNet; loading it takes some seconds and 100 MB. Raises WordNetNotFoundError."""
    directory = Path(os.environ.get(DIRECTORY_VARIABLE, DEBIAN_DIRECTORY))
    if not (directory / "data.noun").is_file():
        raise WordNetNotFoundError(
            f"METEOR needs WordNet 3.0, which is not in {directory}: install Debian's package wordnet-base, or set "
            f"{DIRECTORY_VARIABLE} to the folder of its files."
        )
    import nltk
    from nltk.corpus.reader.wordnet import WordNetCorpusReader

    class DebianWordNet(WordNetCorpusReader):
        """Without the maps to the multilingual WordNet, which METEOR never asks and Debian does not have."""

        def open(self, file: str) -> Any:
            return io.StringIO(_lexnames()) if file == "lexnames" else super().open(file)

        def map_wn(self, version: str = "wordnet") -> None:
            return None

    nltk.data.path.append(str(directory))  # nltk opens no file elsewhere
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "multilingual functions are not available"
        return DebianWordNet(str(directory), None)


def _lexnames() -> str:
    names = [
        f"{part}.{subject}" if subject else part
        for part, subjects in _LEXICOGRAPHER_FILES.items()
        for subject in subjects.split(" ")
    ]
    return "".join(
        f"{number:02d}\t{name}\t{_PARTS_OF_SPEECH[name.partition('.')[0]]}\n" for number, name in enumerate(names)
    )
