"""Graders of specs, whatever uses them."""

from finetune_api.graders.error_codes import GraderErrorCode
from finetune_api.graders.grader import (
    MOST_SOURCE_BYTES,
    Grader,
    GraderType,
    JsonSchema,
    Multi,
    PythonCode,
    ShortName,
    StringCheck,
    TextSimilarity,
    ToolCallMatch,
)
from finetune_api.graders.model_graders import (
    Calibration,
    JudgeSampling,
    Label,
    LabelModel,
    Message,
    ModelName,
    Pairwise,
    ScoreModel,
    Template,
)

__all__ = [
    "MOST_SOURCE_BYTES",
    "Calibration",
    "Grader",
    "GraderErrorCode",
    "GraderType",
    "JsonSchema",
    "JudgeSampling",
    "Label",
    "LabelModel",
    "Message",
    "ModelName",
    "Multi",
    "Pairwise",
    "PythonCode",
    "ScoreModel",
    "ShortName",
    "StringCheck",
    "Template",
    "TextSimilarity",
    "ToolCallMatch",
]
