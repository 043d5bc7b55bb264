"""The walks through the code in architecture.md: short, without a way back, by files and functions that exist."""

from __future__ import annotations

import re
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


def _is_defined(name: str, code: str) -> bool:
    return re.search(rf"^(?:async def|def|class) {name}\b|^{name}\b.*=", code, flags=re.MULTILINE) is not None
