"""Lists in pages: newest first, with the id of the last item seen as the cursor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from finetune_openai.errors import invalid, not_found

Item = TypeVar("Item")


@dataclass(frozen=True)
class Page:
    """What a request asks for: at most `limit` items, those after the item `after`."""

    limit: int
    after: str | None

    @classmethod
    def of(cls, query: Mapping[str, str], *, default: int, most: int) -> Page:
        """From a request's query. Raises RefusedError."""
        text = query.get("limit", str(default))
        if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= most):
            raise invalid(f"Invalid 'limit': it is a whole number from 1 to {most}.", "limit", "invalid_value")
        return cls(int(text), query.get("after") or None)

    def cut(self, items: Sequence[Item], id_of: Callable[[Item], str]) -> tuple[list[Item], bool]:
        """The page of the items, which are all there are, in order, and whether others follow. Raises RefusedError."""
        begin = 0
        if self.after is not None:
            begin = next((place + 1 for place, item in enumerate(items) if id_of(item) == self.after), -1)
            if begin < 0:
                raise not_found("object", self.after, "after")
        return list(items[begin : begin + self.limit]), len(items) > begin + self.limit


def list_body(data: Sequence[Mapping[str, Any]], has_more: bool) -> dict[str, Any]:
    """The body of an answer with a page."""
    ends = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
    return {"object": "list", "data": list(data), "has_more": has_more, **ends}
