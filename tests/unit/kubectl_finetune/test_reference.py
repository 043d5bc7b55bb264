"""The reference page is what the commands say."""

from __future__ import annotations

from pathlib import Path

from kubectl_finetune.reference import FILE, page

REFERENCE = Path(__file__).parents[3] / "docs" / "reference"


def test_the_page_is_generated_from_the_commands() -> None:
    assert (REFERENCE / FILE).read_text() == page(), "run `make generate`"
