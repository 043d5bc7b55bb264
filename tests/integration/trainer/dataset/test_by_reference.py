"""A revision of a Dataset, read by its digest on a real S3: by preflight, training and evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.dataset import Cleaning, Revision
from finetune_api.dataset_reference import DatasetRef, PinnedRevision, PinnedRevisions, SplitName
from finetune_api.finetunejob import DPO, Dataset, Limit, Method, Prepare, TrainingData, ValidationData
from finetune_api.pod_contracts.outcome import PreflightReport
from finetune_api.safety.screening import Screening
from finetune_api.sources import parse_s3
from finetune_trainer.data.revisions import fetch_split
from finetune_trainer.data.select import choice
from finetune_trainer.data.select.dataset_record import RECORD_NAME
from finetune_trainer.evaluation.prepared import fetch_held_out
from finetune_trainer.preflight.preflight import preflight
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.report.model_card import datasets_of
from finetune_trainer.storage.storage import Storage
from tests.integration.trainer.data.test_stored_tokens import chosen_of, forget_tokens, sets, tokens_of
from tests.integration.trainer.dataset.test_build import SPLIT, build, line, run_of, source
from tests.integration.trainer.runs import Workplace, preference
from tests.integration.trainer_evaluation.buckets import Bucket
from tests.integration.trainer_evaluation.test_evaluate import make_run

LINES = [line(number) for number in range(60)]
TRAINING = TrainingData(dataset_ref=DatasetRef(name="tickets", split="training"))
VALIDATION = ValidationData(dataset_ref=DatasetRef(name="tickets", split="validation"))
BY_REFERENCE = Dataset(training=TRAINING, validation=VALIDATION)


def pinned(revision: Revision, split: SplitName) -> PinnedRevision:
    return PinnedRevision(name="tickets", uid="7f0e", split=split, digest=revision.digest, uri=revision.uri)


def both(revision: Revision) -> PinnedRevisions:
    return PinnedRevisions(training=pinned(revision, "training"), validation=pinned(revision, "validation"))


def built(bucket: Bucket, name: str, directory: Path, lines: list[dict[str, Any]] = LINES, **changes: Any) -> Revision:
    part = source(bucket, f"by-reference-{name}", lines)
    return build(run_of(bucket, f"by-reference-{name}", part, **{"split": SPLIT, **changes}), directory / "build")


def checked(workplace: Workplace, output: str, directory: Path, **changes: Any) -> PreflightReport:
    return preflight(workplace.preflight_run(output, **changes), directory / output)


def refused(storage: Storage, one: PinnedRevision, directory: Path) -> tuple[Reason, str]:
    with pytest.raises(DiagnosedError) as error:
        fetch_split(storage, one, directory / "refused")
    return error.value.failure.reason, error.value.failure.message


@pytest.fixture
def reads_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading lines to check and compare them fails: the tokenizer's pass is another one."""
    monkeypatch.setattr(choice, "survey", lambda *_: pytest.fail("every line was read"))


@pytest.mark.usefixtures("reads_no_line")
def test_preflight_takes_the_datasets_findings_over(bucket: Bucket, workplace: Workplace, tmp_path: Path) -> None:
    lines = [*LINES, LINES[0], {**line(99), "topic": "a"}]
    revision = built(bucket, "findings", tmp_path, lines)
    report = checked(workplace, "findings", tmp_path, dataset=BY_REFERENCE, revisions=both(revision))
    assert (report.dataset.format, report.dataset.dropped) == ("Chat", None)
    assert report.dataset.training is not None
    assert report.dataset.training.examples == revision.splits[0].examples
    assert revision.warnings
    assert [one for one in report.dataset.warnings if one.startswith("Dataset tickets: ")] == [
        f"Dataset tickets: {warning}" for warning in revision.warnings
    ]


