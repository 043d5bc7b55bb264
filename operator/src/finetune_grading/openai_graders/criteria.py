"""OpenAI's testing criteria as graders of an Evaluation. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from finetune_api.base import problems
from finetune_api.evaluation import MOST_GRADERS
from finetune_api.graders import Grader
from finetune_grading.graders.interface import InvalidGraderError
from finetune_grading.openai_graders.documents import (
    CRITERIA,
    Criterion,
    LabelModel,
    Message,
    Multi,
    Python,
    Sampling,
    ScoreModel,
    StringCheck,
    TextSimilarity,
)
from finetune_grading.openai_graders.findings import Findings
from finetune_grading.openai_graders.names import UniqueNames
from finetune_grading.openai_graders.sources import with_fields_of_openai
from finetune_grading.openai_graders.variables import Rename, reads, translate
from finetune_grading.registered_graders import check_graders
from finetune_grading.templates import TemplateError

_OPERATIONS = {"eq": "Eq", "ne": "Ne", "like": "Like", "ilike": "ILike"}
_METRICS = {
    "cosine": "Cosine",
    "fuzzy_match": "FuzzyMatch",
    "bleu": "BLEU",
    "gleu": "GLEU",
    "meteor": "METEOR",
    **{f"rouge_{n}": f"ROUGE{n}" for n in (1, 2, 3, 4, 5)},
    "rouge_l": "ROUGEL",
}
COSINE_MODEL = "text-embedding-3-large"
"""By which OpenAI's cosine embeds."""
_UNREAD = {
    "endpoint": "graders behind a URL are not supported",
}
_NAME = re.compile(r"(?<![\w.])[A-Za-z_]\w*\b(?!\s*\()")
"""Of a grader in a formula, and not of a function."""


def translate_criteria(
    criteria: Sequence[Mapping[str, Any]],
    rename: Rename,
    models: UniqueNames,
    findings: Findings,
    without: Collection[str] = (),
) -> list[Grader]:
    """The graders, checked as an evaluation checks them. `without`: names of criteria to leave out."""
    return _Criteria(rename, models, findings).translate(criteria, without)


def translate_grader(value: Mapping[str, Any], findings: Findings) -> list[Grader]:
    """One grader as a reward that reads items as they are, after those of a multi; empty if it is refused."""
    criteria = _Criteria(lambda field: field, UniqueNames(), findings, as_rewards=True)
    return criteria.translate_one("grader", value)


def reference_of(graders: Sequence[Grader]) -> str | None:
    """What an output is first compared with, if it is of the example alone."""
    for grader in graders:
        spec = grader.string_check or grader.text_similarity
        for template in () if spec is None else (spec.reference, spec.input):
            if reads(template, "item") and not reads(template, "sample"):
                return template
    return None


