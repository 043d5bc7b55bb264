"""Screening: which examples of the sets are flagged, by which rule or category. No flagged text is shown."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
import structlog

from finetune_api.conditions import Reason
from finetune_api.finetunejob import DatasetFindings
from finetune_api.graders import GraderErrorCode
from finetune_api.model_usage import ModelUsage
from finetune_api.safety.classifier import Classifier
from finetune_api.safety.screening import (
    MOST_FINDINGS,
    SHOWN_LINES,
    UNCLASSIFIED,
    Screening,
    ScreeningFinding,
    ScreeningStatus,
)
from finetune_grading.grade import GradeError, RowError
from finetune_grading.judge import StopGradingError
from finetune_trainer.data.images.images import ImageError, ImageStore, blank, images_of, load, to_data_uri
from finetune_trainer.data.read.data_files import corrected
from finetune_trainer.data.read.examples import Example
from finetune_trainer.data.read.messages import ImageUrl
from finetune_trainer.data.screen.classifier import harmful_categories, try_classifier
from finetune_trainer.data.screen.rules import rules_that_flag
from finetune_trainer.data.screen.texts import exchange
from finetune_trainer.data.select.filters import Mask
from finetune_trainer.data.select.survey import Survey
from finetune_trainer.endpoints.endpoint import Endpoint
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.process.progress_log import log_progress

ASKED_AT_ONCE = 1024
"""Examples in memory while the classifier is asked about them."""
SEEN_AT_ONCE = 32
"""The same where it is asked about their images, which may lie in the lines."""
LONGEST_SECONDS = 5 * 3600
"""What asking may take: less than a preflight may."""

_log = structlog.get_logger()


@dataclass
class SetFlags:
    """What is flagged of one set: positions by rule or category, in ascending order."""

    survey: Survey
    positions: dict[str, list[int]] = field(default_factory=dict)

    def add(self, position: int, names: Iterable[str]) -> None:
        """Flag an example."""
        for name in names:
            self.positions.setdefault(name, []).append(position)

    @property
    def mask(self) -> Mask:
        """Whether each example is flagged by anything."""
        mask = np.zeros(len(self.survey), dtype=bool)
        for positions in self.positions.values():
            mask[positions] = True
        return mask

    def shown_lines(self, name: str) -> list[str]:
        """The first lines that are flagged so, with the file if there are several."""
        places = [self.survey.place(position) for position in self.positions[name][:SHOWN_LINES]]
        several = len(self.survey.files) > 1
        return [f"{place.uri}:{place.line}"[-1000:] if several else str(place.line) for place in places]


@dataclass(frozen=True)
class Screened:
    """What is flagged of both sets."""

    settings: Screening
    sets: tuple[SetFlags, ...]
    usage: ModelUsage | None = None
    field: str = "dataset.screening"
    """Of the spec, for messages."""

    @property
    def drops(self) -> bool:
        """Whether what is flagged is left out."""
        return self.settings.action == "Drop"

    def unwanted(self, survey: Survey | None) -> Mask | None:
        """Which examples of a set are left out; None: nothing is."""
        mine = [flags for flags in self.sets if flags.survey is survey]
        return mine[0].mask if self.drops and mine else None

    @property
    def status(self) -> ScreeningStatus:
        """For the job's status; the lines of the largest findings."""
        findings = [
            ScreeningFinding(file=flags.survey.name, rule=name, examples=len(at), lines=flags.shown_lines(name))
            for flags in self.sets
            for name, at in flags.positions.items()
        ]
        return ScreeningStatus(
            examples=sum(len(flags.survey) for flags in self.sets),
            flagged=sum(int(flags.mask.sum()) for flags in self.sets),
            findings=sorted(findings, key=lambda one: (-one.examples, one.file, one.rule))[:MOST_FINDINGS],
            usage=self.usage,
        )

    def sentences(self) -> Iterator[str]:
        """A sentence for each set in which something is flagged."""
        for flags in self.sets:
            count = int(flags.mask.sum())
            if count:
                left_out = "; they are left out" if self.drops else ""
                yield (
                    f"{count} of {len(flags.survey)} {flags.survey.name} examples are flagged by {self.field}"
                    f"{left_out}: {_by_rule(flags)}."
                )

    def refuse_flagged(self) -> None:
        """Raises DiagnosedError (DatasetInvalid) with action Fail, if anything is flagged."""
        if self.settings.action != "Fail" or not self.status.flagged:
            return
        first = next(flags.survey.files[0].uri for flags in self.sets if flags.positions)
        raise DiagnosedError(
            Reason.DATASET_INVALID,
            f"{' '.join(self.sentences())} {corrected(first)}, without these lines: it is checked again automatically. "
            "Or leave them out by dataset.screening.action Drop, with a changed runId.",
            dataset=DatasetFindings(format=self.sets[0].survey.format, screening=self.status),
        )

    def findings(self, most: int) -> Iterator[Mapping[str, object]]:
        """The flagged lines, at most so many of each rule and set, for dataset-findings.jsonl."""
        for flags in self.sets:
            for name, positions in flags.positions.items():
                for place in map(flags.survey.place, positions[:most]):
                    yield {
                        "kind": "screening",
                        "set": flags.survey.name,
                        "uri": place.uri,
                        "line": place.line,
                        "rule": name,
                        "dropped": self.drops,
                    }


