"""Why an output could not be graded."""

from __future__ import annotations

from enum import StrEnum


class GraderErrorCode(StrEnum):
    """Why an output could not be graded, in OpenAI's terms; the last two are our own."""

    FORMULA_PARSE_ERROR = "formula_parse_error"
    SAMPLE_PARSE_ERROR = "sample_parse_error"
    INVALID_VARIABLE_ERROR = "invalid_variable_error"
    PYTHON_GRADER_SERVER_ERROR = "python_grader_server_error"
    PYTHON_GRADER_RUNTIME_ERROR = "python_grader_runtime_error"
    MODEL_GRADER_PARSE_ERROR = "model_grader_parse_error"
    MODEL_GRADER_REFUSAL_ERROR = "model_grader_refusal_error"
    MODEL_GRADER_SERVER_ERROR = "model_grader_server_error"
    MODEL_GRADER_EXCEEDED_MAX_TOKENS_ERROR = "model_grader_exceeded_max_tokens_error"
    OTHER_ERROR = "other_error"
    BUDGET_EXCEEDED = "BudgetExceeded"
    NO_OUTPUT = "NoOutput"
