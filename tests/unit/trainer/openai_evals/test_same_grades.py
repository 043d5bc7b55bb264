"""Imported criteria grade as OpenAI's do: the values of the graders' acceptance cases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_api.graders import Grader
from finetune_grading.tool_calls import ToolCall
from tests.unit.grading.graders import all_compiled, grade_all
from tests.unit.grading.judges import StubJudge, replies
from tests.unit.trainer.openai_evals.evals import PROMPT, an_eval, import_eval

P1 = ("fuzzy wuzzy was a bear", "fuzzy wuzzy had no hair")
P2 = ("The cat sat on the mat.", "The cat is sitting on the mat.")
P3 = (
    "Your refund was issued on 3 May and arrives within five days.",
    "The refund was issued on May 3 and will arrive within five days.",
)


def scores(
    folder: Path, criterion: object, item: dict[str, Any], output: str, *calls: ToolCall, judge: object = None
) -> dict[str, float | None]:
    """What the imported graders say of an output to the imported line."""
    imported = import_eval(folder, an_eval(criterion), *PROMPT, data=[{"item": {"question": "?", **item}}])
    assert imported.code == 0, imported.told
    judges = {name: judge for grader in imported.graders if (name := Grader.from_wire(grader).asks)}
    compiled = all_compiled([Grader.from_wire(one) for one in imported.graders], judges)
    (line,) = imported.lines()
    return {name: grade.score for name, grade in grade_all(compiled, line, output, *calls).items()}


@pytest.mark.parametrize(
    ("operation", "output", "reference", "score"),
    [
        ("ilike", "The Refund", "refund", 1),
        ("eq", "The Refund", "refund", 0),
        ("ne", "The Refund", "refund", 1),
        ("like", "The Refund", "refund", 0),
        ("ilike", "STRASSE", "straße", 1),
        ("eq", " 4", "4", 0),
    ],
)
def test_an_imported_string_check_has_openais_score(
    tmp_path: Path, operation: str, output: str, reference: str, score: float
) -> None:
    criterion = {
        "type": "string_check",
        "name": "g",
        "input": "{{ sample.output_text }}",
        "reference": "{{ item.reference }}",
        "operation": operation,
    }
    assert scores(tmp_path, criterion, {"reference": reference}, output) == {"g": score}


@pytest.mark.parametrize(
    ("metric", "pair", "score"),
    [
        *(("fuzzy_match", pair, score) for pair, score in ((P1, 0.755556), (P2, 0.83125), (P3, 0.861789))),
        *(("bleu", pair, score) for pair, score in ((P1, 0.213644), (P2, 0.423837), (P3, 0.387813))),
        *(("gleu", pair, score) for pair, score in ((P1, 0.214286), (P2, 0.5), (P3, 0.46))),
        *(("meteor", pair, score) for pair, score in ((P1, 0.375), (P2, 0.875743), (P3, 0.832084))),
        *((f"rouge_{n}", P3, score) for n, score in ((1, 0.8), (2, 0.434783), (3, 0.285714), (4, 0.105263), (5, 0.0))),
        ("rouge_l", P3, 0.72),
    ],
)
def test_an_imported_text_similarity_has_openais_score(
    tmp_path: Path, metric: str, pair: tuple[str, str], score: float
) -> None:
    criterion = {
        "type": "text_similarity",
        "name": "g",
        "input": "{{sample.output_text}}",
        "reference": "{{item.reference}}",
        "evaluation_metric": metric,
        "pass_threshold": 0.4,
    }
    assert scores(tmp_path, criterion, {"reference": pair[1]}, pair[0]) == {"g": pytest.approx(score, abs=1e-6)}


@pytest.mark.parametrize(("result", "score", "passes"), [(7.5, 1.0, True), (4, 0.8, True), (3.9, 0.78, False)])
def test_score_model_passes_at_the_same_number_of_its_range(
    tmp_path: Path, result: float, score: float, passes: bool
) -> None:
    criterion = {
        "type": "score_model",
        "name": "g",
        "model": "gpt-4.1",
        "range": [0, 5],
        "pass_threshold": 4,
        "input": [{"role": "user", "content": "{{sample.output_text}}"}],
    }
    assert scores(tmp_path, criterion, {}, "hi", judge=StubJudge(replies(result))) == {"g": pytest.approx(score)}
    (grader,) = yaml.safe_load((tmp_path / "sums.yaml").read_text())["spec"]["graders"]
    assert (score >= grader["passThreshold"]) is passes


def test_an_imported_label_model_has_openais_score(tmp_path: Path) -> None:
    criterion = {
        "type": "label_model",
        "name": "g",
        "model": "gpt-4.1",
        "labels": ["good", "fair", "bad"],
        "passing_labels": ["good", "fair"],
        "input": [{"role": "user", "content": "{{sample.output_text}}"}],
    }
    assert scores(tmp_path, criterion, {}, "hi", judge=StubJudge(replies("fair"))) == {"g": 1.0}


@pytest.mark.parametrize(
    ("template", "output", "calls", "reference", "score"),
    [
        ("{{sample.output_json.name}}", '{"name": "Jon"}', (), "Jon", 1.0),
        ('{{sample.output_json["name"][0]}}', '{"name": ["Jon"]}', (), "Jon", 1.0),
        ("{{sample.output_json.name}}", "Jon", (), "Jon", None),
        ("{{sample.output_tools[0].function.name}}", "", (ToolCall("f", {}), ToolCall("g", {})), "f", 1.0),
        ("{{sample.output_tools[1]['function'].name}}", "", (ToolCall("f", {}), ToolCall("g", {})), "g", 1.0),
        ("{{sample.choices[0].message.content}}", "Jon", (), "Jon", 1.0),
        ("{{ sample.choices[0].message.tool_calls[0].function.name }}", "", (ToolCall("f", {}),), "f", 1.0),
        ("Hi {{sample.output_text}}{{item.mark}}", "Jon", (), "Hi Jon!", 1.0),
    ],
)
def test_templates_read_the_same_of_the_output(
    tmp_path: Path, template: str, output: str, calls: tuple[ToolCall, ...], reference: str, score: float | None
) -> None:
    criterion = {"type": "string_check", "name": "g", "input": template, "reference": reference, "operation": "eq"}
    assert scores(tmp_path, criterion, {"mark": "!"}, output, *calls) == {"g": score}


def test_fields_of_items_are_read_whatever_their_names_mean_in_our_datasets(tmp_path: Path) -> None:
    taken = ["messages", "prompt", "completion", "reference", "reference_tools", "tools", "input", "system", "label"]
    item = {name: f"<{name}>" for name in [*taken, "openai_reference"]} | {"nested": {"list": [{"x": 7}]}}
    template = "".join(f"{{{{item.{name}}}}}" for name in item if name != "nested") + "{{item.nested.list[0].x}}"
    expected = "".join(str(item[name]) for name in item if name != "nested") + "7"
    criterion = {
        "type": "string_check",
        "name": "g",
        "input": "{{sample.output_text}}",
        "reference": template,
        "operation": "eq",
    }
    assert scores(tmp_path, criterion, item, expected) == {"g": 1.0}


def test_a_formula_reads_scores_as_numbers_of_their_range(tmp_path: Path) -> None:
    """OpenAI's score_model in a multi grader is 3 of 0 to 5, and not 0.6; names and functions stay apart."""
    criterion = {
        "type": "multi",
        "name": "both",
        "graders": {
            "max": {
                "type": "string_check",
                "name": "ignored",
                "input": "{{sample.output_text}}",
                "reference": "hi",
                "operation": "eq",
            },
            "rubric": {
                "type": "score_model",
                "name": "rubric",
                "model": "gpt-4.1",
                "range": [0, 5],
                "input": [{"role": "user", "content": "{{sample.output_text}}"}],
            },
        },
        "calculate_output": "max(0, rubric - 2.5) * max",
    }
    found = scores(tmp_path, criterion, {}, "hi", judge=StubJudge(replies(3)))
    assert found == {"max": 1.0, "rubric": pytest.approx(0.6), "both": pytest.approx(0.5)}


