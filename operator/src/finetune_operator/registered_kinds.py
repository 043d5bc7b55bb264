"""The kinds that the operator reconciles: a new one is a folder, its API, its resource and rights, and one line here.

Step by step: docs/how-to/add-a-kind.md.
"""

from __future__ import annotations

from collections.abc import Callable

from finetune_operator.core.kind_definition import Kind
from finetune_operator.dataset.kind import dataset
from finetune_operator.environment import Environment
from finetune_operator.evaluation.kind import evaluation
from finetune_operator.finetuneclass.kind import finetuneclass
from finetune_operator.finetunejob.kind import finetunejob
from finetune_operator.finetunesweep.kind import finetunesweep
from finetune_operator.modeldeployment.kind import modeldeployment

# In the order in which they are listed at a start: datasets, jobs, and what evaluates, serves and searches among them.
KINDS: tuple[Callable[[Environment], Kind], ...] = (
    finetuneclass,
    dataset,
    finetunejob,
    evaluation,
    modeldeployment,
    finetunesweep,
)
