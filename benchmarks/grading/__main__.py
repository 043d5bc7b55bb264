"""Grading 1,000 rows of 2 models by 5 graders, against the same libraries in a plain loop.

    python -m benchmarks.grading [--json FILE]

BLEU, ROUGEL, FuzzyMatch, JsonSchema and StringCheck over answers of 40 to 80 words. Both sides take turns, so that
other load on the machine affects both, and the fastest turns are compared, by CPU time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from rapidfuzz import fuzz
from rapidfuzz.utils import default_process
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU

from finetune_api.graders import Grader
from finetune_grading.grade_rows import grade_rows
from finetune_grading.registered_graders import compile_graders
from finetune_grading.sample import Row, Sample

ROWS, MODELS, TURNS = 1000, 2, 5
MOST_OVERHEAD_PERCENT = 10.0
MOST_SECONDS = 20.0
SCHEMA = {
    "type": "object",
    "required": ["answer", "sources"],
    "properties": {"answer": {"type": "string"}, "sources": {"type": "array", "items": {"type": "string"}}},
    "additionalProperties": False,
}
GRADERS = [
    {"name": "bleu", "type": "TextSimilarity", "textSimilarity": {"metric": "BLEU"}},
    {"name": "rouge", "type": "TextSimilarity", "textSimilarity": {"metric": "ROUGEL"}},
    {"name": "fuzzy", "type": "TextSimilarity", "textSimilarity": {"metric": "FuzzyMatch"}},
    {"name": "schema", "type": "JsonSchema", "jsonSchema": {"schema": SCHEMA}},
    {"name": "exact", "type": "StringCheck"},
]
WORDS = [
    "the",
    "refund",
    "was",
    "issued",
    "on",
    "may",
    "and",
    "arrives",
    "within",
    "five",
    "days",
    "your",
    "order",
    "sent",
]

Pairs = Sequence[tuple[str, str]]
Scores = list[list[float]]


def answers(seed: int) -> list[tuple[str, str]]:
    """Outputs and references: JSON with text of which a third differs."""
    generator = random.Random(seed)
    pairs = []
    for _ in range(ROWS):
        words = generator.choices(WORDS, k=generator.randint(40, 80))
        changed = [generator.choice(WORDS) if generator.random() < 0.33 else word for word in words]
        made = [json.dumps({"answer": " ".join(text), "sources": ["a", "b"]}) for text in (changed, words)]
        pairs.append((made[0], made[1]))
    return pairs


def by_library(models: Sequence[Pairs]) -> Scores:
    """What is measured: all graders over all rows, compiled anew."""
    graders = compile_graders([Grader.from_wire(grader) for grader in GRADERS])

    async def grade() -> Scores:
        found: Scores = []
        for pairs in models:
            rows = [Row({"reference": reference}, Sample(output)) for output, reference in pairs]
            grades = await grade_rows(graders, rows)
            found += [[grade.score or 0.0 for grade in of_grader] for of_grader in grades.values()]
        return found

    return asyncio.run(grade())


def by_plain_loop(models: Sequence[Pairs]) -> Scores:
    """The same by the libraries alone."""
    bleu, rouge = BLEU(effective_order=True), RougeScorer(["rougeL"], use_stemmer=False)
    validator = Draft202012Validator(SCHEMA)
    found: Scores = []
    for pairs in models:
        found.append([min(1.0, bleu.sentence_score(output, [reference]).score / 100) for output, reference in pairs])
        found.append([rouge.score(reference, output)["rougeL"].fmeasure for output, reference in pairs])
        found.append([fuzz.WRatio(output, reference, processor=default_process) / 100 for output, reference in pairs])
        found.append([float(validator.is_valid(json.loads(output))) for output, _ in pairs])
        found.append([float(output == reference) for output, reference in pairs])
    return found


def cpu_seconds(run: Callable[[Sequence[Pairs]], Scores], models: Sequence[Pairs]) -> tuple[float, Scores]:
    """The process's CPU time, and what it found."""
    started = time.process_time()
    scores = run(models)
    return time.process_time() - started, scores


def measure() -> dict[str, Any]:
    """The figures. Raises AssertionError where the two sides differ."""
    models = [answers(seed) for seed in range(MODELS)]
    by_library(models), by_plain_loop(models)  # imports, caches
    library, plain = [], []
    for _ in range(TURNS):
        seconds, scores = cpu_seconds(by_library, models)
        library.append(seconds)
        seconds, expected = cpu_seconds(by_plain_loop, models)
        plain.append(seconds)
        assert scores == expected, "the library's scores are not the libraries'"
    overhead = 100 * (min(library) / min(plain) - 1)
    return {
        "rows": ROWS,
        "models": MODELS,
        "graders": len(GRADERS),
        "librarySeconds": round(min(library), 3),
        "plainLoopSeconds": round(min(plain), 3),
        "overheadPercent": round(overhead, 1),
        "maxRssMiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def main() -> int:
    """Print the figures; 1 where an aim is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    figures = measure()
    text = json.dumps(figures, indent=2)
    sys.stdout.write(f"{text}\n")
    if arguments.json is not None:
        arguments.json.write_text(f"{text}\n")
    met = figures["overheadPercent"] <= MOST_OVERHEAD_PERCENT and figures["librarySeconds"] < MOST_SECONDS
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
