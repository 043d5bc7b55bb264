"""Label selectors in the API server's syntax."""

from __future__ import annotations

from finetune_operator.kube.selectors import label_selector


def test_label_selectors_are_formatted_for_the_api_server() -> None:
    assert label_selector({"a": frozenset({"1"}), "b": frozenset({"3", "2"})}) == "a=1,b in (2,3)"
