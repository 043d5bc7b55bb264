"""Models of the class that a spec names: how a Pod asks them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from finetune_api.conditions import Reason
from finetune_api.finetuneclass import ListedModel
from finetune_api.finetuneclass.models import CONCURRENCY, REQUESTS_PER_MINUTE, TIMEOUT_SECONDS
from finetune_api.modeldeployment import UNKNOWN_REVISION, ModelDeploymentStatus
from finetune_api.pod_contracts.run import EndpointConfig
from finetune_operator.core.conditions import Readiness, progressing, stalled
from finetune_operator.finetuneclass.resolve import ResolvedClass


def listed_model(class_: ResolvedClass, name: str, asked_by: str) -> ListedModel | Readiness:
    """The entry of the class's models; `asked_by`: the start of a message, up to the verb: what names it."""
    listed: Mapping[str, ListedModel] = {model.name: model for model in class_.spec.models if model.base is None}
    if name in listed:
        return listed[name]
    return stalled(
        Reason.MODEL_NOT_LISTED,
        f"{asked_by} the model {name!r}, and FineTuneClass {class_.name!r} lists "
        f"{', '.join(listed) or 'none'}. Name one of these (`kubectl get ftc {class_.name} -o "
        "jsonpath='{.spec.models[*].name}'`), or ask the platform team to add it to spec.models.",
    )


def endpoint_config(model: ListedModel) -> EndpointConfig:
    """How to call a model that has a URL."""
    return EndpointConfig(
        name=model.name,
        url=model.url or "",
        model=model.model or model.name,
        secret_name=model.credentials_secret_name,
        ca_bundle=model.ca_bundle,
        requests_per_minute=model.requests_per_minute or REQUESTS_PER_MINUTE,
        concurrency=model.concurrency or CONCURRENCY,
        timeout_seconds=model.timeout_seconds or TIMEOUT_SECONDS,
        prices=model.prices,
    )


def model_keys(endpoints: Sequence[EndpointConfig]) -> dict[str, str]:
    """The Secrets with their keys, by the model."""
    return {one.name: one.secret_name for one in endpoints if one.secret_name is not None}


def deployed_endpoint(model: ListedModel, deployment: str, status: ModelDeploymentStatus) -> EndpointConfig | Readiness:
    """How to call a model that a ModelDeployment serves; `deployment`: its name, for messages."""
    if status.url is None or status.revision is None or not status.ready_replicas:
        return progressing(
            Reason.WAITING_FOR_MODEL,
            f"{deployment} of the class's model {model.name!r} does not serve ({status.phase or 'new'}).",
        )
    if status.canary is not None and status.canary.percent:
        return progressing(
            Reason.WAITING_FOR_MODEL,
            f"{deployment} of the class's model {model.name!r} has a canary, {status.canary.revision}, which answers "
            "some requests. It is asked once one revision serves alone.",
        )
    answering = [one.revision for one in status.revisions if one.ready_replicas]
    if status.revision == UNKNOWN_REVISION and len(answering) < 2:
        return progressing(
            Reason.WAITING_FOR_MODEL,
            f"{deployment} of the class's model {model.name!r} serves an unknown model: its run "
            "configuration is gone or changed. It is asked once a known revision serves alone.",
        )
    if len(answering) > 1:
        return progressing(
            Reason.WAITING_FOR_MODEL,
            f"{deployment} of the class's model {model.name!r} is rolling out: {' and '.join(answering)} answer. It is "
            "asked once one known revision serves alone.",
        )
    served = {"url": status.url, "model": status.model_name or model.name, "digest": status.revision}
    return endpoint_config(model).model_copy(update=served)
