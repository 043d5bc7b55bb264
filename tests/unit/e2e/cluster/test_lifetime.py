"""Servers go with the process that they serve, however that ends; nobody else's process is touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from e2e.cluster import kind, lifetime, own, resolve
from e2e.cluster.lifetime import new_home, remove_home, temporary_home, this_process
from e2e.cluster.machine import processes
from e2e.cluster.machine.children import with_parent
from e2e.cluster.machine.processes import Identity

SLEEP = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
SECONDS = 20.0

# An owner: starts a server in a home, says where that is, and waits to be killed.
OWNER = """
import sys, time
from e2e.cluster import lifetime
from e2e.cluster.machine import processes
with lifetime.temporary_home("test") as home:
    processes.start(home, "sleeper", [sys.executable, "-S", "-c", "import time; time.sleep(60)"])
    print(home, flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))


def eventually(check: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + SECONDS
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def start_owner() -> tuple[subprocess.Popen[str], Path, Identity]:
    """An owner that is running, its home, and its server."""
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    home = Path(owner.stdout.readline().strip())
    return owner, home, server_of(home)


def server_of(home: Path, name: str = "sleeper") -> Identity:
    found = processes.load(home / "run" / f"{name}.json")
    assert found is not None
    assert processes.is_alive(found)
    return found


def watchers_of(home: Path) -> list[Identity]:
    """The processes that watch over a home; this test started them, and looks for them by their whole command line."""
    command = f"-m\0e2e.cluster.lifetime\0{home}\0".encode()
    pids = [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if command in _command_line(entry)]
    return [found for pid in pids if (found := processes.identify(pid)) is not None]


def _command_line(entry: Path) -> bytes:
    try:
        return (entry / "cmdline").read_bytes()
    except OSError:
        return b""


def test_servers_end_with_a_block_and_so_do_their_files_and_their_watcher() -> None:
    with temporary_home("test") as home:
        processes.start(home, "sleeper", SLEEP)
        server = server_of(home)
        assert eventually(lambda: len(watchers_of(home)) == 1)
    assert not processes.is_alive(server)
    assert list(home.parent.iterdir()) == []
    assert eventually(lambda: not watchers_of(home))


def test_servers_die_with_an_owner_that_was_killed() -> None:
    owner, home, server = start_owner()
    owner.kill()  # and nobody has waited for it yet: a zombie is dead enough
    assert eventually(lambda: not processes.is_alive(server))
    assert eventually(lambda: list(home.parent.iterdir()) == [])
    owner.communicate(timeout=SECONDS)


def test_the_next_start_sweeps_where_the_watcher_was_killed_too() -> None:
    owner, home, server = start_owner()
    assert eventually(lambda: len(watchers_of(home)) == 1)
    for watcher in watchers_of(home):
        os.kill(watcher.pid, signal.SIGKILL)
    owner.kill()
    owner.communicate(timeout=SECONDS)
    assert processes.is_alive(server)
    with temporary_home("test") as mine:
        assert not processes.is_alive(server)
        assert sorted(mine.parent.iterdir()) == [mine, mine.with_suffix(".json")]


def test_cluster_down_ends_what_a_killed_owner_left_running(monkeypatch: pytest.MonkeyPatch) -> None:
    owner, home, server = start_owner()
    assert eventually(lambda: len(watchers_of(home)) == 1)
    for watcher in watchers_of(home):
        os.kill(watcher.pid, signal.SIGKILL)
    owner.kill()
    owner.communicate(timeout=SECONDS)
    monkeypatch.setattr(own, "down", lambda: None)  # this machine's cluster is not the test's
    monkeypatch.setattr(kind, "docker_answers", lambda: False)
    resolve.down()
    assert not processes.is_alive(server)
    assert list(home.parent.iterdir()) == []


def test_a_sweep_spares_what_lives_and_who_only_has_a_recorded_pid() -> None:
    owner, home, server = start_owner()
    with subprocess.Popen(SLEEP) as stranger, temporary_home("test") as mine:
        now = processes.identify(stranger.pid)
        assert now is not None
        dead = Identity(now.pid, now.started - 1, now.boot)
        left = new_home("test", this_process())
        (left / "run").mkdir()
        processes.save(dead, left / "run" / "etcd.json")
        processes.save(dead, left.with_suffix(".json"))
        lifetime.sweep()
        assert not left.exists()
        assert stranger.poll() is None
        assert mine.exists()
        assert processes.is_alive(server)
        stranger.kill()
    owner.kill()
    owner.communicate(timeout=SECONDS)
    assert eventually(lambda: not home.exists())


def test_a_server_outlives_the_thread_that_started_it() -> None:
    with temporary_home("test") as home:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(processes.start, home, "sleeper", SLEEP).result()
        time.sleep(0.2)
        server_of(home)


def test_a_server_can_belong_to_another_process_than_the_one_that_starts_it() -> None:
    """As with workers of a test run, which share servers that the first of them started."""
    with subprocess.Popen(SLEEP) as other:
        found = processes.identify(other.pid)
        assert found is not None
        home = new_home("test", found)
        processes.start(home, "sleeper", SLEEP)
        server = server_of(home)
        other.kill()
        assert eventually(lambda: not processes.is_alive(server) and not home.exists())


def test_nothing_starts_in_a_home_that_was_removed() -> None:
    home = new_home("test", this_process())
    remove_home(home)
    remove_home(home)
    with pytest.raises(FileNotFoundError):
        processes.start(home, "sleeper", SLEEP)


def test_a_server_that_was_not_yet_written_down_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is killed between the fork and the note leaves nothing that nobody knows of."""

    def killed(identity: Identity, file: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(processes, "save", killed)
    mark = tmp_path / "mark"
    with pytest.raises(KeyboardInterrupt):
        processes.start(tmp_path, "toucher", ["touch", mark])
    (child,) = [child for identity, child in processes._children.items() if "touch" in child.args]  # type: ignore[operator]
    assert child.wait(SECONDS) != 0
    assert not mark.exists()


def test_a_child_with_its_parent_is_killed_with_it() -> None:
    program = (
        "import subprocess, sys, time\n"
        "from e2e.cluster.machine.children import with_parent\n"
        "child = subprocess.Popen(with_parent([sys.executable, '-S', '-c', 'import time; time.sleep(60)']))\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = processes.identify(int(parent.stdout.readline()))
    assert child is not None
    time.sleep(0.3)  # until it is what it becomes
    parent.kill()
    parent.wait(SECONDS)
    assert eventually(lambda: not processes.is_alive(child))


def test_a_child_with_its_parent_keeps_its_status() -> None:
    done = subprocess.run(with_parent([sys.executable, "-S", "-c", "raise SystemExit(7)"]), check=False)
    assert done.returncode == 7
