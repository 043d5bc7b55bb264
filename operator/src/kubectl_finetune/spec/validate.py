"""`validate`: the checks of finetune_api and finetune_grading, and a dry run by the API server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune_view.fields import clean
from kubectl_finetune.cluster.kubectl import Kubectl, error_of
from kubectl_finetune.errors import ExitCode, NoAccessError, PluginError

if TYPE_CHECKING:
    from finetune_api.base import ApiModel

GROUP = "finetune.dev/"
UNCHECKED = (
    "Not checked: what the FineTuneClass allows, and whether models, data and Secrets are there and fit. The operator "
    "and the run's preflight check that, before an accelerator is asked for."
)
MOST_BYTES = 4 * 2**20
_NO_TEXT = frozenset({"int_type", "float_type", "bool_type"})


@dataclass(frozen=True)
class Document:
    """One YAML document of a file; `line`: where it begins."""

    line: int
    value: Any

    @property
    def kind(self) -> str:
        return clean(str(self.value.get("kind", ""))) if isinstance(self.value, dict) else ""

    @property
    def title(self) -> str:
        metadata = self.value.get("metadata") if isinstance(self.value, dict) else None
        name = metadata.get("name") if isinstance(metadata, dict) else None
        return f"line {self.line}: {self.kind or 'object'} {clean(str(name or 'without a name'))}"


def documents(text: str) -> list[Document]:
    """The YAML documents that are not empty. Raises PluginError that names the line."""
    import yaml

    if len(text) > MOST_BYTES:
        raise PluginError(f"The file is larger than {MOST_BYTES} bytes: is it YAML?")
    found = []
    try:
        for node in yaml.compose_all(text, Loader=yaml.SafeLoader):
            if node is not None:
                loader = yaml.SafeLoader("")
                found.append(Document(node.start_mark.line + 1, loader.construct_document(node)))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        raise PluginError(f"{where}not YAML: {clean(error.problem or 'syntax error')}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise PluginError(f"not YAML: {clean(str(error))[:200]}") from None
    return [document for document in found if document.value is not None]


def local_problems(document: Document) -> Iterator[str]:
    """What can't work in an object of one of our kinds, whatever is in the cluster: path and error."""
    from pydantic import ValidationError

    from finetune_api.base import faults
    from finetune_api.dataset import DatasetSpec
    from finetune_api.evaluation import EvaluationSpec
    from finetune_api.finetunejob import FineTuneJobSpec
    from finetune_api.kinds import KINDS
    from finetune_grading.evaluation_check import dataset_problem, grading_problem
    from finetune_grading.rewards import reward_problem

    value = document.value
    if not isinstance(value, dict) or not document.kind:
        yield "it is not an object with a kind"
        return
    if not str(value.get("apiVersion", "")).startswith(GROUP):
        return  # the API server knows it
    kind = next((kind for kind in KINDS if kind.name == document.kind), None)
    if kind is None:
        yield f"there is no kind {document.kind}; there are {', '.join(known.name for known in KINDS)}"
        return
    try:
        spec = kind.spec.from_wire(value.get("spec"))
    except ValidationError as error:
        for path, fault in faults(error).items():
            yield clean(f"{'.'.join(filter(None, ('spec', path)))}: {fault}")
        return
    yield from _quoted(kind.spec, value["spec"])
    problem = grading_problem(spec) if isinstance(spec, EvaluationSpec) else None
    if isinstance(spec, FineTuneJobSpec) and spec.method.rft is not None:
        problem = reward_problem(spec.method.rft)
    if isinstance(spec, DatasetSpec):
        problem = dataset_problem(spec)
    if problem is not None:
        yield clean(problem)


def _quoted(model: type[ApiModel], spec: Any) -> Iterator[str]:
    """Numbers and booleans in quotation marks, which are text for the API server; pydantic would convert them."""
    from pydantic import ValidationError

    from finetune_api.base import path_of

    try:
        model.model_validate_json(json.dumps(spec, default=str), strict=True)
    except ValidationError as error:
        for one in error.errors(include_url=False):
            if one["type"] in _NO_TEXT and isinstance(one["input"], str):
                yield clean(f"spec.{path_of(one['loc'])}: {one['input']!r} is text: write it without quotation marks")


def server_problems(kubectl: Kubectl, text: str) -> Iterator[str]:
    """What the API server refuses: schema, rules, policies, quota; nothing is written. Raises NoAccessError."""
    words = ("apply", "--dry-run=server", "--validate=strict", "-f", "-", "-o", "name")
    fine, _, stderr = kubectl.try_run(*words, given=text)
    if fine:
        return
    error = error_of(stderr)
    if isinstance(error, NoAccessError) or error.code is ExitCode.NOT_FOUND:
        raise error
    yield from (line for line in map(clean, stderr.splitlines()) if line.strip())
