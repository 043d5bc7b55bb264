"""How fast conversations are tokenized, against TRL's own preparation and against the tokenizer alone.

`python -m benchmarks.data.tokenization [--examples 3000] [--rounds 5] [--json FILE]`. Ours is what preflight does with
each example (`data/encode/tokenization.py`): tokens, and labels of the assistant's turns. TRL's is what `SFTTrainer`
maps over a dataset with `assistant_only_loss`: `apply_chat_template` with a template that marks the assistant's
tokens. The tokenizer alone encodes the rendered text, which both have to do. Each measurement is a process of its own,
they take turns, and the figures are of CPU time on one thread.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.data.__main__ import Text, ordinary_chat

MEASURED = "--measure"
VOCABULARY = 8000
LONG_CHAT_TURNS = 20
ALONE, OURS, TRL = "the tokenizer alone", "finetune_trainer", "TRL"

Messages = list[dict[str, str]]


def long_chat(text: Text) -> Messages:
    """Twenty turns of a sentence each."""
    turns = ((role, text.of(5, 25)) for _ in range(LONG_CHAT_TURNS) for role in ("user", "assistant"))
    return [{"role": role, "content": content} for role, content in turns]


LOADS: dict[str, Callable[[Text], Messages]] = {
    "chats of ordinary length": ordinary_chat,
    "chats of 40 messages": long_chat,
}


def make_tokenizer(text: Text) -> Any:
    """A byte-level BPE with ChatML, as Qwen's, trained on words like the examples'."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast
    from trl.chat_template_utils import qwen2_5_chat_template

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator((text.of(50, 50) for _ in range(400)), trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made)
    tokenizer.add_special_tokens({"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"})
    tokenizer.chat_template = qwen2_5_chat_template
    return tokenizer


def alone(tokenizer: Any, chats: list[Messages]) -> Callable[[], int]:
    """The texts are rendered before."""
    texts = [tokenizer.apply_chat_template(messages, tokenize=False) for messages in chats]
    return lambda: sum(len(tokenizer(text)["input_ids"]) for text in texts)


def ours(tokenizer: Any, chats: list[Messages]) -> Callable[[], int]:
    """Preflight reads the lines before, to survey them."""
    import msgspec

    from finetune_trainer.data.encode.tokenization import tokenize
    from finetune_trainer.data.read.examples import ChatExample
    from finetune_trainer.data.read.messages import Messages as Parsed

    examples = [ChatExample(msgspec.convert(messages, Parsed)) for messages in chats]
    return lambda: sum(len(row.input_ids) for example in examples for row in tokenize(tokenizer, example))


def trl(tokenizer: Any, chats: list[Messages]) -> Callable[[], int]:
    """As `tokenize_fn` in `SFTTrainer._prepare_dataset` calls it for conversations."""
    from trl.chat_template_utils import get_training_chat_template

    template = get_training_chat_template(tokenizer)

    def length(messages: Messages) -> int:
        found = tokenizer.apply_chat_template(
            messages, chat_template=template, tools=None, return_dict=True, return_assistant_tokens_mask=True
        )
        return len(found["input_ids"])

    return lambda: sum(length(messages) for messages in chats)


CONTENDERS = {ALONE: alone, OURS: ours, TRL: trl}


def measure(contender: str, load: str, examples: int) -> dict[str, float]:
    """CPU seconds and tokens of one contender, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.data.tokenization", MEASURED, contender, load, str(examples)]
    settings = os.environ | {"TOKENIZERS_PARALLELISM": "false"}
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=600, env=settings)
    found: dict[str, float] = json.loads(answer.stdout)
    return found


def compare(load: str, examples: int, rounds: int, console: Console) -> dict[str, Any]:
    """Every contender, by turns."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    for number in range(rounds):
        for name in CONTENDERS:
            console.print(f"{load}, round {number + 1} of {rounds}: {name}", style="dim")
            runs[name].append(measure(name, load, examples))
    (tokens,) = {run["tokens"] for of in runs.values() for run in of}
    speeds = {name: [run["tokens"] / run["cpuSeconds"] for run in of] for name, of in runs.items()}
    ratios = {
        rival: [mine / theirs for mine, theirs in zip(speeds[OURS], speeds[rival], strict=True)]
        for rival in (ALONE, TRL)
    }
    return {"load": load, "examples": examples, "tokens": tokens, "tokensPerSecond": speeds, "ratio": ratios}


def table_of(found: dict[str, Any]) -> Table:
    """The figures of one load, for a person: the median, and the lowest and highest round."""
    table = Table(title=f"{found['load']}: {found['examples']} examples, {found['tokens']:.0f} tokens")
    table.add_column(no_wrap=True)
    for column in ("tokens/s of one core", f"{OURS} has times as many"):
        table.add_column(column, justify="right")
    for name, speeds in found["tokensPerSecond"].items():
        ratios = found["ratio"].get(name)
        table.add_row(name, _spread(speeds, ",.0f"), _spread(ratios, ".2f") if ratios else "")
    return table


def _spread(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def main(
    examples: Annotated[int, typer.Option(min=1)] = 3000,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    output: Annotated[Path | None, typer.Option("--json", help="Where the figures are written to.")] = None,
) -> None:
    """Measure all, by turns, and print a table for each kind of conversation."""
    console = Console()
    results = [compare(load, examples, rounds, console) for load in LOADS]
    for found in results:
        console.print(table_of(found))
    if output is not None:
        machine = {"cores": os.cpu_count(), "load": os.getloadavg(), "python": platform.python_version()}
        output.write_text(json.dumps({"machine": machine, "results": results}, indent=1) + "\n")


def _measured(contender: str, load: str, examples: int) -> None:
    text = Text()
    tokenizer = make_tokenizer(text)
    run = CONTENDERS[contender](tokenizer, [LOADS[load](text) for _ in range(examples)])
    before = time.process_time()
    tokens = run()
    sys.stdout.write(json.dumps({"cpuSeconds": time.process_time() - before, "tokens": tokens}) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == [MEASURED]:
        _measured(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        typer.run(main)
