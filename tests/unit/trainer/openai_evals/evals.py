"""Evals as OpenAI's API returns them, and what the command makes of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner

from finetune_trainer.__main__ import app

EXACT = {
    "name": "exact",
    "type": "string_check",
    "input": "{{sample.output_text}}",
    "reference": "{{item.answer}}",
    "operation": "eq",
}
PROMPT = ("--prompt", "{{item.question}}")
ITEM = {"question": "2+2?", "answer": "4"}


@dataclass(frozen=True)
class Imported:
    """What a command wrote and told."""

    code: int
    told: str
    folder: Path
    name: str = "sums"

    @property
    def text(self) -> str:
        return (self.folder / f"{self.name}.yaml").read_text()

    @property
    def spec(self) -> dict[str, Any]:
        document: dict[str, Any] = yaml.safe_load(self.text)
        assert document["metadata"]["name"] == self.name
        spec: dict[str, Any] = document["spec"]
        return spec

    @property
    def graders(self) -> list[dict[str, Any]]:
        graders: list[dict[str, Any]] = self.spec["graders"]
        return graders

    def lines(self, suffix: str = "") -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / f"{self.name}{suffix}.jsonl").read_text().splitlines()]


def an_eval(*criteria: object, **fields: Any) -> dict[str, Any]:
    return {"id": "eval_1", "object": "eval", "name": "Sums", "testing_criteria": list(criteria), **fields}


def a_run(**data_source: Any) -> dict[str, Any]:
    return {"id": "evalrun_1", "object": "eval.run", "data_source": data_source}


def import_eval(
    folder: Path,
    value: object,
    *options: str,
    run: object = None,
    data: list[object] | bytes | None = None,
) -> Imported:
    """Run the command on files with these contents (JSON, or bytes as they are)."""
    argv = ["import-openai-eval", str(_write(folder / "given-eval.json", value)), "--output", str(folder)]
    if run is not None:
        argv += ["--run", str(_write(folder / "given-run.json", run))]
    if data is not None:
        lines = data if isinstance(data, bytes) else b"".join(json.dumps(line).encode() + b"\n" for line in data)
        argv += ["--data", str(_write(folder / "given.jsonl", lines))]
    done = CliRunner().invoke(app, [*argv, *options])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return Imported(done.exit_code, done.output, folder)


def import_one(folder: Path, criterion: object, item: object = ITEM, *options: str) -> Imported:
    """One criterion and one item."""
    return import_eval(folder, an_eval(criterion), *(options or PROMPT), data=[{"item": item}])


def _write(file: Path, content: object) -> Path:
    file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return file
