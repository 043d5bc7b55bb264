"""What `finetune-trainer import-openai-eval` writes is taken by the API server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.integration.operator.admission.shortest_specs import DRY_RUN
from tests.integration.operator.api import Api
from tests.unit.trainer.openai_evals.evals import EXACT, ITEM, PROMPT, an_eval, import_eval

MESSAGES = [
    {"role": "developer", "content": "Say 'ok': \"yes\"\n\ttab, \u2028, \U0001f600, {single} braces, 'quotes'"},
    {"role": "assistant", "content": "no: 1"},
    {"role": "user", "content": "{{item.question}} {{sample.output_text}}"},
]
SIMILAR = {"type": "text_similarity", "input": "{{sample.output_text}}", "reference": "{{item.answer}}"}
CRITERIA: dict[str, list[dict[str, Any]]] = {
    "string_check": [
        {**EXACT, "name": operation, "operation": operation} for operation in ("eq", "ne", "like", "ilike")
    ],
    "text_similarity": [
        {**SIMILAR, "name": metric, "evaluation_metric": metric, "pass_threshold": 1}
        for metric in ("cosine", "fuzzy_match", "bleu", "gleu", "meteor", "rouge_1", "rouge_5", "rouge_l")
    ],
    "models": [
        {
            "type": "score_model",
            "name": "Score!",
            "model": "ft:gpt-4.1-mini:acme::Bx1" + "y" * 40,
            "range": [-1, 1],
            "pass_threshold": 0,
            "input": MESSAGES,
            "sampling_params": {"temperature": 1, "top_p": 0.9, "seed": 7, "max_completions_tokens": 32},
        },
        {
            "type": "label_model",
            "name": "Label",
            "model": "gpt-4.1",
            "input": MESSAGES,
            "labels": ["yes", "no", "on: off"],
            "passing_labels": ["yes"],
        },
    ],
    "multi": [
        {
            "type": "multi",
            "name": "m",
            "graders": {"a_b": {**EXACT, "name": "a"}, "c": {**EXACT, "name": "c", "operation": "like"}},
            "calculate_output": "0.5 * a_b + 0.5 * c",
        }
    ],
}


@pytest.mark.parametrize("criteria", CRITERIA)
@pytest.mark.parametrize(
    "data", [{"item": ITEM}, {"item": ITEM, "sample": {"output_text": "4"}}], ids=["asked", "there"]
)
def test_an_imported_eval_is_taken(api: Api, tmp_path: Path, criteria: str, data: object) -> None:
    imported = import_eval(
        tmp_path, an_eval(*CRITERIA[criteria], name="123: Sums"), *PROMPT, "--name", "sums", data=[data]
    )
    assert imported.code == 0, imported.told
    spec = imported.spec
    taken = api.create("Evaluation", "sums", spec, query=f"{DRY_RUN}&fieldValidation=Strict")["spec"]
    assert [grader["name"] for grader in taken["graders"]] == [grader["name"] for grader in spec["graders"]]
