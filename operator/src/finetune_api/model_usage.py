"""How much the models of a class may be asked in a run, and how much they were."""

from __future__ import annotations

from pydantic import Field

from finetune_api.base import MOST_EXAMPLES, ApiModel, FiniteNumber, Line


class Budget(ApiModel):
    """How much the models of the class may be asked in all tries of the run together, as candidates and by graders.

    Every request counts, answered or not; answers that are in the cache cost nothing. At the limit, what is not graded
    yet is Errored with BudgetExceeded. Another runId has a budget of its own.
    """

    requests: int | None = Field(None, ge=1, le=MOST_EXAMPLES, description="Maximum number of requests.")
    tokens: int | None = Field(
        None,
        ge=1,
        le=2**53,
        description="No request is sent once so many tokens were used; those that are being answered then are added.",
    )


class ModelUsage(ApiModel):
    """What one model of the class was asked during the last try."""

    model: Line = Field(description="Name of the model in spec.models of the FineTuneClass.")
    requests: int = Field(0, description="Number of requests, including those that were repeated.")
    cached: int = Field(0, description="Number of answers from the cache, which cost nothing.")
    prompt_tokens: int = Field(0, description="Number of tokens of prompts.")
    completion_tokens: int = Field(0, description="Number of tokens of replies.")
    cost: FiniteNumber = Field(None, description="Cost of the tokens by the class's prices, if it has any.")
