"""What the documentation says to a machine: its fenced blocks, commands, links and inline code."""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[3]
PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "charts/finetune-operator/README.md",
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("examples/**/*.md"),
    ]
)
PROGRAMS = frozenset(["kubectl", "helm", "make", "docker", "finetune-trainer", "finetune-operator"])
"""Those whose commands are checked."""
OTHERS = frozenset(["aws", "curl", "jq", "git", "python", "python3", "export", "key", "for", "wait", "base64"])
"""Other words that a block of commands may begin with."""
SHELLS = ("", "bash", "sh", "console")
OPERATORS = re.compile(r"^[;&|()]+$")


@dataclass(frozen=True)
class Block:
    """A fenced block, and where it begins."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True)
class Command:
    """A command of the documentation, as words, and where it stands."""

    place: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.place} {shlex.join(self.words)[:60]}"


def blocks() -> list[Block]:
    """Every fenced block of every page."""
    return [
        Block(page, token.map[0] + 1 if token.map else 0, token.info.strip(), token.content)
        for page in PAGES
        for token in _tokens(page)
        if token.type == "fence"
    ]


def inline_code(page: Path) -> Iterator[str]:
    """The inline code of a page."""
    for token in _tokens(page):
        for child in token.children or []:
            if child.type == "code_inline":
                yield child.content


def links(page: Path) -> Iterator[str]:
    """Where a page's links and pictures lead."""
    for token in _tokens(page):
        for child in token.children or []:
            target = child.attrGet("href") if child.type == "link_open" else child.attrGet("src")
            if isinstance(target, str):
                yield target


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    tokens = _tokens(page)
    headings = [tokens[number + 1].content for number, token in enumerate(tokens) if token.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands() -> list[Command]:
    """The commands of the checked programs, in blocks and in lines."""
    found = [command for block in blocks() for command in _of_block(block)]
    for page in PAGES:
        for code in inline_code(page):
            if code.split(" ")[0] in PROGRAMS and " " in code:
                found += [Command(str(page.relative_to(ROOT)), words) for words in split(code)]
    for file in sorted(ROOT.glob("examples/**/*.yaml")):
        for line in re.findall(r"^#.*?\b((?:kubectl|finetune-trainer) \S.*)$", file.read_text(), re.MULTILINE):
            found += [Command(str(file.relative_to(ROOT)), words) for words in split(line)]
    return found


def _of_block(block: Block) -> Iterator[Command]:
    if block.language not in SHELLS:
        return
    lines = block.text.replace("\\\n", " ").splitlines()
    if any(line.startswith("$ ") for line in lines):
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    first = next((line.split()[0] for line in lines if line.strip()), "")
    if Path(first).name in PROGRAMS | OTHERS or "=" in first:
        yield from (Command(str(block), words) for words in split("\n".join(lines)))


def split(text: str) -> Iterator[tuple[str, ...]]:
    """The commands of the checked programs in a text for a shell, also those in `$(...)`."""
    lexer = shlex.shlex(text.replace("\n", " ;\n"), posix=True, punctuation_chars=True)
    lexer.commenters = ""
    lexer.wordchars += ":,$@%+"
    words: list[str] = []
    for word in [*_without_comments(lexer), ";"]:
        for inner in re.findall(r"\$\(((?:[^()']|'[^']*')*)\)", word):
            yield from split(inner)
        if OPERATORS.match(word):
            yield from _checked(words)
            words = []
        else:
            words.append(word)


def _without_comments(lexer: shlex.shlex) -> Iterator[str]:
    comment = False
    for word in lexer:
        if word.startswith("#"):
            comment = True
        if word == ";":
            comment = False
        if not comment:
            yield word


def _checked(words: list[str]) -> Iterator[tuple[str, ...]]:
    while words and ("=" in words[0] or words[0] in ("do", "export", "{", "$")):
        words = words[1:]
    if words and Path(words[0]).name in PROGRAMS:
        yield (Path(words[0]).name, *words[1:])


@functools.cache  # parsing them anew was an eighth of the collection of all tests
def _tokens(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))
