"""A Dataset's revision, built by the real command on a real S3, and read again by preflight."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.dataset import SOURCE, Cleaning, DatasetPart, DatasetSplit, Revision, RevisionContent
from finetune_api.dataset_reference import SplitName
from finetune_api.finetunejob import ConfigMapKeys, TrainingData, ValidationData
from finetune_api.pod_contracts.run import DatasetRun, JobIdentity
from finetune_api.pod_contracts.termination_message import to_termination_message
from finetune_api.safety.screening import Screening
from finetune_api.sources import parse_s3
from finetune_trainer.dataset import build as command
from finetune_trainer.dataset import revision as revisions
from finetune_trainer.preflight.preflight import preflight
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage.commits import claim
from finetune_trainer.storage.storage import Storage
from tests.integration.trainer.runs import Workplace
from tests.integration.trainer.storage.s3_proxy import Answer, S3Proxy, SayDone, s3_proxy
from tests.integration.trainer_evaluation.buckets import Bucket
from tests.integration.trainer_evaluation.tiny_models import chat
from tests.unit.trainer.texts import words

JOB = JobIdentity(namespace="team-a", name="tickets", uid="7f0e", run_id="1")
SPLIT = DatasetSplit(validation_percent=10, test_percent=20)


def line(number: int, **fields: Any) -> dict[str, Any]:
    return {**chat(words(number, 10), words(number + 10**6, 4)), **fields}


def source(bucket: Bucket, name: str, lines: list[dict[str, Any]]) -> DatasetPart:
    return DatasetPart(name=SOURCE, weight=1, uri=bucket.put_lines(f"data/{name}.jsonl", lines))


def run_of(bucket: Bucket, output: str, *parts: DatasetPart, **changes: Any) -> DatasetRun:
    settings: dict[str, Any] = {
        "job": JOB,
        "try_number": 1,
        "storage": bucket.storage,
        "output_uri": bucket.uri(f"datasets/{output}"),
        "parts": list(parts),
        "seed": 17,
    }
    return DatasetRun(**settings | changes)


def build(run: DatasetRun, directory: Path) -> Revision:
    report = command.build(run, directory / hashlib.sha256(run.output_uri.encode()).hexdigest())
    assert len(to_termination_message(report)) <= 4096
    return report.revision


def content(storage: Storage, revision: Revision, name: SplitName) -> list[dict[str, Any]]:
    """The examples of a split, as the status names their file."""
    (split,) = (split for split in revision.splits if split.name == name)
    body = storage.read(parse_s3(split.uri or ""))
    assert (len(body), hashlib.sha256(body).hexdigest()) == (split.size, split.sha256)
    found = [json.loads(text) for text in body.splitlines()]
    assert len(found) == split.examples
    return found


def refused(run: DatasetRun, directory: Path) -> str:
    with pytest.raises(DiagnosedError) as error:
        command.build(run, directory / "refused")
    failure = error.value.failure
    assert (failure.reason, failure.retryable) == (Reason.DATASET_INVALID, False)
    assert "change spec.runId" in failure.message
    return failure.message


def test_every_example_is_in_one_split_with_all_of_its_fields(bucket: Bucket, storage: Storage, tmp_path: Path) -> None:
    lines = [line(number, document=f"d{number}", score=number / 3) for number in range(50)]
    revision = build(run_of(bucket, "plain", source(bucket, "plain", lines), split=SPLIT), tmp_path)
    found = {name: content(storage, revision, name) for name in ("training", "validation", "test")}  # type: ignore[arg-type]
    assert {name: len(examples) for name, examples in found.items()} == {"training": 35, "validation": 5, "test": 10}
    assert sorted((one for examples in found.values() for one in examples), key=json.dumps) == sorted(
        lines, key=json.dumps
    )
    assert (revision.format, revision.examples, revision.left_out) == ("Chat", 50, None)


def test_documents_and_conversations_stay_together(bucket: Bucket, storage: Storage, tmp_path: Path) -> None:
    lines = [line(number, document=f"d{number // 5}") for number in range(60)]
    part = source(bucket, "documents", lines)
    by = DatasetSplit(validation_percent=20, test_percent=20, by="{{item.document}}")
    revision = build(run_of(bucket, "documents", part, split=by), tmp_path)
    assert "'document'" not in " ".join(revision.warnings), "it is used: by it the lines are divided"
    held_out, trained = (
        {one["document"] for one in content(storage, revision, name)}  # type: ignore[arg-type]
        for name in ("test", "training")
    )
    assert len(held_out) == 2
    assert not held_out & trained

    turns = []
    for number in range(20):
        begin = line(number)["messages"]
        longer = [*begin, {"role": "user", "content": words(number + 99, 9)}, {"role": "assistant", "content": "Yes."}]
        turns += [{"messages": begin}, {"messages": longer}]
    run = run_of(bucket, "turns", source(bucket, "turns", turns), split=SPLIT, prepare=Cleaning(leaks="Keep"))
    revision = build(run, tmp_path)
    first = {
        split.name: {one["messages"][0]["content"] for one in content(storage, revision, split.name)}
        for split in revision.splits
    }
    assert sum(map(len, first.values())) == 20


def test_what_is_trained_on_is_the_committed_copy(bucket: Bucket, workplace: Workplace, tmp_path: Path) -> None:
    part = source(bucket, "changes", [line(number) for number in range(50)])
    revision = build(run_of(bucket, "changes", part, split=SPLIT), tmp_path)
    source(bucket, "changes", [line(number) for number in range(1000, 1003)])
    uris = {split.name: split.uri for split in revision.splits}
    dataset = workplace.dataset(
        training=TrainingData(uri=uris["training"]), validation=ValidationData(uri=uris["validation"])
    )
    report = preflight(workplace.preflight_run("of-revision", dataset=dataset), tmp_path / "preflight")
    assert report.dataset.training is not None
    assert report.dataset.validation is not None
    assert (report.dataset.training.examples, report.dataset.validation.examples) == (35, 5)


def test_the_same_sources_give_the_same_revision(bucket: Bucket, tmp_path: Path) -> None:
    part = source(bucket, "same", [line(number) for number in range(30)])
    one, other = (build(run_of(bucket, f"same-{at}", part, split=SPLIT), tmp_path) for at in (1, 2))
    assert one.uri != other.uri
    assert one.digest == other.digest
    assert build(run_of(bucket, "same-3", part, split=SPLIT, seed=18), tmp_path).digest != one.digest


def test_a_try_finds_what_an_earlier_one_committed_though_the_source_has_changed(
    bucket: Bucket, tmp_path: Path
) -> None:
    part = source(bucket, "again", [line(number) for number in range(30)])
    first = build(run_of(bucket, "again", part), tmp_path)
    source(bucket, "again", [line(number) for number in range(40)])
    assert build(run_of(bucket, "again", part, try_number=2), tmp_path) == first


def test_a_try_that_was_killed_before_its_commit_leaves_nothing_that_is_read(
    bucket: Bucket, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = source(bucket, "killed", [line(number) for number in range(30)])
    run = run_of(bucket, "killed", part)

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(revisions, "commit_result", dies)
        with pytest.raises(KeyboardInterrupt):
            build(run, tmp_path)
    assert revisions.find_revision(storage, parse_s3(run.output_uri)) is None
    revision = build(run.model_copy(update={"try_number": 2}), tmp_path / "second")
    assert revision.uri.endswith("/result/claim-000002")
    assert len(content(storage, revision, "training")) == 30


def through(proxy: S3Proxy, run: DatasetRun) -> DatasetRun:
    return run.model_copy(update={"storage": run.storage.model_copy(update={"endpoint": proxy.endpoint})})


def test_a_storage_that_overwrites_is_named_before_a_revision_depends_on_it(bucket: Bucket, tmp_path: Path) -> None:
    run = run_of(bucket, "unsuitable", source(bucket, "unsuitable", [line(number) for number in range(30)]))
    with s3_proxy(str(bucket.storage.endpoint)) as proxy, pytest.raises(DiagnosedError, match="If-None-Match") as error:
        proxy.arm(SayDone(), kind="PutObject", at=3)
        build(through(proxy, run), tmp_path)
    assert (error.value.failure.reason, error.value.failure.retryable) == (Reason.STORAGE_UNSUITABLE, False)
    assert bucket.client.list_objects_v2(Bucket=bucket.name, Prefix="datasets/unsuitable/").get("Contents", []) == []


def test_a_revision_that_is_read_otherwise_than_it_was_written_is_named(bucket: Bucket, tmp_path: Path) -> None:
    run = run_of(bucket, "lies", source(bucket, "lies", [line(number) for number in range(30)]))
    with s3_proxy(str(bucket.storage.endpoint)) as proxy:
        build(through(proxy, run), tmp_path)
        reads = proxy.count("GetObject")
        again = run.model_copy(update={"output_uri": bucket.uri("datasets/lies-again")})
        proxy.arm(Answer(200, ""), kind="GetObject", at=reads)
        with pytest.raises(DiagnosedError, match=r"revision\.json differs from its manifest") as error:
            build(through(proxy, again), tmp_path)
    assert error.value.failure.reason == Reason.CHECKPOINT_CORRUPT


def test_of_two_tries_at_once_one_wins_and_both_report_it(bucket: Bucket, storage: Storage, tmp_path: Path) -> None:
    run = run_of(bucket, "twice", source(bucket, "twice", [line(number) for number in range(30)]))
    late = claim(storage, parse_s3(run.output_uri), 1)
    first = build(run.model_copy(update={"try_number": 2}), tmp_path)
    splits = tmp_path / "late"
    splits.mkdir()
    (splits / "training.jsonl").write_bytes(b"{}\n")
    body = storage.read(parse_s3(f"{first.uri}/revision.json"))
    assert revisions.commit_revision(storage, late, RevisionContent.from_bytes(body), splits) == first


def test_parts_are_merged_by_their_weights_and_each_file_is_on_record(
    bucket: Bucket, storage: Storage, tmp_path: Path
) -> None:
    common = bucket.put_lines("data/common.jsonl", [line(number, part="common") for number in range(90)])
    rare = bucket.put_lines("data/rare.jsonl", [line(number, part="rare") for number in range(500, 520)])
    parts = (DatasetPart(name=SOURCE, weight=3, uri=common), DatasetPart(name="rare", weight=1, uri=rare))
    revision = build(run_of(bucket, "merged", *parts, split=DatasetSplit(test_percent=20)), tmp_path)
    for split in revision.splits:
        named = [one["part"] for one in content(storage, revision, split.name)]
        assert named.count("common") == 3 * named.count("rare") > 0
    taken = {file.part: (file.uri, file.examples, file.taken) for file in revision.sources}
    assert taken["rare"][:2] == (rare, 20)
    assert sum(count for _, _, count in taken.values()) == revision.examples
    assert revision.left_out is not None
    assert revision.left_out.weights == 110 - revision.examples
    record = RevisionContent.from_bytes(storage.read(parse_s3(f"{revision.uri}/revision.json")))
    assert record.weights == {SOURCE: 3, "rare": 1}


def test_what_is_flagged_or_comes_twice_is_left_out_and_told(bucket: Bucket, storage: Storage, tmp_path: Path) -> None:
    secret = chat("Which key?", "It is AKIAIOSFODNN7EXAMPLE.")
    part = source(bucket, "flagged", [*(line(number) for number in range(20)), secret, line(3)])
    screening = Screening(rules=["Secret"], action="Drop")
    revision = build(run_of(bucket, "flagged", part, screening=screening), tmp_path)
    assert revision.examples == 20
    assert revision.left_out is not None
    assert (revision.left_out.screening, revision.left_out.duplicates) == (1, 1)
    told = " ".join(revision.warnings)
    assert "1 of 22 source examples are flagged by spec.screening; they are left out: Secret 1 (line 21)" in told
    assert "1 example(s) are the same as an earlier one; they are left out (line 22)" in told
    assert "AKIA" not in json.dumps(content(storage, revision, "training"))
    fails = run_of(bucket, "flagged-fails", part, screening=Screening(rules=["Secret"], action="Fail"))
    assert "Secret 1 (line 21)" in refused(fails, tmp_path)


def test_a_broken_line_is_named_and_nothing_is_committed(bucket: Bucket, storage: Storage, tmp_path: Path) -> None:
    part = source(bucket, "broken", [line(1), {"messages": []}, line(2), {"prompt": 7}])
    run = run_of(bucket, "broken", part)
    with pytest.raises(DiagnosedError) as caught:
        command.build(run, tmp_path)
    message, found = caught.value.failure.message, caught.value.failure.dataset
    assert found is not None
    assert (found.error_count, [one.line for one in found.errors]) == (2, [2, 4])
    assert message.startswith(f"Line 2 of {part.uri}: ")
    assert "1 more line(s) are broken" in message
    findings = storage.read(parse_s3(f"{run.output_uri}/dataset-findings.jsonl"))
    assert [json.loads(one)["line"] for one in findings.splitlines()] == [2, 4]
    assert revisions.find_revision(storage, parse_s3(run.output_uri)) is None


def test_a_line_without_the_field_that_splits_is_named(bucket: Bucket, tmp_path: Path) -> None:
    part = source(bucket, "no-document", [line(1, document="a"), line(2)])
    by = DatasetSplit(test_percent=10, by="{{item.document}}")
    message = refused(run_of(bucket, "no-document", part, split=by), tmp_path)
    assert message.startswith(f"Line 2 of {part.uri}: spec.split.by can't be rendered: {{{{item.document}}}}")


def test_too_few_groups_for_the_splits_are_refused(bucket: Bucket, tmp_path: Path) -> None:
    part = source(bucket, "one", [line(number, document="a") for number in range(30)])
    by = DatasetSplit(test_percent=10, by="{{item.document}}")
    message = refused(run_of(bucket, "one", part, split=by), tmp_path)
    assert "No example is left for training. There is 1 document to divide (spec.split.by). Add examples" in message


def test_prompts_for_graders_and_preference_pairs_are_kept_as_such(bucket: Bucket, tmp_path: Path) -> None:
    prompts = [{"messages": line(number)["messages"][:1], "answer": str(number)} for number in range(20)]
    run = run_of(bucket, "prompts", source(bucket, "prompts", prompts), format="Reinforcement")
    assert build(run, tmp_path).format == "Reinforcement"
    wrong = run_of(bucket, "chat-is-no-pair", source(bucket, "no-pairs", [line(1)]), format="Preference")
    assert "expected preference pairs, found chat messages" in refused(wrong, tmp_path)


@pytest.mark.parametrize("named", [{}, {"format": "Chat"}])
def test_prompts_for_graders_without_the_name_of_their_format_are_told_to_need_it(
    bucket: Bucket, tmp_path: Path, named: dict[str, str]
) -> None:
    prompts = [{"messages": line(number)["messages"][:1], "answer": str(number)} for number in range(60)]
    run = run_of(bucket, f"unnamed-{len(named)}", source(bucket, "unnamed", prompts), **named)
    with pytest.raises(DiagnosedError) as caught:
        command.build(run, tmp_path)
    message, found = caught.value.failure.message, caught.value.failure.dataset
    assert message.endswith("Set spec.format to Reinforcement, or replace the file, and change spec.runId.")
    assert "broken" not in message
    assert found is not None
    assert found.error_count == 1, "it is the file that is wrong, and not its lines"


def test_a_config_map_is_a_source(
    bucket: Bucket, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted = tmp_path / "mounted" / SOURCE
    mounted.mkdir(parents=True)
    (mounted / "some.jsonl").write_text("".join(json.dumps(line(number)) + "\n" for number in range(12)))
    monkeypatch.setattr(command, "DATASET_DIRECTORY", str(tmp_path / "mounted"))
    part = DatasetPart(name=SOURCE, weight=1, config_map_ref=ConfigMapKeys(name="tickets"))
    revision = build(run_of(bucket, "config-map", part), tmp_path)
    assert [file.uri for file in revision.sources] == ["configmap://tickets/some.jsonl"]
    assert len(content(storage, revision, "training")) == 12


def test_the_report_of_many_files_fits_a_termination_message(bucket: Bucket, tmp_path: Path) -> None:
    for number in range(40):
        bucket.put_lines(f"data/many/{'long-name-' * 12}{number:02}.jsonl", [line(number)])
    part = DatasetPart(name=SOURCE, weight=1, uri=bucket.uri("data/many/"))
    revision = build(run_of(bucket, "many", part), tmp_path)
    assert (len(revision.sources), revision.source_count) == (32, 40)


def test_files_of_a_folder_that_the_class_does_not_allow_are_refused(bucket: Bucket, tmp_path: Path) -> None:
    part = source(bucket, "denied", [line(1)])
    run = run_of(bucket, "denied", part, allowed_datasets=[bucket.uri("elsewhere/*")])
    with pytest.raises(DiagnosedError) as error:
        command.build(run, tmp_path)
    assert error.value.failure.reason is Reason.SOURCE_NOT_ALLOWED
