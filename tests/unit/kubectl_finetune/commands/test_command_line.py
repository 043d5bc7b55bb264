"""The program: it starts fast, exits with its codes, and never shows a traceback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.unit.kubectl_finetune.cluster_objects import SUCCEEDED, TRAINING, job

SECONDS = 60
SLOW = {"finetune_api", "finetune_operator", "httpx", "kubernetes", "pydantic", "rich", "yaml"}


def environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "KUBECONFIG")}
    return {**kept, "PATH": f"{folder}:{kept['PATH']}", "PYTHONPATH": ":".join(sys.path)}


def fake_kubectl(folder: Path, script: str) -> None:
    """A kubectl that answers as the script says; $* are its arguments."""
    program = folder / "kubectl"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def run(folder: Path, *words: str, **options: str) -> subprocess.CompletedProcess[str]:
    return run_python(folder, "-m", "kubectl_finetune", *words, **options)


def run_python(folder: Path, *words: str, **options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        env={**environment(folder), **options},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_help_loads_nothing_that_it_does_not_need(tmp_path: Path) -> None:
    """What makes it take less than half a second, which a busy machine can't measure."""
    code = (
        "import sys\nfrom kubectl_finetune.__main__ import main\nsys.argv = ['kubectl-finetune', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print('LOADED', *{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    shown, loaded = done.stdout.split("LOADED")
    assert "watch" in shown and "diagnose" in shown
    assert not SLOW & set(loaded.split())


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ([], 2, "Usage"),
        (["status"], 2, "NAME"),
        (["status", "--", "--all"], 2, "can't be the name"),
        (["status", "pods/x"], 2, "ftj/NAME"),
        (["rerun", "mdep/x"], 2, "this command knows"),
        (["watch", "x", "--timeout=soon"], 2, "90s, 10m or 1h30m"),
        (["logs", "x", "--rank=-1"], 2, "rank"),
        (["logs", "x", "--rank=0", "--all"], 2, "exclude each other"),
        (["nothing"], 2, "No such command"),
        (["validate", "/nowhere.yaml"], 2, "can't be read"),
        (["validate", "/"], 2, "can't be read"),
        (["init", "UPPER"], 2, "can't be the name"),
    ],
)
def test_wrong_usage_gives_a_message(tmp_path: Path, words: list[str], code: int, told: str) -> None:
    fake_kubectl(tmp_path, "exit 1")
    done = run(tmp_path, *words)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert told in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("script", "code", "told"),
    [
        ("echo '<html>'", 1, "not JSON"),
        ("echo '[]'", 0, "not looked at yet"),
        ("printf '\\377\\376'", 1, "not JSON"),
        ("kill -9 $$", 1, "without a message"),
    ],
)
def test_an_answer_that_is_none_ends_with_a_code_and_a_message(
    tmp_path: Path, script: str, code: int, told: str
) -> None:
    fake_kubectl(tmp_path, script)
    done = run(tmp_path, "status", "x")
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert told in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("script", "code", "told"),
    [
        ("echo 'Error from server (NotFound): finetunejobs \"x\" not found' >&2; exit 1", 5, "not found"),
        ("echo 'Error from server (Forbidden): no' >&2; exit 1", 6, "role"),
        ("echo 'Unable to connect to the server' >&2; exit 1", 6, "KUBECONFIG"),
    ],
)
@pytest.mark.parametrize("command", ["status", "watch", "events", "suspend"])
def test_a_failure_of_kubectl_ends_with_an_exit_code_and_a_message(
    tmp_path: Path, command: str, script: str, code: int, told: str
) -> None:
    fake_kubectl(tmp_path, script)
    done = run(tmp_path, command, "x")
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert told in done.stderr + done.stdout


def test_a_bug_is_reported_as_one(tmp_path: Path) -> None:
    code = (
        "import kubectl_finetune.commands.cli, kubectl_finetune.__main__ as main\n"
        "def broken(**_): raise RuntimeError('oh')\nkubectl_finetune.commands.cli.app = broken\nmain.main()"
    )
    for debug in ("", "1"):
        done = run_python(tmp_path, "-c", code, KUBECTL_FINETUNE_DEBUG=debug)
        assert ("Traceback" in done.stderr) == bool(debug)
        assert debug or (done.returncode == 70 and "RuntimeError: oh" in done.stderr)


