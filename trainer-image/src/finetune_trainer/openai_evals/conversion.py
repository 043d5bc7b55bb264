"""An eval and a run as the spec of an Evaluation, and what its class needs. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from finetune_api.base import problems
from finetune_api.evaluation import Candidate, EvaluationSpec, Generation
from finetune_api.graders import Grader
from finetune_grading.openai_graders.criteria import reference_of, shown, translate_criteria
from finetune_grading.openai_graders.documents import Message, Sampling
from finetune_grading.openai_graders.findings import Findings
from finetune_grading.openai_graders.names import UniqueNames, slug
from finetune_grading.openai_graders.variables import reads
from finetune_grading.templates import TemplateError
from finetune_trainer.openai_evals.documents import DataSource, Eval, InputMessages
from finetune_trainer.openai_evals.rows import Prompting, rewrite
from finetune_trainer.openai_evals.variables import renamed_field, translate

LONGEST_NAME = 63
_DATA_SOURCES = ("jsonl", "completions", "responses")
_SOURCES = ("file_content", "file_id")


@dataclass(frozen=True)
class Wishes:
    """What the command line says."""

    candidate: str | None = None
    name: str | None = None
    prompt: str | None = None
    without: Collection[str] = ()


@dataclass(frozen=True)
class Conversion:
    """An Evaluation but for its dataset's place."""

    name: str
    graders: list[Grader]
    generation: dict[str, Any]
    candidate: dict[str, Any]
    baseline_model: str | None
    """The name of the model that the run asked, in the class."""
    models: Mapping[str, str]
    """The names in the class, by OpenAI's."""
    prompting: Prompting

    def spec(self, folder: str, with_outputs: bool) -> EvaluationSpec:
        """Raises ValidationError."""
        baseline: dict[str, Any] = {}
        if self.baseline_model is not None:
            baseline = {"baseline": {"model": {"endpoint": {"name": self.baseline_model}}}}
        elif with_outputs:
            baseline = {"baseline": {"model": {"outputs": {"uri": f"{folder}/{self.name}-outputs.jsonl"}}}}
        return EvaluationSpec.from_wire(
            {
                "candidates": [self.candidate],
                **baseline,
                "dataset": {"uri": f"{folder}/{self.name}.jsonl"},
                "graders": [
                    grader.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True)
                    for grader in self.graders
                ],
                **({"generation": self.generation} if self.generation else {}),
            }
        )


def convert(given: Eval, run: DataSource | None, wishes: Wishes, findings: Findings) -> Conversion:
    """Everything but the data; what can't be translated is in `findings`."""
    models = UniqueNames()
    graders = translate_criteria(given.testing_criteria, renamed_field, models, findings, wishes.without)
    name = _name(given, wishes, findings)
    sampling = None if run is None else run.sampling_params
    if run is not None:
        _check_run(run, findings)
    return Conversion(
        name=name,
        graders=graders,
        generation=_generation(sampling, findings),
        candidate=_candidate(wishes.candidate or name, findings),
        baseline_model=None if run is None or run.model is None else models.of(run.model),
        models=models.given,
        prompting=Prompting(_inputs(run, wishes, findings), _tools(sampling, findings), reference_of(graders)),
    )


def _name(given: Eval, wishes: Wishes, findings: Findings) -> str:
    if wishes.name is not None:
        if slug(wishes.name, LONGEST_NAME) != wishes.name:
            findings.refuse(
                "--name",
                f"{shown(wishes.name)} is not a valid name: use lower-case letters, digits and hyphens.",
            )
        return wishes.name
    found = slug(given.name or given.id or "", LONGEST_NAME)
    if not found:
        findings.refuse("name", f"{shown(given.name)} has no letter or digit to name an object by; set --name.")
    return found


