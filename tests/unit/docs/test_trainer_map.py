"""The map of the trainer in architecture.md shows the folders that exist, in the order that lint checks."""

from __future__ import annotations

import re
import tomllib

from tests.unit.docs.pages import ROOT

PACKAGE = ROOT / "trainer-image" / "src" / "finetune_trainer"


def mapped() -> list[list[str]]:
    """The places on each line of the map, from the top down."""
    page = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
    block = page.partition("## The trainer")[2].split("```")[1]
    lines = [f"{line[:48]} " for line in block.splitlines()[1:]]
    return [re.findall(r"(?<![\w/])[a-z_]+(?:/[a-z_]+)*(?:/|\.py)(?= )", line) for line in lines]


def test_the_map_names_every_folder_of_the_trainer() -> None:
    places = {place.strip("/") for line in mapped() for place in line}
    folders = {str(file.parent.relative_to(PACKAGE)) for file in PACKAGE.rglob("__init__.py")} - {"."}
    within = {
        "methods/rft",
        "methods/distillation",
        "model/kernels",
        "storage/requests",
        "data/read/tables",
        "report/evaluation",
        "evaluation/safety",
        "evaluation/nodes",
        "serving/responses",
        "serving/engine",
        "serving/transport",
    }  # of folders of the map, which names them too
    assert places == folders - {"data"} - within


def test_the_map_has_the_order_of_the_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (layers,) = [one["layers"] for one in contracts if one["name"] == "The trainer's packages build upon each other"]
    order = {
        name.removeprefix("finetune_trainer.").strip(): level
        for level, line in enumerate(layers)
        for name in line.replace("finetune_trainer.", "").split(" | ")
    }
    levels = [order[place.strip("/").removesuffix(".py").replace("/", ".")] for line in mapped() for place in line]
    assert levels == sorted(levels)


def test_every_file_that_the_section_names_exists() -> None:
    page = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
    section = page.partition("## The trainer")[2].partition("\n## ")[0]
    named = set(re.findall(r"`([a-z_]+(?:/[a-z_]+)*\.py)`", section))
    assert {name for name in named if not (PACKAGE / name).exists()} == set()
