"""Which revision's Pods say what keeps a rollout."""

from __future__ import annotations

from dataclasses import replace

import pytest

from finetune_operator.modeldeployment.serving.rollout import _of_newest_revision
from tests.unit.operator.states import NOW, pod


@pytest.mark.parametrize(("old", "new"), [("a", "b"), ("b", "a")])
def test_of_two_revisions_of_one_second_the_one_that_does_not_serve_is_the_newer(old: str, new: str) -> None:
    serves = replace(pod("old"), job_uid=old, created=NOW, ready=True)
    starts = replace(pod("new"), job_uid=new, created=NOW, ready=False)
    assert _of_newest_revision((serves, starts)) == (starts,)
