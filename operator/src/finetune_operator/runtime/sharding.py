"""Which objects this process works on, where several operators share a cluster by namespace.

Each namespace belongs to one shard, by a hash of its name; cluster-scoped objects, which every shard reads, belong to
shard 0. Each shard elects a leader with a Lease of its own. Nothing crosses namespaces: not an owner, not a reference,
and a budget is one namespace's.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

MOST_SHARDS = 16
_LEASE_NAME = "finetune-operator"
_ANY_LEASE = re.compile(rf"{_LEASE_NAME}(-shard-\d+-of-(\d+))?")


@dataclass(frozen=True)
class Shard:
    """One of `count` parts of the namespaces; `index` counts from 0."""

    index: int = 0
    count: int = 1

    @property
    def lease(self) -> str:
        """The name of the Lease of its leader."""
        return _LEASE_NAME if self.count == 1 else f"{_LEASE_NAME}-shard-{self.index}-of-{self.count}"

    def owns(self, namespace: str) -> bool:
        """Whether this shard reconciles the objects of a namespace (empty: those without one)."""
        if self.count == 1 or not namespace:
            return self.index == 0
        return int.from_bytes(hashlib.sha256(namespace.encode()).digest()[:8]) % self.count == self.index

    def reads(self, namespace: str) -> bool:
        """Whether it keeps the objects of a namespace in memory (empty: those without one)."""
        return not namespace or self.owns(namespace)


WHOLE = Shard()
"""All namespaces: that of an operator without shards."""


def parse_shard(text: str) -> Shard:
    """The shard of INDEX/COUNT, such as 0/3 for the first of three. Raises ValueError."""
    found = re.fullmatch(r"(\d{1,2})/(\d{1,2})", text, re.ASCII)
    shard = Shard(int(found[1]), int(found[2])) if found else Shard(0, 0)
    if not shard.index < shard.count <= MOST_SHARDS:
        raise ValueError(
            f"{text!r} is not INDEX/COUNT, such as 0/3 for the first of three; there are at most {MOST_SHARDS}"
        )
    return shard


def shards_of(lease: str) -> int:
    """How many shards there are by whoever holds the Lease of this name; 0 if it is not the operator's."""
    found = _ANY_LEASE.fullmatch(lease)
    return 0 if found is None else int(found[2] or 1)
