"""`finetune-trainer evaluate` on what `import-openai-eval` wrote: real S3, a judge behind a stub API."""

from __future__ import annotations

import json
from pathlib import Path

from finetune_api.evaluation import BASELINE, EvaluationSpec
from finetune_api.pod_contracts.run import EndpointConfig, NamedModel
from finetune_trainer.evaluation.evaluate import evaluate
from tests.integration.trainer_evaluation.buckets import Bucket
from tests.integration.trainer_evaluation.stub_api import grades, stub_api
from tests.integration.trainer_evaluation.test_evaluate import by_name, make_run
from tests.unit.trainer.openai_evals.evals import EXACT, PROMPT, an_eval, import_eval

TONE = {
    "type": "score_model",
    "name": "tone",
    "model": "gpt-4.1",
    "range": [0, 5],
    "pass_threshold": 4,
    "input": [{"role": "user", "content": "{{item.question}} {{sample.output_text}}"}],
}


def test_an_imported_eval_with_outputs_is_graded_as_openai_graded_it(bucket: Bucket, tmp_path: Path) -> None:
    """4 of 5 right by string_check, and every one passes by the rubric at exactly the threshold's number."""
    data: list[object] = [
        {"item": {"question": f"{n}+0?", "reference": str(n)}, "sample": {"output_text": str(min(n, 3))}}
        for n in range(5)
    ]
    exact = {**EXACT, "reference": "{{ item.reference }}"}
    imported = import_eval(tmp_path, an_eval(exact, TONE), *PROMPT, data=data)
    assert imported.code == 0, imported.told
    spec = EvaluationSpec.from_wire(imported.spec)
    dataset = bucket.put("imported/sums.jsonl", (tmp_path / "sums.jsonl").read_bytes())
    outputs = bucket.put("imported/sums-outputs.jsonl", (tmp_path / "sums-outputs.jsonl").read_bytes())
    with stub_api(grades(4)) as api:
        run = make_run(
            bucket,
            dataset,
            {},
            graders=spec.graders,
            endpoints=[EndpointConfig(name="gpt-4-1", url=api.url, model="gpt-4.1")],
            answers_uri=bucket.uri("imported/answers"),
        ).model_copy(update={"models": [NamedModel(name=BASELINE, outputs_uri=outputs)]})
        scores = by_name(evaluate(run).scores)
    items = [json.loads(line) for line in bucket.read(f"{run.output_uri}/output-items/{BASELINE}.jsonl").splitlines()]
    assert [(item["object"], item["status"], item["datasource_item_id"]) for item in items] == [
        ("eval.run.output_item", "fail" if n == 4 else "pass", n + 1) for n in range(5)
    ]
    assert items[4]["datasource_item"]["question"] == "4+0?"
    assert [(one["name"], one["type"], one["passed"], one["score"]) for one in items[4]["results"]] == [
        ("exact", "StringCheck", False, 0),
        ("tone", "ScoreModel", True, 0.8),
    ]
    # Who has such items has an eval's data: they can be imported again.
    (tmp_path / "again").mkdir()
    again = import_eval(
        tmp_path / "again", an_eval({**EXACT, "reference": "{{item.openai_reference}}"}), *PROMPT, data=items
    )
    assert again.code == 0, again.told
    assert (tmp_path / "again" / "sums-outputs.jsonl").read_text() == (tmp_path / "sums-outputs.jsonl").read_text()
    assert (scores[BASELINE, "exact"].passed, scores[BASELINE, "exact"].failed) == (4, 1)
    assert (scores[BASELINE, "tone"].passed, scores[BASELINE, "tone"].score) == (5, 0.8)