def _candidate(candidate: str, findings: Findings) -> dict[str, Any]:
    model = {"uri": candidate} if "://" in candidate else {"fineTuneJobRef": {"name": candidate}}
    wire = {"name": "tuned", "model": model}
    try:
        Candidate.from_wire(wire)
    except ValidationError as error:
        findings.refuse("--candidate", problems(error))
    return wire


def _check_run(run: DataSource, findings: Findings) -> None:
    if run.type not in _DATA_SOURCES:
        findings.refuse("data_source.type", f"{shown(run.type)} is not one of {', '.join(_DATA_SOURCES)}.")
    elif run.source.type not in _SOURCES:
        findings.refuse(
            "data_source.source.type",
            f"{shown(run.source.type)} is data that only OpenAI has. Save the run's output items as JSON Lines, and "
            "give them as --data, without --run.",
        )
    findings.leave_out("data_source", run.unknown)


def _generation(sampling: Sampling | None, findings: Findings) -> dict[str, Any]:
    if sampling is None:
        return {}
    place = "data_source.sampling_params"
    findings.leave_out(place, sampling.unknown)
    settings = {"maxTokens": sampling.max_tokens, "temperature": sampling.temperature, "seed": sampling.seed}
    if sampling.temperature and sampling.top_p is not None and 0 < sampling.top_p < 1:
        settings["topP"] = sampling.top_p
    elif sampling.top_p not in (None, 1):  # Greedy outputs have none.
        findings.leave_out(place, ["top_p"])
    wire = {name: value for name, value in settings.items() if value is not None}
    try:
        Generation.from_wire(wire)
    except ValidationError as error:
        findings.refuse(place, problems(error))
    return wire


def _tools(sampling: Sampling | None, findings: Findings) -> list[dict[str, Any]]:
    """Chat Completions and Responses spell functions differently."""
    found = []
    for at, tool in enumerate(sampling.tools or () if sampling is not None else ()):
        match tool:
            case {"type": "function", "function": {"name": str()}}:
                found.append(dict(tool))
            case {"type": "function", "name": str()}:
                found.append(
                    {"type": "function", "function": {key: value for key, value in tool.items() if key != "type"}}
                )
            case _:
                findings.refuse(f"data_source.sampling_params.tools[{at}]", "only functions are supported.")
    return found


def _inputs(run: DataSource | None, wishes: Wishes, findings: Findings) -> InputMessages | None:
    if wishes.prompt is not None:
        place, given = (
            "--prompt",
            InputMessages(type="template", template=[Message(role="user", content=wishes.prompt)]),
        )
    elif run is None or run.input_messages is None:
        return None
    else:
        place, given = "data_source.input_messages", run.input_messages
        findings.leave_out(place, given.unknown)
    if given.type == "item_reference":
        return _reference(f"{place}.item_reference", given, findings)
    messages = [_message(f"{place}.template[{at}]", one, findings) for at, one in enumerate(given.template or ())]
    if not messages:
        findings.refuse(f"{place}.template", "it has no message.")
    return given.model_copy(update={"template": messages})


def _message(place: str, message: Message, findings: Findings) -> Message:
    def write(text: str) -> str:
        translated = translate(text)
        if reads(translated, "sample"):
            raise TemplateError("there is no sample yet when the model is asked.")
        return translated

    findings.leave_out(place, message.unknown)
    try:
        return rewrite(message, write)
    except ValueError as error:
        findings.refuse(f"{place}.content", str(error))
        return message


def _reference(place: str, given: InputMessages, findings: Findings) -> InputMessages:
    """`item.input_trajectory`, with or without braces."""
    bare = (given.item_reference or "").strip().removeprefix("{{").removesuffix("}}").strip()
    try:
        template = translate(f"{{{{{bare}}}}}")
        if not reads(template, "item"):
            raise TemplateError(f"{shown(bare)} is no field of an item.")
    except TemplateError as error:
        findings.refuse(place, str(error))
        return given
    return given.model_copy(update={"item_reference": template[2:-2]})