def _by_rule(flags: SetFlags) -> str:
    """`Secret 3 (line 4, 9, 12), IBAN 1 (line 4)`."""
    ordered = sorted(flags.positions, key=lambda name: -len(flags.positions[name]))
    parts = []
    for name in ordered:
        shown, count = flags.shown_lines(name)[:5], len(flags.positions[name])
        more = ", ..." if count > len(shown) else ""
        parts.append(f"{name} {count} (line {', '.join(shown)}{more})")
    return ", ".join(parts)


def screen(
    sets: Sequence[Survey],
    settings: Screening,
    classifier: Endpoint | None,
    images: ImageStore,
    field: str = "dataset.screening",
) -> Screened:
    """Flag the examples of every set. `classifier`: the model that settings.classifier names; `field`: of the spec.

    Raises DiagnosedError: the classifier can't be asked, or does not reply in its format.
    """
    flagged = tuple(SetFlags(survey) for survey in sets)
    with log_progress("screening by rules"):
        for flags in flagged:
            for position, (_, item) in enumerate(flags.survey.examples()):
                flags.add(position, rules_that_flag(item.example, settings.rules))
    usage = None
    if settings.classifier is not None and classifier is not None:
        seen = images if settings.images else None
        _refuse_too_slow(sum(_requests(survey, seen) for survey in sets), classifier, field)
        with log_progress("screening by the classifier", lambda: {"requests": classifier.usage.requests}):
            _classify(flagged, _Asked(settings.classifier, classifier, seen), field)
        usage = classifier.usage
    found = Screened(settings, flagged, usage, field)
    _log.info(f"{found.status.flagged} of {found.status.examples} examples are flagged by {field}")
    return found


def _requests(survey: Survey, images: ImageStore | None) -> int:
    """How often the classifier is asked about a set."""
    if images is None:
        return len(survey)
    return sum(max(1, len(images_of(item.example))) for _, item in survey.examples())


def _refuse_too_slow(requests: int, classifier: Endpoint, field: str) -> None:
    config = classifier.config
    seconds = requests * 60 / config.requests_per_minute
    if seconds <= LONGEST_SECONDS:
        return
    raise DiagnosedError(
        Reason.LIMIT_EXCEEDED,
        f"The model {config.name!r} of the class may be asked {config.requests_per_minute} times a minute: for "
        f"{requests} requests that takes {seconds / 3600:.0f} hours, and screening has {LONGEST_SECONDS // 3600}. Ask "
        f"the platform team to raise its requestsPerMinute, or leave {field}.classifier out.",
    )


def _used_up(what: str, examples: int) -> DiagnosedError:
    return DiagnosedError(
        Reason.LIMIT_EXCEEDED,
        f"{what} The classifier has not judged all of the {examples} examples, and what is not judged is neither "
        "dropped nor trained on. Raise the budget and change spec.runId: what has been answered is kept, and costs "
        "nothing.",
    )


class _Asked:
    """The classifier, as it is asked about examples. `images`: where theirs are kept; None: it is shown none."""

    def __init__(self, settings: Classifier, endpoint: Endpoint, images: ImageStore | None) -> None:
        self.settings = settings
        self.endpoint = endpoint
        self.images = images
        # No more images are in memory than are asked about.
        self._slots = asyncio.Semaphore(endpoint.config.concurrency)

    async def try_out(self, field: str) -> None:
        """Raises DiagnosedError, StopGradingError."""
        image = None if self.images is None else to_data_uri(blank())
        await try_classifier(self.endpoint, self.settings, f"{field}.classifier", image)

    async def categories(self, example: Example) -> list[str]:
        """Those by which an example is harmful, by its texts or by any image. Raises RowError, StopGradingError."""
        found = exchange(example)
        seen = [] if self.images is None else images_of(example)
        if not seen:
            return await harmful_categories(self.endpoint, self.settings, found)
        named: dict[str, None] = {}
        for image in seen:
            async with self._slots:
                asked = replace(found, image=await asyncio.to_thread(self._data_uri, image))
                named |= dict.fromkeys(await harmful_categories(self.endpoint, self.settings, asked))
        return list(named)

    def _data_uri(self, image: ImageUrl) -> str:
        assert self.images is not None
        try:
            return to_data_uri(load(self.images.keep(image)))
        except ImageError as error:
            raise RowError(GraderErrorCode.SAMPLE_PARSE_ERROR, f"An image can't be read: {error}.") from error


def _classify(flagged: Sequence[SetFlags], asked: _Asked, field: str) -> None:
    async def ask() -> None:
        async with asked.endpoint.connected():
            await asked.try_out(field)
            for flags in flagged:
                await _classify_set(flags, asked)

    try:
        asyncio.run(ask())
    except StopGradingError as stop:
        assert stop.__cause__ is not None, "it says why"
        raise stop.__cause__ from None


async def _classify_set(flags: SetFlags, asked: _Asked) -> None:
    async def verdict(example: Example) -> list[str] | GradeError:
        try:
            return await asked.categories(example)
        except RowError as failure:
            return failure.error

    items = enumerate(item.example for _, item in flags.survey.examples())
    while some := list(islice(items, ASKED_AT_ONCE if asked.images is None else SEEN_AT_ONCE)):
        verdicts = await asyncio.gather(*(verdict(example) for _, example in some))
        for (position, _), result in zip(some, verdicts, strict=True):
            if not isinstance(result, GradeError):
                flags.add(position, result)
            elif result.code is GraderErrorCode.BUDGET_EXCEEDED:
                raise _used_up(result.details, len(flags.survey))
            elif result.passing:
                # What fails by chance must not decide what is trained on; the answers so far are kept.
                raise DiagnosedError(Reason.ENDPOINT_UNREACHABLE, result.details, retryable=True)
            else:
                flags.add(position, [UNCLASSIFIED])
