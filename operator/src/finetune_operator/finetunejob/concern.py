"""The shape of one concern of the plan."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from finetune_api.finetunejob import FineTuneJobStatus
from finetune_operator.core.plan import Plan
from finetune_operator.finetunejob.observed import ObservedFineTuneJob

JobPlan = Plan[FineTuneJobStatus]

Step = JobPlan | FineTuneJobStatus
"""A plan decides; a status means that this concern stands in nobody's way, and that the next one goes on with it."""

Concern = Callable[[ObservedFineTuneJob, FineTuneJobStatus, datetime], Step]
