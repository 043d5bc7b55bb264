"""The YAML of an imported Evaluation, with what a person must know as comments. Pure."""

from __future__ import annotations

from typing import Any

import yaml

from finetune_api.base import API_VERSION
from finetune_api.evaluation import EvaluationSpec
from finetune_grading.openai_graders.criteria import shown
from finetune_trainer.openai_evals.conversion import Conversion

_URL = "https://api.openai.com/v1"
_SECRET = "openai-key"  # noqa: S105 (its name)


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def evaluation_yaml(conversion: Conversion, spec: EvaluationSpec, notes: list[str]) -> str:
    """What the defaults say is left out."""
    comments = ["From an eval of OpenAI's Evals (docs/how-to/openai-evals.md)."]
    if notes:
        comments += ["Different here:", *(f"- {note}" for note in notes)]
    if conversion.models:
        comments.append("The FineTuneClass must list these models, under these names (spec.models):")
        comments += [
            f"- {{name: {ours}, url: {shown(_URL)}, model: {shown(theirs)}, credentialsSecretName: {_SECRET}}}"
            for theirs, ours in conversion.models.items()
        ]
    comments.append("It has no gates: add some, for example `gates: [{grader: NAME, minimumDelta: 0}]`.")
    document: dict[str, Any] = {
        "apiVersion": API_VERSION,
        "kind": "Evaluation",
        "metadata": {"name": conversion.name},
        "spec": spec.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True),
    }
    body = yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return "".join(f"# {_one_line(comment)}\n" for comment in comments) + body


def _one_line(text: str) -> str:
    """What YAML takes for a line break would end the comment."""
    return "".join(one if one.isprintable() else " " for one in text)
