"""`finetune-trainer train job.yaml` as a person runs it: a process of its own, a model and data in local folders."""

from __future__ import annotations

import csv
import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

from e2e.cluster.machine.children import with_parent
from finetune_trainer.__main__ import main
from tests.integration import forked
from tests.integration.trainer.runs import question

DEADLINE_SECONDS = 180
forked.preload("finetune_trainer.train.train", "finetune_trainer.local.training")
SPEC: dict[str, Any] = {
    "className": "gpus",
    "model": {"uri": "base"},
    "adapter": {"lora": {"rank": 4, "alpha": 8}},
    "dataset": {"training": {"uri": "train.jsonl"}, "validation": {"uri": "valid.jsonl"}},
    "hyperparameters": {"epochs": 4, "batchSize": 4, "learningRate": 0.01, "maxLength": 96},
    "parallelism": {"nodes": 2},
    "checkpoints": {"everySteps": 10},
}


def write_job(folder: Path, name: str = "job.yaml", **spec: Any) -> Path:
    job = {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": "adder"}}
    (folder / name).write_text(yaml.safe_dump(job | {"spec": SPEC | spec}))
    return folder / name


def variables(file: Path) -> dict[str, str]:
    return {"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1", "HOME": str(file.parent), "PATH": ""}


# The same as the module, but that it is not at its end before the test has done what it is about.
HELD = """
from tests.integration.trainer.runs import hold_at
hold_at(12)
from finetune_trainer.__main__ import main
main()
"""


def start(file: Path, program: Sequence[str] = ("-m", "finetune_trainer")) -> subprocess.Popen[str]:
    return subprocess.Popen(
        with_parent([sys.executable, *program, "train", str(file)]),
        cwd=file.parent,
        env=variables(file),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(file: Path, *options: str) -> tuple[int, str]:
    """Exit code and output of the same, in a process that need not import everything first."""
    process = forked.ForkedCommand(
        command_line,
        ["train", str(file), *options],
        environment=variables(file),
        folder=file.parent,
        output=file.with_suffix(".log"),
    )
    return process.end(DEADLINE_SECONDS)


def command_line(words: list[str]) -> int:
    sys.argv[1:] = words
    main()
    return 0


@pytest.fixture(scope="module")
def desk(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, datasets and a job."""
    folder = tmp_path_factory.mktemp("a laptop")
    (folder / "base").symlink_to(base)
    for name, numbers in (("train", range(40)), ("valid", range(40, 48))):
        lines = [json.dumps(question(number)) for number in numbers]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    write_job(folder)
    return folder


@pytest.fixture(scope="module")
def interrupted(desk: Path) -> Iterator[tuple[int, str, int, str]]:
    """Code and output of a run that gets a Ctrl-C after its first checkpoint; and of one that came while it ran."""
    process = start(desk / "job.yaml", ["-c", HELD])
    checkpoint = desk / "finetune-output/adder/1/checkpoints/step-000010/claim-000001/manifest.json"
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (desk / "finetune-output/adder/1/lock").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    second = start(desk / "job.yaml")
    second_output, _ = second.communicate(timeout=DEADLINE_SECONDS)
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=DEADLINE_SECONDS)
    yield process.returncode, output, second.returncode, second_output


@pytest.fixture(scope="module")
def resumed(desk: Path, interrupted: Any) -> tuple[int, str]:
    """The same command again."""
    return run(desk / "job.yaml")


def test_an_interrupt_saves_and_says_how_to_go_on(desk: Path, interrupted: Any) -> None:
    code, output, _, _ = interrupted
    assert code == 130
    assert "Stopping with a checkpoint after this step (Ctrl-C again: at once)." in output
    again = shlex.join(["finetune-trainer", "train", f"{desk}/job.yaml"])
    assert output.splitlines()[-1] == f"Stopped, with a checkpoint. Go on with: {again}"
    assert "Traceback" not in output


def test_what_a_cluster_alone_has_is_named_and_passed_over(interrupted: Any) -> None:
    _, output, _, _ = interrupted
    assert "className gpus is ignored" in output
    assert "parallelism is ignored" in output


def test_a_second_one_into_the_same_folder_is_refused(interrupted: Any) -> None:
    _, _, code, output = interrupted
    assert code == 1
    assert "Another finetune-trainer trains into" in output


def test_the_same_command_resumes(resumed: tuple[int, str]) -> None:
    code, output = resumed
    assert code == 0, output
    assert "Resumed from the checkpoint of step" in output
    assert "Step 40/40: training loss=" in output and "validation loss=" in output
    assert "Done at step 40" in output


def test_the_result_loads_with_its_base_tokenizer_and_template(desk: Path, base: Path, resumed: Any) -> None:
    folder = desk / "finetune-output/adder/1/result/claim-000002"
    model = AutoPeftModelForCausalLM.from_pretrained(folder)
    assert model.peft_config["default"].base_model_name_or_path == str(desk / "base")
    tuned = {name: weight for name, weight in model.named_parameters() if "lora_B" in name}
    assert tuned
    assert all(torch.any(weight != 0) for weight in tuned.values())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(base).chat_template


def test_a_person_reads_the_report_and_the_card(desk: Path, resumed: Any) -> None:
    _, output = resumed
    folder = desk / "finetune-output/adder/1/result/claim-000002"
    assert f"report   {folder}/report.html" in output
    report = (folder / "report.html").read_text()
    for text in ("Hyperparameters", "40 examples", "What is 40 plus 5?", "generated greedily", "stalled seconds"):
        assert text in report
    assert "<|im_start|>" not in report and "&lt;|im_start|&gt;" not in report
    assert report.index("Validation loss:") < report.index("generated greedily") < report.index("Hyperparameters")
    assert f"file://{desk}/train.jsonl" in (folder / "README.md").read_text()


def test_a_job_goes_on_from_an_earlier_result(desk: Path, resumed: Any) -> None:
    """As the message about fineTuneJobRef says: its folder is the model, an adapter upon the base that it names."""
    result = desk / "finetune-output/adder/1/result/claim-000002"
    shorter = SPEC["hyperparameters"] | {"epochs": 1}
    file = write_job(desk, "next.yaml", runId="2", model={"uri": str(result)}, hyperparameters=shorter)
    code, output = run(file)
    assert code == 0, output
    begun = json.loads((desk / "finetune-output/adder/2/run.json").read_bytes())["model"]
    assert (begun["uri"], begun["adapterUri"]) == (f"file://{desk}/base", f"file://{result}")
    first, second = (
        list(csv.DictReader((desk / f"finetune-output/adder/{number}/results.csv").open())) for number in (1, 2)
    )
    assert float(second[0]["train_loss"]) < 0.7 * float(first[0]["train_loss"])
    model = AutoPeftModelForCausalLM.from_pretrained(desk / "finetune-output/adder/2/result/claim-000001")
    assert model.peft_config["default"].base_model_name_or_path == str(desk / "base")


def test_a_changed_job_is_a_new_run(desk: Path, resumed: Any) -> None:
    file = write_job(desk, "changed.yaml", hyperparameters=SPEC["hyperparameters"] | {"learningRate": 0.02})
    code, output = run(file)
    assert code == 1
    assert "hyperparameters.learningRate: 0.01 before, 0.02 now" in output
    assert "Change spec.runId" in output


def test_broken_data_is_reported_by_line_and_without_a_traceback(desk: Path) -> None:
    lines = (desk / "train.jsonl").read_text().splitlines()
    (desk / "broken.jsonl").write_text("\n".join([*lines[:3], '{"messages": []}', *lines[3:]]) + "\n")
    file = write_job(desk, "broken.yaml", dataset={"training": {"uri": "broken.jsonl"}})
    code, output = run(file, "--output", str(desk / "elsewhere"))
    assert code == 1
    assert "DatasetInvalid" in output
    assert "training, line 4" in output
    assert "Traceback" not in output
