"""The reference page is what the docstrings say."""

from __future__ import annotations

from pathlib import Path

from finetune_client.reference import FILE, page

REFERENCE = Path(__file__).parents[3] / "docs" / "reference"


def test_the_page_is_generated_from_the_docstrings() -> None:
    assert (REFERENCE / FILE).read_text() == page(), "run `make generate`"