SOURCE = """def grade(sample, item):
    if "messages" in item:
        return 0.5
    return float(item["reference"] == sample["output_text"] and item["unit"] == "m")
"""


def test_an_imported_python_grader_reads_the_items_fields_by_their_names_there(tmp_path: Path) -> None:
    """`reference` is called openai_reference in the dataset, whose own fields of such names are none of the item's."""
    criterion = {"type": "python", "name": "code", "source": SOURCE, "pass_threshold": 0.9, "image_tag": "2025-05-08"}
    data = [{"item": {"question": "?", "reference": "42", "unit": "m"}}]
    imported = import_eval(tmp_path, an_eval(criterion), *PROMPT, data=data)
    assert imported.code == 0, imported.told
    (grader,) = [Grader.from_wire(one) for one in imported.graders]
    assert (grader.type, grader.pass_threshold) == ("Python", 0.9)
    assert grader.python is not None
    assert grader.python.source.startswith(SOURCE)
    (line,) = imported.lines()
    namespace: dict[str, Any] = {}
    exec(grader.python.source, namespace)  # noqa: S102 # the test's own
    assert namespace["grade"]({"output_text": "42"}, {**line, "reference": "said", "reference_tools": []}) == 1.0
    assert 'testing_criteria[0] "code".image_tag: not translated' in imported.text
    assert 'testing_criteria[0] "code".source: lines at its end' in imported.text


def test_python_code_that_names_no_renamed_field_is_imported_as_it_is(tmp_path: Path) -> None:
    source = "def grade(sample, item):\n    return float(item['answer'] in sample['output_text'])\n"
    criterion = {"type": "python", "name": "code", "source": source}
    imported = import_eval(tmp_path, an_eval(criterion), *PROMPT, data=[{"item": {"question": "?", "answer": "4"}}])
    assert imported.code == 0, imported.told
    assert imported.graders == [{"name": "code", "type": "Python", "python": {"source": source}}]
