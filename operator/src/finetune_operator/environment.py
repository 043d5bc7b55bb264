"""What the process gives to every kind."""

from __future__ import annotations

from dataclasses import dataclass, field

from finetune_operator.progress.endpoint import ProgressEndpoint
from finetune_operator.progress.sent_reports import SentReports
from finetune_operator.progress.store import ProgressStore
from finetune_operator.progress.traffic import TrafficStore


@dataclass
class Environment:
    """How this operator was started, and what training Pods have reported to it."""

    trainer_image: str | None = None
    """The trainer image of classes that name none."""
    gateway_image: str | None = None
    """The operator's own image, which holds the gateway of ModelDeployments."""
    namespace: str = "default"
    """The operator's own, where no tenant writes."""
    progress_endpoint: ProgressEndpoint | None = None
    """How Pods reach this operator, as soon as it leads; None: they can't."""
    progress: ProgressStore = field(default_factory=ProgressStore)
    sent_reports: SentReports = field(default_factory=SentReports)
    traffic: TrafficStore = field(default_factory=TrafficStore)
    """What gateways have counted of canaries."""