class _Criteria:
    def __init__(self, rename: Rename, models: UniqueNames, findings: Findings, *, as_rewards: bool = False) -> None:
        self._rename = rename
        self._as_rewards = as_rewards
        self._models = models
        self._findings = findings
        self._names = UniqueNames()
        self._graders: list[Grader] = []

    def translate(self, criteria: Sequence[Mapping[str, Any]], without: Collection[str]) -> list[Grader]:
        left_out = set()
        for at, value in enumerate(criteria):
            name = value.get("name")
            place = f"testing_criteria[{at}]" + (f" {shown(name)}" if isinstance(name, str) else "")
            if name in without:
                left_out.add(name)
                self._findings.note(place, "left out, as asked for with --without.")
            else:
                self._add(place, value)
        for name in sorted(set(without) - left_out):
            self._findings.refuse("--without", f"there is no criterion {shown(name)}.")
        if len(self._graders) > MOST_GRADERS:
            self._findings.refuse(
                "testing_criteria",
                f"they are {len(self._graders)} graders, and an Evaluation has at most {MOST_GRADERS}. Leave some out "
                "with --without NAME, and import them as another Evaluation.",
            )
        if not self._graders and not self._findings.refused:
            self._findings.refuse("testing_criteria", "no criterion is left.")
        return self._graders

    def translate_one(self, place: str, value: Mapping[str, Any]) -> list[Grader]:
        self._add(place, value)
        return [] if self._findings.refused else self._graders

    def _add(self, place: str, value: Mapping[str, Any]) -> Grader | None:
        criterion = self._read(place, value)
        if criterion is None:
            return None
        before = len(self._findings.refused)
        members = self._members(place, criterion)
        if len(self._findings.refused) > before:
            return None
        return self._checked(place, {"name": self._name(place, criterion.name), **members})

    def _read(self, place: str, value: Mapping[str, Any]) -> Criterion | None:
        kind = value.get("type")
        if not isinstance(kind, str) or kind not in CRITERIA:
            why = _UNREAD.get(str(kind), f"there is no equivalent of type {shown(kind)}")
            self._findings.refuse(f"{place}.type", f"{why}.")
            return None
        try:
            criterion = CRITERIA[kind].model_validate(value)
        except ValidationError as error:
            self._findings.refuse(place, problems(error))
            return None
        self._findings.leave_out(place, criterion.unknown)
        return criterion

    def _members(self, place: str, criterion: Criterion) -> dict[str, Any]:
        threshold = {} if criterion.pass_threshold is None else {"passThreshold": criterion.pass_threshold}
        match criterion:
            case StringCheck():
                operation = _OPERATIONS[criterion.operation]
                return {
                    **threshold,
                    "type": "StringCheck",
                    "stringCheck": {**self._pair(place, criterion), "operation": operation},
                }
            case TextSimilarity():
                metric = _METRICS[criterion.evaluation_metric]
                model = {"model": self._models.of(COSINE_MODEL)} if metric == "Cosine" else {}
                settings = {**self._pair(place, criterion), "metric": metric, **model}
                return {**threshold, "type": "TextSimilarity", "textSimilarity": settings}
            case ScoreModel():
                return self._score_model(place, criterion)
            case LabelModel():
                labels = {
                    **self._asked(place, criterion),
                    "labels": criterion.labels,
                    "passingLabels": criterion.passing_labels,
                }
                return {**threshold, "type": "LabelModel", "labelModel": labels}
            case Python():
                return {**threshold, "type": "Python", "python": {"source": self._source(place, criterion)}}
            case Multi():
                return {**threshold, "type": "Multi", "multi": {"calculateOutput": self._formula(place, criterion)}}

    def _score_model(self, place: str, criterion: ScoreModel) -> dict[str, Any]:
        """OpenAI's threshold is a number of the range, ours a score from 0 to 1."""
        settings = self._asked(place, criterion)
        least, most = criterion.range or (0.0, 1.0)
        if criterion.range is not None:
            settings["range"] = criterion.range
        threshold = {}
        if criterion.pass_threshold is not None and least < most:
            scaled = (criterion.pass_threshold - least) / (most - least)
            threshold = {"passThreshold": round(scaled, 12)}
            if not 0 < scaled <= 1:
                self._findings.refuse(
                    f"{place}.pass_threshold",
                    f"{criterion.pass_threshold:g} is not in ({least:g}, {most:g}]: every output would pass, or none.",
                )
        return {**threshold, "type": "ScoreModel", "scoreModel": settings}

    def _source(self, place: str, criterion: Python) -> str:
        if criterion.image_tag is not None:
            self._findings.note(
                f"{place}.image_tag", "not translated: the code gets the packages of the trainer's image."
            )
        renamed = with_fields_of_openai(criterion.source, self._rename)
        if renamed != criterion.source:
            self._findings.note(f"{place}.source", "lines at its end give the item's fields their names back.")
        return renamed

    def _formula(self, place: str, criterion: Multi) -> str:
        """The graders inside become graders of the list, and scores what they are to OpenAI: numbers of their range."""
        inside = {"": criterion.graders} if isinstance(criterion.graders.get("type"), str) else criterion.graders
        if len(inside) >= MOST_GRADERS:
            self._findings.refuse(f"{place}.graders", f"they are {len(inside)}, and may be {MOST_GRADERS - 1}.")
            return ""
        scores: dict[str, str] = {}
        for key, value in inside.items():
            where = f"{place}.graders" + (f"[{shown(key)}]" if key else "")
            if not isinstance(value, Mapping):
                self._findings.refuse(where, "a grader is expected.")
                continue
            if value.get("type") == "multi":
                self._findings.refuse(where, "a multi grader within another is not supported, as with OpenAI.")
                continue
            grader = self._add(where, {**value, "name": key} if key else value)
            if grader is not None:
                scores[key or str(value.get("name"))] = _in_its_range(grader)

        def renamed(found: re.Match[str]) -> str:
            return scores.get(found[0], found[0])

        return _NAME.sub(renamed, criterion.calculate_output)

    def _pair(self, place: str, criterion: StringCheck | TextSimilarity) -> dict[str, str]:
        return {
            "input": self._template(f"{place}.input", criterion.input),
            "reference": self._template(f"{place}.reference", criterion.reference),
        }

    def _asked(self, place: str, criterion: ScoreModel | LabelModel) -> dict[str, Any]:
        messages = [
            message for at, one in enumerate(criterion.input) for message in self._messages(f"{place}.input[{at}]", one)
        ]
        sampling = self._sampling(f"{place}.sampling_params", criterion.sampling_params)
        settings: dict[str, Any] = {"model": self._models.of(criterion.model), "input": messages}
        return settings | ({"sampling": sampling} if sampling else {})

    def _messages(self, place: str, message: Message) -> list[dict[str, str]]:
        """One message for each part of a content."""
        self._findings.leave_out(place, message.unknown)
        parts = message.content if isinstance(message.content, list) else [message.content]
        found = []
        for at, part in enumerate(parts):
            where = f"{place}.content" + (f"[{at}]" if isinstance(message.content, list) else "")
            match part:
                case str(text) | {"type": "input_text" | "output_text" | "text", "text": str(text)}:
                    found.append({"role": message.role.capitalize(), "content": self._template(where, text)})
                case {"type": str(kind)}:
                    what = "images" if "image" in kind else f"content of type {shown(kind)}"
                    self._findings.refuse(where, f"graders read no {what}, only text.")
                case _:
                    self._findings.refuse(where, "text, or a part with text, is expected.")
        return found

    def _sampling(self, place: str, sampling: Sampling | None) -> dict[str, Any]:
        if sampling is None:
            return {}
        self._findings.leave_out(place, sampling.unknown)
        found = {
            "temperature": sampling.temperature,
            "topP": sampling.top_p,
            "seed": sampling.seed,
            "maxTokens": sampling.max_tokens,
        }
        return {name: value for name, value in found.items() if value is not None}

    def _template(self, place: str, template: str) -> str:
        try:
            return translate(template, self._rename)
        except TemplateError as error:
            self._findings.refuse(place, str(error))
            return template

    def _name(self, place: str, name: str) -> str:
        found = self._names.new(name)
        if found != name:
            self._findings.note(f"{place}.name", f"the grader is called {found}.")
        return found

    def _checked(self, place: str, wire: dict[str, Any]) -> Grader | None:
        """A Multi reads the graders before it."""
        try:
            grader = Grader.from_wire(wire)
            others = self._graders if grader.type == "Multi" else []
            check_graders([*others, grader], as_rewards=self._as_rewards)
        except ValidationError as error:
            self._findings.refuse(place, problems(error))
            return None
        except InvalidGraderError as error:
            self._findings.refuse(place, error.problem)
            return None
        self._graders.append(grader)
        return grader


def _in_its_range(grader: Grader) -> str:
    """A grader's score in a formula."""
    name = grader.name.replace("-", "_")
    if grader.score_model is None or grader.score_model.range == [0.0, 1.0]:
        return name
    least, most = grader.score_model.range
    return f"({least!r} + {most - least!r} * {name})"


def shown(value: object) -> str:
    """On one line, whatever it contains."""
    return json.dumps(value)[:80]
