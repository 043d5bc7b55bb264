"""No file, function or folder is too large to be read in one go; architecture.md has the reason for each exception."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.unit.docs.pages import ROOT

CODE = tuple(ROOT / name for name in ("operator", "trainer-image", "tests", "e2e", "benchmarks"))
EVERYTHING = (*CODE, ROOT / "docs", ROOT / "examples", ROOT / "charts")
MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 60
MOST_FILES_OF_A_FOLDER = 12


def files(folders: tuple[Path, ...], pattern: str = "*.py") -> Iterator[Path]:
    return (file for folder in folders for file in folder.rglob(pattern) if file.is_file())


def test_no_file_is_too_long() -> None:
    lengths = {str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for file in files(CODE)}
    assert {name: length for name, length in lengths.items() if length > MOST_LINES_OF_A_FILE} == {}


def functions(within: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in getattr(within, "body", ()):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
        yield from functions(node)


def test_no_function_is_too_long() -> None:
    texts = {file: file.read_text() for file in files(CODE)}
    lengths = {
        f"{file.relative_to(ROOT)}: {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for file, text in texts.items()
        if text.count("\n") > MOST_LINES_OF_A_FUNCTION
        for node in functions(ast.parse(text))
    }
    assert {name: length for name, length in lengths.items() if length > MOST_LINES_OF_A_FUNCTION} == {}


def test_a_folder_of_many_files_has_a_reason() -> None:
    page = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
    reasons = re.findall(r"^\| `([a-z0-9_/-]+)/` \|", page.partition("## Large folders")[2], flags=re.MULTILINE)
    counts = Counter(
        str(file.parent.relative_to(ROOT))
        for file in files(EVERYTHING, "*.*")
        if file.name != "py.typed" and "__pycache__" not in file.parts
    )
    assert sorted(folder for folder, count in counts.items() if count > MOST_FILES_OF_A_FOLDER) == sorted(reasons)
