"""The walks through the code in architecture.md: short, without a way back, by files and functions that exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.docs.pages import ROOT

PAGE = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
OPERATOR = ROOT / "operator" / "src" / "finetune_operator"
TRAINER = ROOT / "trainer-image" / "src" / "finetune_trainer"


def section(title: str) -> str:
    return PAGE.partition(f"### {title}\n")[2].partition("\nTo add ")[0]


def steps(title: str) -> list[tuple[str, list[str]]]:
    """The file and the names of each numbered step."""
    found = re.findall(r"^\d+\. `([a-z_/]+\.py)`: (.*(?:\n    .*)*)", section(title), flags=re.MULTILINE)
    return [(file, re.findall(r"`(\w+)`", text)) for file, text in found]


@pytest.mark.parametrize(("title", "package", "most"), [("Follow a job", OPERATOR, 12), ("Follow a run", TRAINER, 15)])
def test_a_walk_is_short_and_opens_no_file_twice(title: str, package: Path, most: int) -> None:
    files = [file for file, _ in steps(title)]
    assert 0 < len(files) <= most
    assert len(set(files)) == len(files)
    assert [file for file in files if not (package / file).is_file()] == []


@pytest.mark.parametrize(("title", "package"), [("Follow a job", OPERATOR), ("Follow a run", TRAINER)])
def test_the_names_of_a_walk_are_defined_in_its_files(title: str, package: Path) -> None:
    walk = steps(title)
    assert all(names for _, names in walk)
    code = "\n".join((package / file).read_text(encoding="utf-8") for file, _ in walk)
    assert [name for _, names in walk for name in names if not _is_defined(name, code)] == []
    for file, names in walk:
        assert _is_defined(names[0], (package / file).read_text(encoding="utf-8")), f"{file} has no {names[0]}"


@pytest.mark.parametrize(("title", "package", "most"), [("Follow a job", OPERATOR, 19), ("Follow a run", TRAINER, 20)])
def test_a_walk_counts_every_file_that_it_names(title: str, package: Path, most: int) -> None:
    text, numbered = section(title), {file for file, _ in steps(title)}
    others = set(re.findall(r"`([a-z_/]+\.py)`", text)) - numbered
    assert [int(number) for number in re.findall(r": (\d+) files, and (\d+) ", text)[0]] == [len(numbered), len(others)]
    assert len(numbered | others) <= most
    assert [file for file in others if not ((package / file).is_file() or (package.parent / file).is_file())] == []


@pytest.mark.parametrize(("title", "package"), [("Follow a job", OPERATOR), ("Follow a run", TRAINER)])
def test_a_walk_says_about_how_many_more_files_its_functions_call(title: str, package: Path) -> None:
    """Functions of the package itself, called by what the steps name and by what that calls in the same file."""
    walk, text = steps(title), section(title)
    named = {file for file in re.findall(r"`([a-z_/]+\.py)`", text)}
    called = {
        file for step, _ in walk for file in _called(package, step, {name for _, names in walk for name in names})
    }
    (stated,) = re.findall(r"call\s+functions\s+of\s+up\s+to\s+(\d+)\s+more", text)
    further = called - {re.sub(rf"^{package.name}/", "", file) for file in named}
    assert int(stated) - 3 <= len(further) <= int(stated), sorted(further)


def _called(package: Path, file: str, names: set[str]) -> Iterator[str]:
    """The files of the package whose functions are called by those of these names in `file`, or by its own helpers."""
    body = ast.parse((package / file).read_text(encoding="utf-8")).body
    defined = {
        node.name: node for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    imported = {
        alias.name: node.module or ""
        for node in body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{package.name}.")
        for alias in node.names
    }
    left, seen = names & defined.keys(), set[str]()
    while left:
        name = left.pop()
        seen.add(name)
        calls = {
            node.func.id
            for node in ast.walk(defined[name])
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        left |= (calls & defined.keys()) - seen
        yield from (_file_of(imported[call]) for call in calls & imported.keys() if call[0].islower())


def _file_of(module: str) -> str:
    return module.partition(".")[2].replace(".", "/") + ".py"


def _is_defined(name: str, code: str) -> bool:
    return re.search(rf"^(?:async def|def|class) {name}\b|^{name}\b.*=", code, flags=re.MULTILINE) is not None