def answers(folder: Path, objects: list[object], *, pods: str = "sleep 60", then: str = "sleep 60") -> None:
    """A kubectl whose watch of the object tells these states, half a second apart; `pods` is what it does with Pods."""
    for number, found in enumerate(objects):
        event = {"type": "ADDED" if number == 0 else "MODIFIED", "object": found}
        (folder / f"{number}.json").write_text(json.dumps(event) + "\n")
    told = "; ".join(f"cat {folder}/{number}.json; sleep 0.5" for number in range(len(objects)))
    lines = (f'*"get pods"*|*"get events"*) {pods};;', f'*"get finetunejobs"*) {told}; {then};;')
    fake_kubectl(folder, 'case "$*" in\n' + "\n".join(lines) + "\nesac")


FORBIDDEN = "echo 'Error from server (Forbidden): pods is forbidden' >&2; exit 1"


def test_a_watch_ends_with_the_run_and_says_once_what_it_may_not_show(tmp_path: Path) -> None:
    answers(tmp_path, [job(TRAINING), job(TRAINING), job(SUCCEEDED)], pods=FORBIDDEN)
    done = run(tmp_path, "watch", "router")
    assert done.returncode == 0, done.stderr
    lines = [line[10:] for line in done.stdout.splitlines()]
    assert [line.split()[0] for line in lines if "not shown" not in line] == ["Training", "Succeeded"]
    assert sum("not shown" in line for line in lines) == 2, "Pods and Events"
    assert "\x1b" not in done.stdout


def test_a_watch_that_the_server_ended_goes_on(tmp_path: Path) -> None:
    """As it does after half an hour or so."""
    again, end = tmp_path / "again", tmp_path / "end.json"
    answers(tmp_path, [job(TRAINING)], then=f"test -e {again} && cat {end}; touch {again}")
    end.write_text(json.dumps({"type": "MODIFIED", "object": job(SUCCEEDED)}) + "\n")
    done = run(tmp_path, "watch", "router", "--timeout=40s")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == 2


def test_a_deadline_ends_the_watch_and_not_the_run(tmp_path: Path) -> None:
    answers(tmp_path, [job(TRAINING)])
    done = run(tmp_path, "watch", "router", "--timeout=1s")
    assert done.returncode == 3
    assert "has not ended after 1s; it goes on" in done.stderr


def test_an_object_that_is_deleted_ends_the_watch(tmp_path: Path) -> None:
    answers(tmp_path, [job(TRAINING)], then=f"cat {tmp_path}/deleted.json; sleep 60")
    (tmp_path / "deleted.json").write_text(json.dumps({"type": "DELETED", "object": job(TRAINING)}) + "\n")
    done = run(tmp_path, "watch", "router")
    assert done.returncode == 5
    assert "was deleted" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_watch_that_is_ended_leaves_no_kubectl_behind(tmp_path: Path, number: signal.Signals) -> None:
    pids = tmp_path / "pids"
    answers(
        tmp_path, [job(TRAINING)], pods=f"echo $$ >> {pids}; exec sleep 60", then=f"echo $$ >> {pids}; exec sleep 60"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "kubectl_finetune", "watch", "router"],
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts what is in its background with SIGINT ignored, and the suite may be that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + SECONDS
    while not pids.exists() or len(pids.read_text().split()) < 3:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    _, told = process.communicate(timeout=SECONDS)
    assert process.returncode == 128 + number
    assert "Traceback" not in told
    for pid in pids.read_text().split():
        assert not Path(f"/proc/{pid}").exists()


def test_a_question_without_a_terminal_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text(json.dumps(job(TRAINING)))
    fake_kubectl(tmp_path, f"cat {tmp_path}/job.json")
    done = run(tmp_path, "rerun", "router")
    assert done.returncode == 2
    assert "is Training and will be stopped" in done.stderr and "--yes" in done.stderr


def test_text_that_the_terminal_can_not_show_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text(json.dumps(job(TRAINING)))
    fake_kubectl(tmp_path, f"cat {tmp_path}/job.json")
    done = run(tmp_path, "status", "router", PYTHONIOENCODING="ascii", LC_ALL="C")
    assert done.returncode == 0, done.stderr
    assert "42%" in done.stdout and "█" not in done.stdout


def test_a_reader_that_has_enough_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text(json.dumps(job(TRAINING)))
    fake_kubectl(tmp_path, f"cat {tmp_path}/job.json")
    process = subprocess.Popen(
        [sys.executable, "-m", "kubectl_finetune", "status", "router"],
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    process.wait(SECONDS)
