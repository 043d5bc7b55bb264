"""Which namespaces a shard works on."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.runtime.sharding import MOST_SHARDS, Shard, shards_of

COUNTS = st.integers(min_value=1, max_value=MOST_SHARDS)
FOUND = {"team-a": 0, "b": 1, "default": 1}
NAMESPACES = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True)


@given(NAMESPACES, COUNTS)
def test_each_namespace_belongs_to_one_shard(namespace: str, count: int) -> None:
    shards = [Shard(index, count) for index in range(count)]
    assert [shard.owns(namespace) for shard in shards].count(True) == 1
    assert all(shard.reads(namespace) == shard.owns(namespace) for shard in shards)


@given(COUNTS)
def test_what_has_no_namespace_is_read_by_all_and_belongs_to_the_first(count: int) -> None:
    shards = [Shard(index, count) for index in range(count)]
    assert [shard.owns("") for shard in shards] == [True, *[False] * (count - 1)]
    assert all(shard.reads("") for shard in shards)


def test_an_operator_without_shards_owns_everything() -> None:
    assert Shard().owns("team-a") and Shard().owns("")


def test_the_shard_of_a_namespace_never_changes_between_versions() -> None:
    """Two versions run side by side during an upgrade."""
    assert {name: [Shard(index, 3).owns(name) for index in range(3)].index(True) for name in FOUND} == FOUND


def test_namespaces_are_spread() -> None:
    of = Counter(index for n in range(900) for index in range(3) if Shard(index, 3).owns(f"team-{n}"))
    assert all(240 < count < 360 for count in of.values())


@pytest.mark.parametrize(
    ("lease", "shards"),
    [
        ("finetune-operator", 1),
        ("finetune-operator-shard-0-of-2", 2),
        ("finetune-operator-shard-11-of-16", 16),
        ("finetune-operator-openai", 0),
        ("my-finetune-operator", 0),
        ("kube-scheduler", 0),
    ],
)
def test_how_many_shards_there_are_by_a_lease(lease: str, shards: int) -> None:
    assert shards_of(lease) == shards


@given(COUNTS)
def test_the_leases_of_all_shards_have_names_of_their_own(count: int) -> None:
    leases = {Shard(index, count).lease for index in range(count)}
    assert len(leases) == count
    assert {shards_of(lease) for lease in leases} == {count}
