"""`finetune-trainer mirror-benchmark`: from a hub, which is played here, or from a copy of the dataset's repository."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from finetune_trainer.__main__ import app
from tests.integration.trainer.data.played_hub import COMMIT, played_hub
from tests.integration.trainer_evaluation.benchmarks.copies import write_copy
from tests.integration.trainer_evaluation.buckets import Bucket


@pytest.fixture(autouse=True)
def _storage(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.storage.endpoint or "")
    monkeypatch.setenv("AWS_REGION", bucket.storage.region)


def files_in(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_copy_is_mirrored_in_its_own_layout_with_a_digest_of_every_file(bucket: Bucket, tmp_path: Path) -> None:
    copy, to = write_copy(tmp_path / "copy", "gsm8k"), bucket.uri("mirror/copy")
    result = CliRunner().invoke(app, ["mirror-benchmark", "gsm8k", "--to", to, "--from", str(copy), "--revision", "v1"])
    assert result.exit_code == 0, result.output
    assert result.output.startswith("gsm8k: 2 examples of openai/gsm8k at v1, 2 files, ")
    manifest = json.loads(bucket.read(f"{to}/gsm8k.json"))
    assert (manifest["dataset"], manifest["config"], manifest["reader"]) == ("openai/gsm8k", "main", "parquet")
    for split in ("train", "test"):
        (file,) = manifest["splits"][split]
        stored = bucket.read(f"{to}/openai--gsm8k/v1/{file['path']}")
        assert stored == (copy / file["path"]).read_bytes()
        assert (file["size"], file["sha256"]) == (len(stored), hashlib.sha256(stored).hexdigest())


def test_of_a_hub_only_what_the_task_reads_is_mirrored_at_the_newest_commit(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, to = write_copy(tmp_path / "copy", "arc_easy"), bucket.uri("mirror/hub")
    files = {**files_in(copy), "ARC-Challenge/test-00000-of-00001.parquet": b"of another task", "logo.png": b"x"}
    with played_hub(files, repository="allenai/ai2_arc") as endpoint:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
        monkeypatch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
            f"{endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
        )
        result = CliRunner().invoke(app, ["mirror-benchmark", "arc_easy", "--to", to])
    assert result.exit_code == 0, result.output
    manifest = json.loads(bucket.read(f"{to}/arc_easy.json"))
    assert manifest["revision"] == COMMIT
    paths = {file["path"] for split in manifest["splits"].values() for file in split}
    assert paths == {f"ARC-Easy/{split}-00000-of-00001.parquet" for split in ("train", "validation", "test")}
    listed = bucket.client.list_objects_v2(Bucket=bucket.name, Prefix="mirror/hub/")["Contents"]
    assert len(listed) == 4, "three files and the manifest"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["humaneval"], "InvalidSpec: humaneval executes code that the model writes, which is never done here."),
        (["mbpp_instruct"], "InvalidSpec: mbpp_instruct executes code"),
        (
            ["arc_hard"],
            "InvalidSpec: arc_hard is not one of the tasks that are tested with this version. Use one of: arc_",
        ),
        (["gsm8k", "--from", "EMPTY"], "BenchmarkInvalid: EMPTY is no copy of openai/gsm8k: "),
        (["piqa", "--from", "GSM8K"], "BenchmarkInvalid: GSM8K has no split 'validation'; it has train, test."),
    ],
)
def test_what_can_not_be_mirrored_is_reported(bucket: Bucket, tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "empty").mkdir()
    folders = {"EMPTY": str(tmp_path / "empty"), "GSM8K": str(write_copy(tmp_path / "copy", "gsm8k"))}
    given = [folders.get(one, one) for one in arguments]
    result = CliRunner().invoke(app, ["mirror-benchmark", *given, "--to", bucket.uri("mirror/refused")])
    assert result.exit_code == 1
    for name, folder in folders.items():
        words = words.replace(name, folder)
    assert words in result.output
    assert "Contents" not in bucket.client.list_objects_v2(Bucket=bucket.name, Prefix="mirror/refused/")


def test_rows_that_are_not_the_tasks_are_not_mirrored(bucket: Bucket, tmp_path: Path) -> None:
    copy = write_copy(tmp_path / "copy", "gsm8k", [{"frage": "Wie viele?", "antwort": "3"}])
    result = CliRunner().invoke(
        app, ["mirror-benchmark", "gsm8k", "--to", bucket.uri("mirror/rows"), "--from", str(copy)]
    )
    assert result.exit_code == 1
    assert "BenchmarkInvalid: The rows of the benchmark gsm8k are not what lm-eval reads" in result.output


def test_a_hub_that_can_not_be_reached_is_reported(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", "http://127.0.0.1:9")
    result = CliRunner().invoke(app, ["mirror-benchmark", "arc_easy", "--to", bucket.uri("mirror/nothing")])
    assert result.exit_code == 1
    assert result.output.startswith("HubUnreachable: http://127.0.0.1:9 could not be reached for hf://datasets/allenai")
