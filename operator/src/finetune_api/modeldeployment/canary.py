"""A canary of a ModelDeployment: how the next model proves itself beside the one that serves, and how far it is."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from finetune_api.base import ApiModel, FiniteNumber, Line, Timestamp, cel
from finetune_api.kubernetes_types import keyed_by
from finetune_api.modeldeployment.traffic import MOST_SOURCES, RequestCounts, RequestShare, TrafficCounts, TrafficSource
from finetune_api.pod_contracts.run import ModelSource

CheckMetric = Literal["ErrorRate", "TimeToFirstTokenP95", "TimePerOutputTokenP95", "OutputTokensMean"]
Verdict = Literal["Pass", "Fail", "NotEnoughData"]
CanaryPhase = Literal["Starting", "Analysing", "WaitingForApproval", "Promoting", "Ending"]
CanaryOutcome = Literal["RolledBack", "Withdrawn"]


def _is_none(value: object) -> bool:
    """Of a default within a default: a schema has no null."""
    return value is None


class CanaryStep(ApiModel):
    """A share of the requests, until enough is known."""

    percent: int = Field(ge=1, le=99, description="Share of the requests.")
    minimum_requests: int = Field(
        100, ge=20, le=10**6, description="Minimum number of requests that the canary answers in this step."
    )
    deadline_seconds: int | None = Field(
        None,
        ge=60,
        le=2_592_000,
        exclude_if=_is_none,
        description="How long the step may take (onNotEnoughData). Omitted: any time.",
    )


class CanaryCheck(ApiModel):
    """A comparison with what serves, of requests of the same step."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "(self.metric == 'ErrorRate') == has(self.maximumIncreasePercent)",
                "maximumIncreasePercent is for ErrorRate, which needs it",
                "maximumIncreasePercent",
            ),
            (
                "(self.metric != 'ErrorRate') == has(self.maximumRatio)",
                "maximumRatio is for the metrics other than ErrorRate, which need it",
                "maximumRatio",
            ),
        )
    )

    metric: CheckMetric = Field(
        description="ErrorRate: errors of the server, and by the same limit other 4xx, and clients that left before an "
        "answer. TimeToFirstTokenP95 and "
        "TimePerOutputTokenP95: of streams. OutputTokensMean: tokens of an answer."
    )
    maximum_increase_percent: float | None = Field(
        None, ge=0.1, le=50, exclude_if=_is_none, description="Percentage points above the error rate of what serves."
    )
    maximum_ratio: float | None = Field(
        None, ge=1.05, le=10, exclude_if=_is_none, description="Times the value of what serves."
    )


class Canary(ApiModel):
    """Which steps, checks and approval a model needs before it replaces what serves."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "self.steps.all(one, self.steps.exists_one(other, other.percent == one.percent))",
                "no two steps may have the same percent",
                "steps",
            ),
        )
    )

    steps: list[CanaryStep] = Field(
        default=[
            CanaryStep(percent=5, minimum_requests=100),
            CanaryStep(percent=25, minimum_requests=300),
            CanaryStep(percent=50, minimum_requests=300),
        ],
        min_length=1,
        max_length=10,
        description="Each begins once every check of the one before passed.",
    )
    checks: list[CanaryCheck] = Field(
        default=[CanaryCheck(metric="ErrorRate", maximum_increase_percent=2)],
        min_length=1,
        max_length=4,
        json_schema_extra=keyed_by("metric"),
        description="All have to pass.",
    )
    on_not_enough_data: Literal["Wait", "Abort"] = Field(
        "Wait", description="After a step's deadline. Wait: nothing happens until more is known. Abort: roll back."
    )
    approval: Literal["Automatic", "Manual"] = Field(
        "Automatic", description="Manual: after the last step, the model waits for approvedRevision."
    )
    approved_revision: Line | None = Field(
        None,
        description="status.canary.revision that may replace what serves, with approval Manual. One that named it "
        "before the canary began approves nothing.",
    )
    rollback_window_seconds: int = Field(
        86_400,
        ge=0,
        le=2_592_000,
        description="How long after a model was replaced it may be rolled out again without a canary and an approval.",
    )


class CheckResult(ApiModel):
    """A check, as it was last computed."""

    metric: CheckMetric = Field(description="What was compared.")
    stable: FiniteNumber = Field(None, description="Value of what serves: a share, seconds, or tokens.")
    canary: FiniteNumber = Field(None, description="Value of the canary.")
    low: FiniteNumber = Field(None, description="Lower 95 % bound of the difference (ErrorRate) or ratio.")
    high: FiniteNumber = Field(None, description="Upper 95 % bound.")
    margin: FiniteNumber = Field(None, description="What high has to be below, in its unit.")
    share: RequestShare | None = Field(None, description="Of ErrorRate: the share that these numbers are of.")
    requests_needed: int | None = Field(
        None, ge=1, description="Requests of the canary at which it would pass, if both sides go on as they did."
    )
    verdict: Verdict = Field(description="Pass, Fail or NotEnoughData.")


class CanaryStatus(ApiModel):
    """The model that proves itself, and what is known of it."""

    revision: Line = Field(description="Digest of the model; its URI if it has no digest.")
    model: ModelSource | None = Field(None, description="Location of the model.")
    phase: CanaryPhase = Field(
        description="Starting: its Pods start. Analysing. WaitingForApproval. Promoting, Ending: it gets no requests "
        "any more, and its Pods are being removed; then it is rolled out, or over."
    )
    phase_time: Timestamp = Field(description="Since when.")
    outcome: CanaryOutcome | None = Field(None, description="How it ended.")
    ignores_approval: bool = Field(
        False, description="Whether approvedRevision named it when it began, and so approves nothing until it changes."
    )
    step: int = Field(1, ge=1, description="Number of the step, from 1.")
    percent: int = Field(0, ge=0, le=99, description="Share of the requests that it gets.")
    split: Line = Field("", description="Name of what is being counted.")
    unready_time: Timestamp | None = Field(None, description="Since when none of its Pods is ready.")
    failing_time: Timestamp | None = Field(None, description="Since when that is the model's own fault.")
    overdue_time: Timestamp | None = Field(None, description="When it was first seen past the step's deadline.")
    passed: Line | None = Field(None, description="What the step before found.")
    verdict: Verdict = Field("NotEnoughData", description="Of this step.")
    checks: list[CheckResult] = Field(
        default=[], json_schema_extra=keyed_by("metric"), description="The checks, as they were last computed."
    )
    looks: int = Field(0, ge=0, description="How often the checks were computed, in all steps.")
    next_look_requests: int = Field(0, ge=0, description="Requests of the canary at which they are computed next.")
    stable: TrafficCounts = Field(TrafficCounts(), description="Requests to what serves, in this step.")
    canary: TrafficCounts = Field(TrafficCounts(), description="Requests to the canary, in this step.")
    recent_stable: RequestCounts = Field(RequestCounts(), description="The latest requests to what serves.")
    recent_canary: RequestCounts = Field(RequestCounts(), description="The latest requests to the canary.")
    sources: list[TrafficSource] = Field(
        default=[],
        max_length=MOST_SOURCES,
        json_schema_extra=keyed_by("source"),
        description="Who counted in this step, and which of its reports are in it.",
    )


MOST_ABORTED = 10


class AbortedRevision(ApiModel):
    """A canary that was rolled back; it is not tried again as long as the spec asks for the same."""

    revision: Line = Field(description="Digest of the model; its URI if it has no digest.")
    canary_spec: Line = Field(description="Digest of spec.rollout as it was.")
    message: Line = Field(description="Why.")
    time: Timestamp = Field(description="When.")
