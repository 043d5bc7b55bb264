"""A model learns to call tools, and its calls are evaluated by name and arguments: from JSON Lines to the score."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from finetune_api.evaluation import BASELINE, Generation
from finetune_api.finetunejob import Adapter, TrainingData
from finetune_api.graders import Grader
from finetune_api.pod_contracts.run import EvaluateRun, ModelSource, NamedModel
from finetune_trainer.evaluation.evaluate import evaluate
from tests.integration.trainer.runs import JOB, Workplace, train_here
from tests.integration.trainer_evaluation.tiny_models import make_tokenizer, save_model

# As Qwen's: tools in the first message, a call as JSON between tags, answers of tools as messages of the user.
TEMPLATE = (
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool.function.name }} {% endfor %}"
    "<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ 'user' if m.role == 'tool' else m.role }}\n{{ m.content }}"
    "{% for call in m.tool_calls or [] %}<tool_call>\n{{ {'name': call.function.name, 'arguments': "
    "call.function.arguments} | tojson }}\n</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOOLS = [{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in ("on", "off")]


def line(word: str, *calls: tuple[str, dict[str, Any]], text: str | None = None) -> dict[str, Any]:
    made = [{"type": "function", "function": {"name": n, "arguments": json.dumps(given)}} for n, given in calls]
    answer = {"role": "assistant", "content": text, **({"tool_calls": made} if made else {})}
    return {"tools": TOOLS, "messages": [{"role": "user", "content": word}, answer]}


LINES = [
    line("light", ("on", {"n": 1})),
    line("dark", ("off", {"n": 1})),
    line("night", ("off", {"n": 2})),
    line("hello", text="hi"),
]


def test_a_tuned_model_calls_the_tools_that_it_was_shown(workplace: Workplace, tmp_path: Path) -> None:
    bucket = workplace.bucket
    folder = save_model(tmp_path / "base", seed=3)
    tokenizer = make_tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    base = ModelSource(uri=bucket.put_folder("models/tools", folder))
    data = TrainingData(uri=bucket.put_lines("data/tools.jsonl", LINES * 4))
    run = workplace.train_run(
        "tools",
        {"epochs": 20.0, "batch_size": 8, "learning_rate": 3e-3, "checkpoint_every_steps": 40, "max_length": 128},
        model=base,
        adapter=Adapter(type="Full"),
        dataset=workplace.dataset(training=data, validation=None),
    )
    tuned = train_here(run, tmp_path / "train").result

    grader = {"name": "calls", "type": "ToolCall", "toolCall": {}}
    evaluation = EvaluateRun(
        job=JOB,
        storage=bucket.storage,
        output_uri=bucket.uri("tools-judged"),
        models=[
            NamedModel(name=BASELINE, model=base),
            NamedModel(name="tuned", model=ModelSource(uri=tuned.uri, digest=tuned.digest)),
        ],
        dataset_uri=bucket.put_lines("data/tools-held-out.jsonl", LINES),
        graders=[Grader.from_wire(grader)],
        generation=Generation(max_tokens=80),
    )
    report = evaluate(evaluation)
    scores = {score.candidate: score.score for score in report.scores}
    assert scores["tuned"] == 1.0
    assert scores[BASELINE] <= 0.25  # it calls nothing, which is right for one line in four

    samples = [json.loads(sample) for sample in bucket.read(bucket.uri("tools-judged/samples.jsonl")).splitlines()]
    assert [sample["outputTools"]["tuned"] for sample in samples] == [sample["referenceTools"] for sample in samples]
    assert [sample["outputs"]["tuned"] for sample in samples] == ["", "", "", "hi"]
    assert [sample["reference"] for sample in samples] == [None, None, None, "hi"]
