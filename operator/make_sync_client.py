"""Makes finetune_client.sync from finetune_client.aio: `python operator/make_sync_client.py [FOLDER]`.

Only the connection is written twice: everything above it is the same without `async` and `await`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import unasync

SOURCE = Path(__file__).resolve().parent / "src" / "finetune_client" / "aio"
BY_HAND = frozenset({"__init__.py", "connection.py"})
NAMES = {
    "aclosing": "closing",
    "aio": "sync",
    "AsyncClusterObject": "ClusterObject",
    "AsyncCollection": "Collection",
    "AsyncEvaluation": "Evaluation",
    "AsyncFineTuneClient": "FineTuneClient",
    "AsyncFineTuneJob": "FineTuneJob",
    "AsyncModelDeployment": "ModelDeployment",
    "AsyncOpenAI": "OpenAI",
    "AsyncRun": "Run",
}
HEAD = "# Made from finetune_client/aio/{name} by `make generate`; do not edit.\n"


def make(target: Path) -> None:
    """Write every module of the synchronous client into a folder."""
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        source, made = Path(scratch) / "aio", Path(scratch) / "sync"
        shutil.copytree(SOURCE, source, ignore=shutil.ignore_patterns("__pycache__"))
        modules = sorted(file for file in source.glob("*.py") if file.name not in BY_HAND)
        rule = unasync.Rule(f"{source}/", f"{made}/", additional_replacements=NAMES)
        unasync.unasync_files([str(file) for file in modules], [rule])
        for file in modules:
            (target / file.name).write_text(HEAD.format(name=file.name) + (made / file.name).read_text())
    written = [str(target / file.name) for file in modules]
    config = f"--config={SOURCE.parents[3] / 'pyproject.toml'}"
    for words in (["check", "--fix", "--quiet", "--exit-zero", "--select=I"], ["format", "--quiet"]):
        subprocess.run([sys.executable, "-m", "ruff", words[0], config, *words[1:], *written], check=True)


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else SOURCE.parent / "sync")
