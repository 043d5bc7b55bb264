"""The command line: what it prints, how it exits, and that it loads nothing that it does not need."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from finetune_api.pod_contracts.outcome import EXIT_DISRUPTED
from finetune_trainer.__main__ import app

EXAMPLE = {"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]}
HEAVY = {"boto3", "datasets", "finetune_api", "jinja2", "numpy", "pydantic", "torch", "transformers"}


def write(file: Path, lines: list[object]) -> Path:
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def loaded_by(code: str) -> set[str]:
    """The modules that a fresh interpreter has after running the code."""
    script = f"{code}\nimport sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(done.stdout.split())


def test_validate_names_each_broken_line_and_fails(tmp_path: Path) -> None:
    good = write(tmp_path / "good.jsonl", [EXAMPLE] * 12)
    bad = write(tmp_path / "bad.jsonl", [EXAMPLE, {"text": "4"}, EXAMPLE, []])
    result = CliRunner().invoke(app, ["validate", str(good), str(bad)])
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        f"{good}: 12 examples (chat messages), none broken.",
        f"{bad}:2: Unexpected file format, expected either prompt/completion pairs or chat messages.",
        f"{bad}:4: Expected a JSON object, found a list.",
    ]


def test_validate_fails_where_training_would_refuse_for_too_few_examples(tmp_path: Path) -> None:
    file = write(tmp_path / "small.jsonl", [EXAMPLE] * 3)
    result = CliRunner().invoke(app, ["validate", str(file)], color=True)
    assert result.exit_code == 1
    assert "\x1b[32m" in result.output
    assert "Training file has 3 example(s), but must have at least 10 examples." in result.output
    other = write(tmp_path / "more.jsonl", [EXAMPLE] * 7)
    assert CliRunner().invoke(app, ["validate", str(file), str(other)]).exit_code == 0  # together they are one set


def test_keys_that_are_not_learned_from_are_reported(tmp_path: Path) -> None:
    file = write(tmp_path / "data.jsonl", [EXAMPLE, {**EXAMPLE, "id": 7}] * 5)
    result = CliRunner().invoke(app, ["validate", str(file)])
    assert result.exit_code == 0
    assert f"{file}: These keys are not used for training: 'id' (line 2)." in result.output


def test_help_and_the_version_are_where_one_looks_for_them() -> None:
    assert CliRunner().invoke(app, ["-h"]).output == CliRunner().invoke(app, ["--help"]).output
    assert CliRunner().invoke(app, ["validate", "-h"]).exit_code == 0
    shown = CliRunner().invoke(app, ["--version"])
    assert shown.exit_code == 0
    assert shown.output.startswith("finetune-trainer ")


@pytest.mark.parametrize(
    "command", ["preflight", "train", "evaluate", "fetch", "serve", "delete", "validate", "import-openai-eval"]
)
def test_every_command_has_help(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert "RUN_JSON" in result.output or "FILE" in result.output


def test_help_and_validate_load_nothing_heavy() -> None:
    loaded = loaded_by("import finetune_trainer.__main__, finetune_trainer.data.validate")
    assert "finetune_trainer.data.validate" in loaded
    assert not HEAVY & loaded


def test_a_process_that_gets_sigterm_leaves_with_the_code_of_a_disruption() -> None:
    code = (
        "import os, signal; from finetune_trainer.process import environment\n"
        "environment.exit_on_sigterm(); os.kill(os.getpid(), signal.SIGTERM); signal.pause()"
    )
    environment = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=False, timeout=60)
    assert done.returncode == EXIT_DISRUPTED


def test_a_server_that_gets_sigterm_ends_with_its_log_and_without_the_end_of_python() -> None:
    """Which takes seconds after torch was imported, and may wait for threads."""
    code = (
        "import atexit, os, signal, threading, time; from finetune_trainer.process import environment\n"
        "atexit.register(print, 'the end of Python'); threading.Thread(target=time.sleep, args=(600,)).start()\n"
        "print('its log'); environment.end_at_once_on_sigterm(); os.kill(os.getpid(), signal.SIGTERM); signal.pause()"
    )
    environment = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=False, timeout=60, stdout=subprocess.PIPE, text=True
    )
    assert (done.returncode, done.stdout) == (0, "its log\n")


def test_preflight_reads_the_data_without_torch() -> None:
    """It is imported when the model is compared, which is after every line was read."""
    loaded = loaded_by("import finetune_trainer.preflight.preflight, finetune_trainer.data.select.survey")
    assert "finetune_trainer.data.select.survey" in loaded
    assert "torch.nn" not in loaded


@pytest.mark.parametrize(("missing", "command"), [("msgspec", "validate"), ("rich", "train")])
def test_what_is_not_installed_is_named_with_the_command_that_installs_it(
    tmp_path: Path, missing: str, command: str
) -> None:
    file = write(tmp_path / "train.jsonl", [EXAMPLE] * 10)
    job = tmp_path / "job.yaml"
    job.write_text("kind: FineTuneJob\n")
    code = (
        f"import sys; sys.modules[{missing!r}] = None; sys.argv[1:] = [{command!r}, sys.argv[1]]\n"
        "from finetune_trainer.__main__ import main; main()"
    )
    argv = [sys.executable, "-c", code, str(file if command == "validate" else job)]
    environment = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"The Python package {missing} is not installed: finetune-trainer needs the extra 'trainer'. "
        "In a checkout of finetune-operator: .venv/bin/pip install '.[trainer]'"
    ]


def test_an_evaluation_without_benchmarks_does_not_load_lm_eval_and_what_it_brings() -> None:
    loaded = loaded_by(
        "import finetune_trainer.evaluation.evaluate, sys\n"
        "from transformers.generation import candidate_generator\n"
        "assert sys.modules.pop('sklearn') is None"
    )
    assert not {name for name in loaded if name.partition(".")[0] in ("lm_eval", "sklearn", "evaluate")}
