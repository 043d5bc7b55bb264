"""Tool calls as rewards: the calls of a completion are compared with those of its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.finetunejob import RFT, Dataset, Method, TrainingData, ValidationData
from finetune_api.run import ModelSource
from finetune_trainer.preflight.preflight import preflight
from finetune_trainer.process.failures import DiagnosedError
from tests.integration.trainer.methods.rft_runs import FULL, measured_rows
from tests.integration.trainer.methods.test_tool_calling import TEMPLATE, TOOLS
from tests.integration.trainer.methods.test_tool_calling import line as answered
from tests.integration.trainer.runs import Workplace, train_here
from tests.integration.trainer_evaluation.tiny_models import make_tokenizer, save_model

METHOD = Method(
    type="RFT",
    rft=RFT.from_wire(
        {
            "graders": [
                {"name": "calls", "type": "ToolCall", "toolCall": {"partialCredit": True}},
                {
                    "name": "says",
                    "type": "TextSimilarity",
                    "textSimilarity": {"reference": "{{item.word}}", "metric": "FuzzyMatch"},
                },
            ],
            "reward": "0.5*calls + 0.5*says",
            "completionsPerPrompt": 4,
            "maxCompletionTokens": 32,
        }
    ),
)
WORDS = {"light": "on", "dark": "off"}


def prompt(word: str, calls: Any) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": word}],
        "tools": TOOLS,
        "word": word,
        "reference_tools": calls,
    }


def call(name: str, arguments: str = '{"n": 1}') -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


@pytest.fixture(scope="module")
def caller(workplace: Workplace, tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    """A model that SFT has taught to call a tool, mostly the right one."""
    folder = save_model(tmp_path_factory.mktemp("caller"), seed=3)
    tokenizer = make_tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    base = ModelSource(uri=workplace.bucket.put_folder("models/rft-tools", folder))
    lines = [answered(word, (name, {"n": 1})) for word, name in WORDS.items()] * 8
    run = workplace.train_run(
        "rft-tools-start",
        {"epochs": 20.0, "batch_size": 8, "learning_rate": 3e-3, "checkpoint_every_steps": 40, "max_length": 128},
        model=base,
        adapter=FULL,
        dataset=workplace.dataset(
            training=TrainingData(uri=workplace.bucket.put_lines("data/rft-tools-sft.jsonl", lines)), validation=None
        ),
    )
    result = train_here(run, tmp_path_factory.mktemp("sft")).result
    return ModelSource(uri=result.uri, digest=result.digest)


def test_right_calls_are_rewarded(workplace: Workplace, caller: ModelSource, tmp_path: Path) -> None:
    lines = [prompt(word, [call(name)]) for word, name in WORDS.items()] * 8
    uri = workplace.bucket.put_lines("data/rft-tools.jsonl", lines)
    dataset = Dataset(training=TrainingData(uri=uri), validation=ValidationData(uri=uri))
    changes: dict[str, Any] = {"method": METHOD, "dataset": dataset, "model": caller, "adapter": FULL}
    hyperparameters = {"batch_size": 4, "total_steps": 4, "epochs": 1.0, "checkpoint_every_steps": 4, "max_length": 128}
    train_here(workplace.train_run("rft-tools", hyperparameters, **changes), tmp_path)
    (row,) = measured_rows(workplace, "rft-tools")
    assert float(row["valid_calls_reward_mean"]) > 0.5
    assert float(row["valid_calls_error_mean"]) == 0


@pytest.mark.parametrize(
    ("calls", "told"),
    [
        (
            "on",
            "reference_tools is not a list of tool calls as OpenAI's messages have them: Expected `array`, got `str`",
        ),
        ([call("on", "{n: 1}")], "reference_tools is not a list of tool calls as OpenAI's messages have them: "),
        ([{"name": "on"}], "Object missing required field `function`"),
    ],
)
def test_a_line_whose_calls_cant_be_compared_is_named(
    workplace: Workplace, tmp_path: Path, calls: Any, told: str
) -> None:
    lines = [prompt("light", [call("on")])] * 12 + [prompt("dark", calls)]
    dataset = Dataset(
        training=TrainingData(uri=workplace.bucket.put_lines("data/rft-broken-calls.jsonl", lines)),
        validation=ValidationData(split_percent=10),
    )
    with pytest.raises(DiagnosedError) as caught:
        preflight(workplace.preflight_run("rft-broken-calls", dataset=dataset, method=METHOD), tmp_path)
    failure = caught.value.failure
    assert failure.reason is Reason.DATASET_INVALID
    assert failure.dataset is not None
    (error,) = failure.dataset.errors
    assert error.line == 13
    assert told in error.message
