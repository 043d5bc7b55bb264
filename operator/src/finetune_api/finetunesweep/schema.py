"""What the CRD of a sweep leaves out, so that it stays small: client-side `kubectl apply` stores it as an annotation.

Nothing that a sweep can do is left out: only what it refuses anyway, and descriptions that another place has.
"""

from __future__ import annotations

from typing import Any

from finetune_api.finetunejob import SETTINGS, Method

UNMEASURED: list[str] = [kind for kind, settings in SETTINGS.items() if not settings.rules.has_validation_loss]
"""The methods whose evaluations measure no loss, which trials could be compared by."""
_REWARD = "ValidReward"
_RULES = "x-kubernetes-validations"


def without_refused_methods(spec: dict[str, Any]) -> None:
    """Leave out what only methods without a validation loss have: their settings, their rules, their metric."""
    training = _at(spec, "template.spec")
    method, metric = _at(training, "method"), _at(training, "checkpoints.best.metric")
    for kind in UNMEASURED:
        member = Method.members()[kind]
        del method["properties"][member]
        _at(method, "type")["enum"].remove(kind)
        method[_RULES] = [rule for rule in method[_RULES] if rule["fieldPath"] != f".{member}"]
        of_kind = f"self.method.type != '{kind}' || "
        kept = [
            rule for rule in training[_RULES] if not rule["rule"].startswith(of_kind) and _REWARD not in rule["rule"]
        ]
        training[_RULES] = [_without(kind, rule) for rule in kept]
        for described in _all(training):
            described["description"] = _silent(kind, described["description"])
    metric["enum"].remove(_REWARD)


def _without(kind: str, rule: dict[str, str]) -> dict[str, str]:
    """A rule that names the methods that are possible, without this one."""
    among = rule["rule"].replace(f"'{kind}', ", "").replace(f", '{kind}'", "")
    message = rule["message"].replace(f"{kind} or ", "").replace(f" or {kind}", "")
    return {**rule, "rule": among, "message": message}


def _silent(kind: str, description: str) -> str:
    """A description without what it says of a method, or of the metric that only that one has."""
    found = description.replace(f"; {kind}: by {_REWARD})", ")")
    sentences = found.removesuffix(".").split(". ")
    return (
        ". ".join(one for one in sentences if not one.startswith((f"{kind}: ", f"{_REWARD}: ", f"With {_REWARD}")))
        + "."
    )


def with_short_descriptions(spec: dict[str, Any], status: dict[str, Any]) -> None:
    """Describe once, and say where, what an Evaluation or another field of the same kind has as well."""
    adapter = _at(spec, "template.spec.adapter")
    lora = {name: field["description"] for name, field in _at(adapter, "lora")["properties"].items()}
    quantized = _at(adapter, "qlora")
    quantized["description"] = "As lora, on a model quantized to 4 bits: https://arxiv.org/abs/2305.14314."
    for name, field in quantized["properties"].items():
        if field["description"] == lora.get(name):
            del field["description"]
    _refer(_at(spec, "smallestModel.gates"), "What must pass. As in an Evaluation (kubectl explain eval.spec.gates).")
    measuring = _at(spec, "objective.evaluation.template.spec")
    _refer(measuring, f"{measuring['description']} See kubectl explain eval.spec.")
    outputs = _at(status, "trials.outputs")
    outputs["description"] = "SmallestModel: what its outputs took. As in status.outputs of an Evaluation."
    del outputs["properties"]  # a status is not validated


def _refer(node: dict[str, Any], description: str) -> None:
    """Describe a field by where its own fields are described."""
    for inner in _all(node):
        del inner["description"]
    node["description"] = description


def _at(node: dict[str, Any], path: str) -> dict[str, Any]:
    """The schema of a field, by its path; of the items of a list, its fields."""
    for name in path.split("."):
        node = node.get("items", node)["properties"][name]
    return node


def _all(node: dict[str, Any]) -> list[dict[str, Any]]:
    """This schema and those below it that have a description."""
    inner = [*node.get("properties", {}).values(), *([node["items"]] if "items" in node else [])]
    return [*([node] if "description" in node else []), *(found for one in inner for found in _all(one))]
