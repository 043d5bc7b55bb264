"""The synchronous client is what `make generate` makes of the asynchronous one, and imports nothing of it."""

from __future__ import annotations

import importlib.util
import inspect
import subprocess
import sys
from pathlib import Path

import finetune_client
from finetune_client.aio.connection import Connection as AsyncConnection
from finetune_client.sync.connection import Connection

ROOT = Path(__file__).resolve().parents[3]
SYNC = ROOT / "operator" / "src" / "finetune_client" / "sync"


def test_it_is_up_to_date(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "operator" / "make_sync_client.py", tmp_path], check=True)
    made = {file.name: file.read_text() for file in tmp_path.glob("*.py")}
    kept = {name: (SYNC / name).read_text() for name in made}
    assert made == kept, "run `make generate`"
    assert {file.name for file in SYNC.glob("*.py")} - made.keys() == {"__init__.py", "connection.py"}
    for name, text in made.items():
        assert "aio" not in text.partition("\n")[2] and "Async" not in text, name


def test_both_connections_have_the_same_methods() -> None:
    def methods(of: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(found).parameters)
            for name, found in inspect.getmembers(of, inspect.isfunction)
            if not name.startswith("_") or name == "__init__"
        }

    assert methods(Connection) == methods(AsyncConnection)


def test_importing_it_loads_no_kubernetes_no_boto3_no_pandas() -> None:
    """A notebook waits for each of them only when it is used."""
    program = "import finetune_client, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert set(done.stdout.split()).isdisjoint({"kubernetes", "boto3", "pandas", "aiohttp", "openai", "torch", "kopf"})


def test_it_has_its_types() -> None:
    spec = importlib.util.find_spec("finetune_client")
    assert spec is not None and spec.origin is not None
    assert (Path(spec.origin).parent / "py.typed").exists()
    assert all(hasattr(finetune_client, name) for name in finetune_client.__all__)