def test_the_same_examples_are_chosen_and_tokenized_as_by_their_uris(
    bucket: Bucket, workplace: Workplace, storage: Storage, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    revision = built(bucket, "alike", tmp_path)
    training, validation = revision.splits[0].uri, revision.splits[1].uri
    limit = Limit(percent=50)
    by_uri = Dataset(training=TrainingData(uri=training, limit=limit), validation=ValidationData(uri=validation))
    first = checked(workplace, "by-uri", tmp_path, dataset=by_uri)
    monkeypatch.setattr(choice, "survey", lambda *_: pytest.fail("every line was read"))
    half = Dataset(training=TrainingData(dataset_ref=TRAINING.dataset_ref, limit=limit), validation=VALIDATION)
    second = checked(workplace, "by-ref", tmp_path, dataset=half, revisions=both(revision))
    assert second.dataset == first.dataset
    records = [chosen_of(storage, workplace, output) for output in ("by-uri", "by-ref")]
    assert records[0].training == records[1].training
    assert records[0].validation == records[1].validation
    # The rows say nothing of the time at which templates were rendered, since this one prints none.
    assert tokens_of(workplace, "by-uri").rows == tokens_of(workplace, "by-ref").rows
    run = workplace.train_run("by-ref", {"max_length": 256}, dataset=half, revisions=both(revision))
    assert len(sets(run, base, tmp_path / "data").training) == second.dataset.training.rows  # type: ignore[union-attr]
    forget_tokens(storage, workplace, "by-ref")
    assert len(sets(run, base, tmp_path / "again").training) == second.dataset.training.rows  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "dataset",
    [
        Dataset(training=TRAINING, validation=VALIDATION, screening=Screening()),
        Dataset(training=TRAINING, validation=ValidationData(split_percent=20)),
        Dataset(training=TRAINING, validation=VALIDATION, prepare=Prepare(near_duplicates="Drop")),
    ],
    ids=["screens", "holds out", "drops more"],
)
def test_what_the_dataset_did_not_find_is_looked_for(
    bucket: Bucket, workplace: Workplace, tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    revision = built(bucket, "more", tmp_path)
    read = []
    survey = choice.survey
    monkeypatch.setattr(choice, "survey", lambda *args: read.append(args[0]) or survey(*args))
    pins = both(revision) if dataset.validation is VALIDATION else PinnedRevisions(training=both(revision).training)
    report = checked(workplace, "more", tmp_path, dataset=dataset, revisions=pins)
    assert read[0] == "training"
    assert report.dataset.training is not None


@pytest.mark.usefixtures("reads_no_line")
def test_what_the_dataset_has_dropped_need_not_be_dropped_again(
    bucket: Bucket, workplace: Workplace, tmp_path: Path
) -> None:
    revision = built(bucket, "dropped", tmp_path, prepare=Cleaning(near_duplicates="Drop"))
    dataset = Dataset(
        training=TRAINING, validation=VALIDATION, prepare=Prepare(duplicates="Drop", near_duplicates="Drop")
    )
    report = checked(workplace, "dropped", tmp_path, dataset=dataset, revisions=both(revision))
    assert report.dataset.training is not None


def test_a_format_that_the_method_does_not_learn_from_is_refused(
    bucket: Bucket, workplace: Workplace, tmp_path: Path
) -> None:
    revision = built(bucket, "pairs", tmp_path, [preference(number) for number in range(40)], format="Preference")
    with pytest.raises(DiagnosedError, match="not using 'DPO' as the training method"):
        checked(workplace, "pairs", tmp_path, dataset=BY_REFERENCE, revisions=both(revision))
    method = Method(type="DPO", dpo=DPO())
    report = checked(workplace, "pairs", tmp_path, dataset=BY_REFERENCE, revisions=both(revision), method=method)
    assert report.dataset.format == "Preference"


def test_altered_files_are_refused(bucket: Bucket, workplace: Workplace, storage: Storage, tmp_path: Path) -> None:
    revision = built(bucket, "altered", tmp_path)
    one = pinned(revision, "training")
    key = parse_s3(one.file_uri).key
    body = bucket.read(one.file_uri)
    bucket.put(key, body.replace(b"assistant", b"assistent", 1))  # of the same size
    reason, message = refused(storage, one, tmp_path)
    assert reason is Reason.DATASET_INVALID
    assert message.startswith(f"{one.file_uri} is not what Dataset 'tickets' committed as revision {revision.digest}")
    with pytest.raises(DiagnosedError, match="somebody has changed or removed it"):
        checked(workplace, "altered", tmp_path, dataset=BY_REFERENCE, revisions=both(revision))

    bucket.put(key, body)
    assert fetch_split(storage, one, tmp_path / "whole").examples == revision.splits[0].examples
    place = f"{revision.uri}/revision.json"
    content = json.loads(bucket.read(place))
    content["splits"][0]["examples"] += 1
    bucket.put(parse_s3(place).key, json.dumps(content).encode())
    assert refused(storage, one, tmp_path)[1].startswith(f"{place} is not what Dataset 'tickets' committed")


def test_files_that_are_gone_are_reported_with_what_to_do(bucket: Bucket, storage: Storage, tmp_path: Path) -> None:
    revision = built(bucket, "gone", tmp_path)
    one = pinned(revision, "test")
    storage.delete([parse_s3(one.file_uri)])
    assert "somebody has changed or removed it" in refused(storage, one, tmp_path)[1]
    storage.delete([parse_s3(f"{revision.uri}/revision.json")])
    reason, message = refused(storage, one, tmp_path)
    assert reason is Reason.DATASET_NOT_FOUND
    assert "were removed, or are in another storage than this class's. Build it again" in message


def test_training_takes_no_other_files_than_the_pinned_ones(
    bucket: Bucket, workplace: Workplace, storage: Storage, base: Path, tmp_path: Path
) -> None:
    revision, other = built(bucket, "mine", tmp_path), built(bucket, "other", tmp_path, LINES[:30])
    checked(workplace, "pinned", tmp_path, dataset=BY_REFERENCE, revisions=both(revision))
    run = workplace.train_run("pinned", dataset=BY_REFERENCE, revisions=both(other))
    with pytest.raises(DiagnosedError, match=f"{RECORD_NAME} is not as preflight wrote it"):
        sets(run, base, tmp_path / "data")


def test_the_model_card_names_the_dataset_and_its_revision(bucket: Bucket, workplace: Workplace) -> None:
    pins = PinnedRevisions(
        training=PinnedRevision(name="tickets", uid="7f0e", split="training", digest="sha256:aa", uri="s3://runs/aa")
    )
    assert datasets_of(workplace.train_run("card", revisions=pins)) == {
        "training set": "training split of Dataset tickets (7f0e), revision sha256:aa"
    }
    assert datasets_of(workplace.train_run("card")) == {}


def test_an_evaluation_reads_its_split_by_the_digest(bucket: Bucket, storage: Storage, tmp_path: Path) -> None:
    revision = built(bucket, "held-out", tmp_path)
    one = pinned(revision, "test")
    run = make_run(bucket, one.file_uri, {}, revision=one, allowed_datasets=["s3://nothing-else/*"])
    assert len(fetch_held_out(run, storage, [], tmp_path / "held-out")) == 12
    bucket.put(parse_s3(one.file_uri).key, b"{}\n")
    with pytest.raises(DiagnosedError, match="is not what Dataset 'tickets' committed"):
        fetch_held_out(run, storage, [], tmp_path / "altered")
