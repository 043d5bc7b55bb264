"""Which requests are put to the models: those of sets, or those that come with the trainer, each in every form."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune_api.conditions import Reason
from finetune_api.evaluation.safety import ALL, Converter, PromptSet, Safety
from finetune_api.finetunejob import DatasetSource
from finetune_trainer.data.read.data_files import corrected, fetch_files
from finetune_trainer.data.read.jsonl import LineError
from finetune_trainer.evaluation.safety.converters import CONVERTERS
from finetune_trainer.evaluation.safety.own_prompts import BENIGN, HARMFUL
from finetune_trainer.outputs.heldout import HeldOutExample, Prompt, exact_records
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage.storage import Storage

OWN = "built-in"
UNNAMED = "Other"
LONGEST_PROMPT = 32 * 1024
MOST_CATEGORIES = 32
_CATEGORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _./&-]{0,39}")


@dataclass(frozen=True)
class Request:
    """What is asked, before it is put in any form."""

    set: str
    line: int
    category: str
    text: str

    @property
    def key(self) -> tuple[str, int]:
        """What tells it from another one."""
        return self.set, self.line


@dataclass(frozen=True)
class Attempt:
    """A request in one form."""

    request: Request
    converter: Converter
    is_benign: bool = False

    @property
    def example(self) -> HeldOutExample:
        """As models get it."""
        text = CONVERTERS[self.converter](self.request.text)
        return HeldOutExample(self.request.line, Prompt(({"role": "user", "content": text},)), {})


def attempts_of(settings: Safety, storage: Storage, allowed: Sequence[str]) -> list[Attempt]:
    """Every harmful request in every form, then the harmless ones as they are. Raises DiagnosedError."""
    harmful = _requests(settings.prompt_sets, HARMFUL, settings.limit_prompts, storage, allowed)
    benign = _requests(settings.benign_sets, BENIGN, settings.limit_prompts, storage, allowed)
    return [
        *(Attempt(request, converter) for request in harmful for converter in settings.converters),
        *(Attempt(request, "None", is_benign=True) for request in benign),
    ]


def _requests(
    sets: Sequence[PromptSet],
    own: Mapping[str, Sequence[str]],
    limit: int | None,
    storage: Storage,
    allowed: Sequence[str],
) -> list[Request]:
    if not sets:
        named = [(category, text) for category, texts in own.items() for text in texts]
        found = [Request(OWN, line, category, text) for line, (category, text) in enumerate(named, start=1)]
    else:
        found = [request for one in sets for request in _read(one, storage, allowed)]
    categories = dict.fromkeys(request.category for request in found)
    if len(categories) > MOST_CATEGORIES:
        raise DiagnosedError(
            Reason.DATASET_INVALID,
            f"The requests of spec.safety have {len(categories)} categories, and there may be {MOST_CATEGORIES}.",
        )
    return _spread(found, limit)


def _spread(requests: Sequence[Request], limit: int | None) -> list[Request]:
    """At most so many, of all categories alike, in their order."""
    if limit is None or limit >= len(requests):
        return list(requests)
    places: dict[str, int] = {}
    ranked = []
    for at, request in enumerate(requests):
        places[request.category] = places.get(request.category, 0) + 1
        ranked.append((places[request.category], at))
    return [requests[at] for at in sorted(at for _, at in sorted(ranked)[:limit])]


def _read(prompts: PromptSet, storage: Storage, allowed: Sequence[str]) -> list[Request]:
    found: list[Request] = []
    with tempfile.TemporaryDirectory(prefix="prompts-") as directory:
        for file in fetch_files(storage, DatasetSource(uri=prompts.uri), Path(directory), allowed=allowed):
            for item in exact_records(file.path):
                if isinstance(item, LineError):
                    raise _invalid(prompts, file.uri, item.line, item.message)
                _, record = item
                found.append(_request(prompts, file.uri, len(found) + 1, record.line, record.value))
    if not found:
        raise DiagnosedError(
            Reason.DATASET_INVALID,
            f"The prompt set {prompts.name!r} of spec.safety ({prompts.uri}) is empty. {corrected(prompts.uri)}.",
        )
    return found


def _request(prompts: PromptSet, uri: str, number: int, line: int, value: object) -> Request:
    match value:
        case {"prompt": str(text), **rest} if text.strip() and len(text) <= LONGEST_PROMPT:
            category = rest.get("category", UNNAMED)
        case _:
            raise _invalid(prompts, uri, line, f"'prompt' must be a text of at most {LONGEST_PROMPT} characters.")
    if not isinstance(category, str) or not _CATEGORY.fullmatch(category) or category == ALL:
        raise _invalid(
            prompts, uri, line, f"'category' must be a name of at most 40 letters, digits and spaces, and not {ALL!r}."
        )
    return Request(prompts.name, number, category, text)


def _invalid(prompts: PromptSet, uri: str, line: int, message: str) -> DiagnosedError:
    return DiagnosedError(
        Reason.DATASET_INVALID,
        f"The prompt set {prompts.name!r} of spec.safety: line {line} of {uri}: {message} {corrected(uri)}.",
    )
