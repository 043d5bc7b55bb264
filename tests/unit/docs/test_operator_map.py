"""The map of the operator in architecture.md shows the files that exist, all of them, in the order that lint checks."""

from __future__ import annotations

import re
import tomllib

from tests.unit.docs.pages import ROOT

PACKAGE = ROOT / "operator" / "src" / "finetune_operator"
PAGE = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("## The operator\n")[2].partition("## The trainer\n")[0]
COLUMN = 34
"""Where the explanations of the map begin."""
OF_EVERY_KIND = frozenset({"kind.py", "objects.py", "observe.py", "observed.py", "plan.py"})
COMMAND_LINE = frozenset({"__main__.py", "reference.py", "settings.py", "release_finalizers.py"})


def mapped() -> list[str]:
    """The places of the map, from the top down; a file below its folder's line is of that folder."""
    places, folder = [], ""
    for line in SECTION.split("```")[1].splitlines()[1:]:
        names = line[:COLUMN].split()
        if names[0].endswith("/"):
            folder = names[0]
            places.append(folder)
        else:
            places += [(folder if line.startswith(" ") else "") + name for name in names]
    return places


def files() -> set[str]:
    return {str(file.relative_to(PACKAGE)) for file in PACKAGE.rglob("*.py") if file.name != "__init__.py"}


def test_the_map_shows_every_folder_and_nothing_else() -> None:
    folders = {f"{file.parent.relative_to(PACKAGE)}/" for file in PACKAGE.rglob("__init__.py")} - {"./"}
    assert {place for place in mapped() if place.endswith("/")} == folders


def test_the_map_shows_every_file_but_those_that_every_kind_has() -> None:
    shown = {place for place in mapped() if place.endswith(".py")}
    in_a_line_for_all = ("finetunejob/", "evaluation/policies/")  # their files are named by the plans' own lists
    rest = {
        name
        for name in files() - shown
        if not name.startswith(in_a_line_for_all) and name.rpartition("/")[2] not in OF_EVERY_KIND
    }
    assert shown - files() == set()
    assert rest == COMMAND_LINE


def test_every_file_that_the_section_names_exists() -> None:
    named = set(re.findall(r"`([a-z_]+(?:/[a-z_]+)*\.py)`", SECTION))
    known = files() | OF_EVERY_KIND
    missing = {name for name in named - known if not (PACKAGE.parent / name).is_file()}
    assert missing == set()


def test_every_kind_has_the_same_files() -> None:
    kinds = {name.partition("/")[0] for name in files() if name.endswith("/kind.py")}
    registered = set(
        re.findall(r"from finetune_operator\.(\w+)\.kind import", (PACKAGE / "registered_kinds.py").read_text())
    )
    assert kinds == registered
    lacking = {f"{kind}/{name}" for kind in kinds for name in OF_EVERY_KIND} - files()
    assert lacking == {"finetuneclass/objects.py"}, "nothing is made for a class"


def test_the_map_has_the_order_of_the_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (layers,) = [one["layers"] for one in contracts if one["name"] == "The operator's packages build upon each other"]
    order = {
        name.strip().removeprefix("finetune_operator."): level
        for level, line in enumerate(layers)
        for name in line.split("|")
    }
    top = [place.removesuffix(".py").rstrip("/") for place in mapped() if place.count("/") == place.endswith("/")]
    levels = [order[name] for name in top]
    assert levels == sorted(levels)
    assert set(top) == set(order)
