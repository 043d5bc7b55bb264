"""What `status` shows of a Dataset: its tries, and what its revision consists of; of a run, what it reads. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from finetune_view.fields import Fields
from kubectl_finetune.display.evaluation import tries
from kubectl_finetune.display.terminal import Row

_NOT_KEPT = (
    *("noAnswer", "overBudget", "refused", "truncated", "unusable"),
    *("ungraded", "notPassed", "notBest"),
)
_CAUSES = ("screening", "duplicates", "nearDuplicates", "conflicts", "leaks", "weights")


def dataset_rows(status: Fields) -> Iterator[Row]:
    """The rows between those of the run and those of a failure."""
    yield Row("Tries", list(tries(status)))
    earlier = [f"runId {one.text('runId')}: {one.text('digest')}, {one.text('uri')}" for one in status.at("history")]
    yield Row("Earlier", [line for line, one in zip(earlier, status.at("history"), strict=True) if one.text("uri")])
    revision = status.at("revision")
    if not revision:
        return
    yield Row("Revision", [revision.text("digest"), *split_lines(revision)], "green")
    yield from _generated(status, revision.at("generated"))
    counts = {cause: revision.at("leftOut").text(cause) for cause in _CAUSES}
    left_out = _listed(counts)
    yield Row("Left out", [left_out] if left_out else [])
    yield Row("Warnings", [one.text() for one in revision.at("warnings")], "yellow")


def _generated(status: Fields, generated: Fields) -> Iterator[Row]:
    """What a teacher has made, what became of it, and what was asked for it."""
    if not generated:
        return
    counts = {cause: generated.at("notKept").text(cause) for cause in _NOT_KEPT}
    others = f"; not kept: {found}" if (found := _listed(counts)) else ""
    kept, made = generated.text("kept"), generated.text("completions")
    yield Row("Generated", [f"{kept} of {made} completions by {generated.text('teacher')}{others}"])
    yield Row("Asked", [_asked(one) for one in status.at("usage")])


def _asked(usage: Fields) -> str:
    cost = f", cost {usage.text('cost')}" if usage.number("cost") is not None else ""
    tokens = f"{usage.text('promptTokens')} and {usage.text('completionTokens')} tokens"
    cached = f", {usage.text('cached')} from the cache" if usage.number("cached") else ""
    return f"{usage.text('model')}: {usage.text('requests')} requests{cached}, {tokens}{cost}"


def _listed(counts: Mapping[str, str]) -> str:
    return ", ".join(f"{cause} {count}" for cause, count in counts.items() if count not in ("", "0"))


def broken_lines(found: Fields) -> list[str]:
    """The first broken lines of a dataset, and what is wrong with each."""
    return [
        f"{one.text('uri') or one.text('file')}, line {one.text('line')}: {one.text('message')}"
        for one in found.at("errors")
    ]


def split_lines(revision: Fields) -> list[str]:
    """How many examples each split has, and where."""
    return [f"{one.text('name')}: {one.text('examples')} examples, {one.text('uri')}" for one in revision.at("splits")]


def revision_rows(*pinned: Fields) -> Iterator[Row]:
    """The splits of Datasets that a run reads."""
    yield Row(
        "Reads",
        [f"{one.text('split')} of Dataset {one.text('name')}, revision {one.text('digest')}" for one in pinned if one],
    )
