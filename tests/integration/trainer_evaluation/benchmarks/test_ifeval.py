"""ifeval: outputs are checked by rules of lm-eval, and sentences counted by nltk's model, which the mirror brings."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from finetune_api.conditions import Reason
from finetune_api.pod_contracts.run import ModelSource
from finetune_api.sources import parse_s3
from finetune_trainer.__main__ import app
from finetune_trainer.benchmarks.mirror import fetch_dataset, read_manifest
from finetune_trainer.benchmarks.mirroring import known_task, mirror_benchmark
from finetune_trainer.benchmarks.punkt import FILES, FOLDER
from finetune_trainer.evaluation.evaluate import evaluate
from finetune_trainer.process.failures import DiagnosedError
from finetune_trainer.storage.storage import Storage
from tests.integration.trainer.data.played_hub import served_folder
from tests.integration.trainer_evaluation.benchmarks.copies import write_copy
from tests.integration.trainer_evaluation.benchmarks.test_benchmarks import TUNED, benchmark, lines_of, run_of, score_of
from tests.integration.trainer_evaluation.buckets import Bucket


def row(key: int, instruction: str, **settings: Any) -> dict[str, Any]:
    return {"key": key, "prompt": "Write.", "instruction_id_list": [instruction], "kwargs": [settings]}


@pytest.fixture
def nltk_without_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine where nobody has downloaded any."""
    monkeypatch.setattr("nltk.data.path", [])
    from lm_eval.tasks.ifeval import instructions_util

    instructions_util._get_sentence_tokenizer.cache_clear()


@pytest.fixture
def _storage(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.storage.endpoint or "")
    monkeypatch.setenv("AWS_REGION", bucket.storage.region)


def test_an_output_that_follows_every_instruction_of_its_prompt_scores_one(
    bucket: Bucket, mirror: str, long_base_uri: str
) -> None:
    run = run_of(bucket, [benchmark("ifeval", mirror, maxTokens=8)], {TUNED: ModelSource(uri=long_base_uri)}, "ifeval")
    report = evaluate(run)
    rows = lines_of(bucket, run, "ifeval")
    assert [line["scores"][TUNED] for line in rows] == [1.0, 0.0], "short, and no JSON"
    assert rows[0]["prompt"] == "Write about rain, in less than 500 words."
    assert score_of(report, TUNED, "ifeval").score == 0.5


