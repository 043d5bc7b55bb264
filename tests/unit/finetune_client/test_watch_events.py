"""The lines of a watch, which a proxy may have garbled."""

from __future__ import annotations

import pytest

from finetune_client.errors import ApiError, DeletedError
from finetune_client.watch_events import changed


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"type": "ADDED"}',
        b'{"type": "ERROR", "object": null}',
        b'{"type": "ERROR", "object": "gone"}',
        b'{"type": "MODIFIED", "object": 7}',
        b'{"type": "DELETED", "object": [1]}',
    ],
)
def test_what_is_no_event_ends_the_watch_and_the_object_is_read_again(line: bytes) -> None:
    with pytest.raises(ApiError) as error:
        changed(line)
    assert error.value.may_heal


def test_what_an_event_says() -> None:
    assert changed(b'{"type": "MODIFIED", "object": {"kind": "FineTuneJob"}}') == {"kind": "FineTuneJob"}
    assert changed(b'{"type": "BOOKMARK", "object": {}}') is None
    with pytest.raises(ApiError, match="too old") as gone:
        changed(b'{"type": "ERROR", "object": {"code": 410, "reason": "Expired", "message": "too old"}}')
    assert gone.value.may_heal
    with pytest.raises(DeletedError, match="FineTuneJob router was deleted"):
        changed(b'{"type": "DELETED", "object": {"kind": "FineTuneJob", "metadata": {"name": "router"}}}')
