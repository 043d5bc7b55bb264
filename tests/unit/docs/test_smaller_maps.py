"""The maps of the smaller packages in architecture.md show their folders, in the order that lint checks."""

from __future__ import annotations

import re
import tomllib

import pytest

from tests.unit.docs.pages import ROOT

PAGE = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("## The smaller packages\n")[2].partition("\n## ")[0]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
LAYERS = {
    "finetune_api": "The contracts build upon each other",
    "finetune_client": "The client's packages build upon each other",
    "finetune_gateway": "The gateway's modules build upon each other",
    "finetune_grading": "The modules of grading build upon each other",
    "finetune_http": "The limits of clients build upon each other",
    "finetune_openai": "finetune_openai's packages build upon each other",
    "finetune_view": "The views build upon each other",
    "kubectl_finetune": "The plugin's packages build upon each other",
}


def mapped(package: str) -> list[str]:
    """The modules of the map, from the top down."""
    block = SECTION.partition(f"`{package}` is")[2].split("```")[1]
    return [place for line in block.splitlines() for place in re.findall(r"([a-z_]+)(?:/|\.py)(?= )", line[:34])]


@pytest.mark.parametrize("package", LAYERS)
def test_the_map_shows_every_folder(package: str) -> None:
    folder = ROOT / "operator" / "src" / package
    folders = {file.parent.name for file in folder.glob("*/__init__.py")}
    missing = {
        place for place in mapped(package) if not ((folder / place).is_dir() or (folder / f"{place}.py").exists())
    }
    assert folders <= set(mapped(package))
    assert missing == set()


@pytest.mark.parametrize("package", LAYERS)
def test_the_map_has_the_order_of_the_contract(package: str) -> None:
    (layers,) = [one["layers"] for one in CONTRACTS if one["name"] == LAYERS[package]]
    order = {
        name.strip().removeprefix(f"{package}."): level for level, line in enumerate(layers) for name in line.split("|")
    }
    levels = [order[place] for place in mapped(package)]
    assert levels == sorted(levels)
    assert set(mapped(package)) == set(order)
