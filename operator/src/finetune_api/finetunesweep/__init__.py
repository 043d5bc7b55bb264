"""FineTuneSweep: a search for the hyperparameters of a FineTuneJob; runs again when runId changes."""

from finetune_api.finetunesweep.learning_curve import CurvePoint, CurveStatus, LearningCurve
from finetune_api.finetunesweep.objective import GraderScore, Holdout, Objective
from finetune_api.finetunesweep.parameters import (
    PATHS,
    Parameter,
    Range,
    Value,
    accepts,
    has_values,
    is_number,
    is_whole,
    set_value,
    with_values,
)
from finetune_api.finetunesweep.smallest_model import MOST_SIZES, SizedModel, SmallestModel
from finetune_api.finetunesweep.spec import ASHA, Budget, FineTuneSweepSpec, Median, Prune, Search, Template
from finetune_api.finetunesweep.status import (
    BestTrial,
    FineTuneSweepStatus,
    HoldoutScore,
    Phase,
    RungStatus,
    TrialState,
    TrialStatus,
)

__all__ = [
    "ASHA",
    "MOST_SIZES",
    "PATHS",
    "BestTrial",
    "Budget",
    "CurvePoint",
    "CurveStatus",
    "FineTuneSweepSpec",
    "FineTuneSweepStatus",
    "GraderScore",
    "Holdout",
    "HoldoutScore",
    "LearningCurve",
    "Median",
    "Objective",
    "Parameter",
    "Phase",
    "Prune",
    "Range",
    "RungStatus",
    "Search",
    "SizedModel",
    "SmallestModel",
    "Template",
    "TrialState",
    "TrialStatus",
    "Value",
    "accepts",
    "has_values",
    "is_number",
    "is_whole",
    "set_value",
    "with_values",
]