def test_outputs_end_at_the_tasks_own_limit_unless_max_tokens_says_otherwise(
    bucket: Bucket, mirror: str, long_base_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[int] = []

    def answer(model: Any, requests: Any, **_: Any) -> list[str]:
        limits.append(model.max_gen_toks)
        assert all("max_gen_toks" not in request.args[1] for request in requests), "it would be the limit then"
        return ["Rain."] * len(requests)

    monkeypatch.setattr("lm_eval.models.huggingface.HFLM.generate_until", answer)
    models = {TUNED: ModelSource(uri=long_base_uri)}
    for at, changes in enumerate(({}, {"maxTokens": 77}, {"maxTokens": 2000})):
        evaluate(run_of(bucket, [benchmark("ifeval", mirror, **changes)], models, f"ifeval-limit-{at}"))
    assert limits == [1024, 77, 1024], "1280, but at most half of the model's context of 2048"


def test_sentences_are_counted_by_the_mirrors_model(bucket: Bucket, tmp_path: Path, nltk_without_data: None) -> None:
    """It knows that Dr. ends no sentence."""
    rows = [row(1, "length_constraints:number_sentences", relation="less than", num_sentences=3)]
    uri, storage = parse_s3(bucket.uri("mirror/sentences")), Storage(bucket.storage)
    mirror_benchmark("ifeval", storage, uri, write_copy(tmp_path / "copy", "ifeval", rows), None)
    from finetune_trainer.benchmarks.lm_eval_tasks import load_task

    data = fetch_dataset(storage, uri, read_manifest(storage, uri, "ifeval"), tmp_path / "files", ["s3://*"])
    task = load_task("ifeval", data, tmp_path)
    (doc,) = task.eval_docs
    assert task.process_results(doc, ["I saw Dr. Smith. He left."])["prompt_level_strict_acc"] is True
    assert task.process_results(doc, ["I saw Tom. He left. So did I."])["prompt_level_strict_acc"] is False


def without_punkt(manifest: dict[str, Any]) -> None:
    del manifest["punkt"]


def with_a_file_less(manifest: dict[str, Any]) -> None:
    manifest["punkt"] = manifest["punkt"][1:]


@pytest.mark.parametrize("damage", [without_punkt, with_a_file_less])
def test_a_mirror_without_the_model_of_sentences_is_told_before_anything_is_asked(
    bucket: Bucket, tmp_path: Path, long_base_uri: str, damage: Any
) -> None:
    mirror = bucket.uri(f"mirror/{damage.__name__}")
    copy = write_copy(tmp_path / "copy", "ifeval")
    mirror_benchmark(known_task("ifeval"), Storage(bucket.storage), parse_s3(mirror), copy, None)
    key = parse_s3(f"{mirror}/ifeval.json").key
    manifest = json.loads(bucket.read(bucket.uri(key)))
    damage(manifest)
    bucket.put(key, json.dumps(manifest).encode())
    run = run_of(bucket, [benchmark("ifeval", mirror)], {TUNED: ModelSource(uri=long_base_uri)}, damage.__name__)
    with pytest.raises(DiagnosedError) as refused:
        evaluate(run)
    assert refused.value.failure.reason is Reason.BENCHMARK_INVALID
    assert "lacks nltk's model of sentences" in refused.value.failure.message
    assert f"finetune-trainer mirror-benchmark ifeval --to {mirror}" in refused.value.failure.message


def test_an_instruction_that_lm_eval_can_not_check_is_not_mirrored(
    bucket: Bucket, tmp_path: Path, _storage: None
) -> None:
    copy = write_copy(tmp_path / "copy", "ifeval", [row(1, "made_up:rhyme", relation="less than")])
    result = CliRunner().invoke(
        app, ["mirror-benchmark", "ifeval", "--to", bucket.uri("mirror/unknown"), "--from", str(copy)]
    )
    assert result.exit_code == 1
    assert "the instruction 'made_up:rhyme' is unknown to lm-eval" in result.output


def test_the_model_of_sentences_is_downloaded_where_it_is_not_there(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nltk_without_data: None, _storage: None
) -> None:
    copy = write_copy(tmp_path / "copy", "ifeval")
    server = tmp_path / "server"
    server.mkdir()
    with zipfile.ZipFile(server / "punkt_tab.zip", "w") as archive:
        for name in FILES:
            archive.write(copy / "nltk_data" / FOLDER / name, f"punkt_tab/english/{name}")
    shutil.rmtree(copy / "nltk_data")
    body = (server / "punkt_tab.zip").read_bytes()
    with served_folder(server) as endpoint:
        (server / "index.xml").write_text(
            "<nltk_data><packages><package id='punkt_tab' name='Punkt' subdir='tokenizers' unzip='1' "
            f"url='{endpoint}/punkt_tab.zip' size='{len(body)}' unzipped_size='3' "
            f"sha256_checksum='{hashlib.sha256(body).hexdigest()}'/></packages><collections/></nltk_data>"
        )
        monkeypatch.setattr("nltk.pathsec._ip_is_forbidden", lambda _: False)
        monkeypatch.setattr("nltk.downloader._downloader._url", f"{endpoint}/index.xml")
        result = CliRunner().invoke(
            app, ["mirror-benchmark", "ifeval", "--to", bucket.uri("mirror/loaded"), "--from", str(copy)]
        )
    assert result.exit_code == 0, result.output
    manifest = json.loads(bucket.read(bucket.uri("mirror/loaded/ifeval.json")))
    assert {file["path"] for file in manifest["punkt"]} == set(FILES)


def test_where_it_can_not_be_downloaded_it_is_told_what_to_do(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nltk_without_data: None, _storage: None
) -> None:
    copy = write_copy(tmp_path / "copy", "ifeval")
    shutil.rmtree(copy / "nltk_data")
    monkeypatch.setattr("nltk.pathsec._ip_is_forbidden", lambda _: False)
    monkeypatch.setattr("nltk.downloader._downloader._url", "http://127.0.0.1:9/index.xml")
    result = CliRunner().invoke(
        app, ["mirror-benchmark", "ifeval", "--to", bucket.uri("mirror/none"), "--from", str(copy)]
    )
    assert result.exit_code == 1
    assert result.output.startswith("HubUnreachable: nltk's punkt_tab, which the benchmark counts sentences by, ")
    assert "python -m nltk.downloader -d nltk_data punkt_tab" in result.output
