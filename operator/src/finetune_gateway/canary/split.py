"""Which requests a canary gets: a share of them by chance, and all of a session or none. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Group = Literal["stable", "canary"]
SESSION_HEADER = "x-session-id"
LONGEST_PARSED_BYTES = 2**20
"""Of a body in which the user is looked for."""
_PARTS = 10_000
_USER = re.compile(rb'"user"\s*:')
"""The field, which the role of a message is not."""


@dataclass(frozen=True)
class Split:
    """What the operator asks for. `id`: of the step; empty: nothing is split or counted.

    `salt`: of the revision, so that a session that a canary has stays there while its share grows.
    """

    id: str = ""
    salt: str = ""
    percent: int = 0

    @classmethod
    def read(cls, found: object) -> Split:
        """The split of the operator's answer; none of what is not one."""
        if not isinstance(found, dict):
            return cls()
        name, salt, percent = found.get("id"), found.get("salt"), found.get("percent")
        if not isinstance(name, str) or not isinstance(salt, str) or type(percent) is not int:
            return cls()
        return cls(name, salt, min(max(percent, 0), 100))


def session_of(headers: Mapping[str, str], body: bytes) -> str:
    """What stays on one side: the session that the client names, or OpenAI's `user`; empty: each request by itself."""
    named = headers.get(SESSION_HEADER)
    if named or len(body) > LONGEST_PARSED_BYTES or _USER.search(body) is None:
        return named or ""
    try:
        user = json.loads(body).get("user")
    except (ValueError, AttributeError, RecursionError):
        return ""
    return user if isinstance(user, str) else ""


def group_of(split: Split, session: str, chance: float) -> Group:
    """The side of a request. `chance`: a random number below 1, for those of no session."""
    share = chance
    if session:
        digest = hashlib.sha256(f"{split.salt}\n{session}".encode(errors="surrogatepass")).digest()
        share = int.from_bytes(digest[:8], "big") % _PARTS / _PARTS
    return "canary" if share * 100 < split.percent else "stable"
