"""The kinds whose run is one retried Job list every policy that they share, in one order."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Iterator, Sequence
from functools import partial
from importlib import import_module
from typing import Any

from finetune_operator.core.plan import Decider, Mutator
from finetune_operator.dataset.plan import ALWAYS as ALWAYS_OF_DATASETS
from finetune_operator.dataset.plan import POLICIES as POLICIES_OF_DATASETS
from finetune_operator.evaluation.plan import ALWAYS as ALWAYS_OF_EVALUATIONS
from finetune_operator.evaluation.plan import POLICIES as POLICIES_OF_EVALUATIONS
from finetune_operator.retried_run import policies


def shared() -> set[str]:
    """The public functions in retried_run/policies/."""
    modules = [import_module(f"{policies.__name__}.{one.name}") for one in pkgutil.iter_modules(policies.__path__)]
    return {
        name
        for module in modules
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not name.startswith("_")
    }


def listed(plan: Sequence[Mutator[Any, Any] | Decider[Any, Any]]) -> Iterator[str]:
    """The shared ones of a plan's list."""
    functions = [policy.run.func if isinstance(policy.run, partial) else policy.run for policy in plan]
    return (one.__name__ for one in functions if one.__module__.startswith(policies.__name__))


def test_both_kinds_have_every_shared_policy_in_the_same_order() -> None:
    of_datasets = [*listed(POLICIES_OF_DATASETS), *listed(ALWAYS_OF_DATASETS)]
    assert of_datasets == [*listed(POLICIES_OF_EVALUATIONS), *listed(ALWAYS_OF_EVALUATIONS)]
    assert sorted(of_datasets) == sorted(shared())
