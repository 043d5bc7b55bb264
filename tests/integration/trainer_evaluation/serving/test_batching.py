"""Requests are generated together, and each gets the answer that it would get alone."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, MistralConfig, MistralForCausalLM

from finetune_trainer.generate.generation import Generator, load_generator
from finetune_trainer.model.loading import LocalModel
from finetune_trainer.serving.engine.capacity import Capacity
from finetune_trainer.serving.engine.engine import Engine
from finetune_trainer.serving.engine.orders import End, Generation, GenerationError, Order, Text
from finetune_trainer.serving.engine.rows import Row
from tests.integration.trainer_evaluation.tiny_models import CONTEXT, PlainGeneration, make_byte_level_tokenizer

PROMPTS = ["import ", "a", "The theme of that thesis is thin, and the rest is", "x = 1", "def f(", "So, "]
TOKENS = 24


class Watched:
    """A model that tells how many rows each of its steps had, and may be held up or fail."""

    def __init__(self, generator: Generator) -> None:
        self.generator = generator
        self.rows: list[int] = []
        self.before_step: Callable[[torch.Tensor], None] = lambda ids: None
        generator.model.register_forward_pre_hook(self._on_step, with_kwargs=True)

    def _on_step(self, _: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        ids = named["input_ids"] if "input_ids" in named else arguments[0]
        self.rows.append(len(ids))
        self.before_step(ids)

    def tokens(self, text: str) -> list[int]:
        return list(self.generator.tokenizer(text)["input_ids"])

    def order(self, text: str, **changes: Any) -> Order:
        return Order(self.tokens(text), **{"max_tokens": TOKENS, "temperature": 0.0, **changes})


@pytest.fixture
def watched(tuned: Path) -> Watched:
    return Watched(load_generator(LocalModel(tuned)))


async def text_of(generation: Generation) -> str:
    async with asyncio.timeout(60):
        return "".join(
            [piece.text async for _, piece in generation.pieces() if isinstance(piece, Text) and not piece.special]
        )


async def texts_of(generations: Iterable[Generation]) -> list[str]:
    return list(await asyncio.gather(*(text_of(generation) for generation in generations)))


async def held_until_all_are_queued(watched: Watched, engine: Engine, orders: list[Order]) -> list[Generation]:
    """Submit orders so that the first one is in generation until the others are queued."""
    started, queued = threading.Event(), threading.Event()

    def wait(_: torch.Tensor) -> None:
        started.set()
        assert queued.wait(60)

    watched.before_step = wait
    first = engine.submit(orders[:1])
    assert await asyncio.to_thread(started.wait, 60)
    others = [engine.submit([order]) for order in orders[1:]]
    queued.set()
    return [first, *others]


async def test_requests_that_come_later_join_those_in_generation(
    watched: Watched, plain_tuned: PlainGeneration
) -> None:
    engine = Engine(watched.generator)
    generations = await held_until_all_are_queued(watched, engine, [watched.order(text) for text in PROMPTS])
    assert await texts_of(generations) == [plain_tuned.complete(text, TOKENS) for text in PROMPTS]
    assert max(watched.rows) == len(PROMPTS)


async def test_a_row_that_has_ended_leaves_the_batch(watched: Watched, plain_tuned: PlainGeneration) -> None:
    engine = Engine(watched.generator)
    limits = [40, 3, 5, 40, 2, 4]
    orders = [watched.order(text, max_tokens=limit) for text, limit in zip(PROMPTS, limits, strict=True)]
    generations = await held_until_all_are_queued(watched, engine, orders)
    assert await texts_of(generations) == [
        plain_tuned.complete(text, limit) for text, limit in zip(PROMPTS, limits, strict=True)
    ]
    assert watched.rows[-1] <= 2


async def test_a_request_joins_between_two_tokens_of_another(watched: Watched, plain_tuned: PlainGeneration) -> None:
    """In the middle of a stream, not only at its first token."""
    engine = Engine(watched.generator)
    third_step, joined = threading.Event(), threading.Event()

    def wait(_: torch.Tensor) -> None:
        if len(watched.rows) == 3:
            third_step.set()
            assert joined.wait(60)

    watched.before_step = wait
    first = engine.submit([watched.order(PROMPTS[0], max_tokens=60)])
    assert await asyncio.to_thread(third_step.wait, 60)
    second = engine.submit([watched.order(PROMPTS[2])])
    joined.set()
    assert await text_of(second) == plain_tuned.complete(PROMPTS[2], TOKENS)
    assert await text_of(first) == plain_tuned.complete(PROMPTS[0], 60)
    assert 2 in watched.rows


async def test_a_seed_gives_the_same_answer_alone_and_among_others(watched: Watched) -> None:
    engine = Engine(watched.generator)
    sampled = watched.order(PROMPTS[0], temperature=1.2, top_p=0.9, seed=7)
    alone = await text_of(engine.submit([sampled]))
    others = [watched.order(text, temperature=1.5, seed=number) for number, text in enumerate(PROMPTS)]
    generations = await held_until_all_are_queued(watched, engine, [others[0], sampled, *others[1:]])
    assert (await texts_of(generations))[1] == alone


async def test_each_order_keeps_its_own_settings(watched: Watched, plain_tuned: PlainGeneration) -> None:
    engine = Engine(watched.generator)
    text = plain_tuned.complete(PROMPTS[0], TOKENS)
    orders = [
        watched.order(PROMPTS[0], stop=(text[5:8],)),
        watched.order(PROMPTS[0], frequency_penalty=2.0),
        watched.order(PROMPTS[0]),
    ]
    alone = [await text_of(engine.submit([order])) for order in orders]
    assert alone[0] == text[: text.index(text[5:8])] and alone[1] != text and alone[2] == text
    assert await texts_of(await held_until_all_are_queued(watched, engine, orders)) == alone


async def test_a_client_that_leaves_frees_its_place(watched: Watched) -> None:
    engine = Engine(watched.generator, Capacity(tokens=2 * CONTEXT, rows=2))
    started, over = threading.Event(), threading.Event()

    def wait(_: torch.Tensor) -> None:
        started.set()
        assert over.wait(60)

    watched.before_step = wait
    left = engine.submit([watched.order("a", max_tokens=100), watched.order("b", max_tokens=100)])
    assert await asyncio.to_thread(started.wait, 60)
    waits = engine.submit([watched.order("c", max_tokens=3)])
    assert engine.waiting == 1
    left.cancel()
    over.set()
    await text_of(waits)
    # What left had generated one token by then, and what waited has three: neither had the hundred.
    assert len(watched.rows) < 10


async def test_each_cancelled_request_ends_with_an_error_of_its_own(watched: Watched) -> None:
    """An error keeps the frames through which it was raised, and with them all that its request had in memory."""
    engine = Engine(watched.generator)
    errors = []
    for _ in range(2):
        generation = engine.submit([watched.order("a", max_tokens=100)])
        generation.cancel()
        with pytest.raises(GenerationError) as cancelled:
            await text_of(generation)
        errors.append(cancelled.value)
    assert errors[0] is not errors[1]


async def test_what_the_memory_has_no_room_for_waits(watched: Watched, plain_tuned: PlainGeneration) -> None:
    engine = Engine(watched.generator, Capacity(tokens=2 * CONTEXT))
    orders = [watched.order(text, max_tokens=CONTEXT) for text in PROMPTS]
    generations = await held_until_all_are_queued(watched, engine, orders)
    assert await texts_of(generations) == [plain_tuned.complete(text, CONTEXT - len(text)) for text in PROMPTS]
    assert max(watched.rows) == 2


async def test_only_the_request_at_fault_fails(watched: Watched, plain_tuned: PlainGeneration) -> None:
    """As an accelerator whose memory does not suffice for one of the prompts."""
    engine = Engine(watched.generator)
    (poison,) = watched.tokens("~")
    generations = await held_until_all_are_queued(
        watched, engine, [watched.order(PROMPTS[0]), watched.order("boom ~"), watched.order(PROMPTS[2])]
    )

    def fail(ids: torch.Tensor) -> None:
        if ids.shape[1] > 1 and poison in ids:
            raise RuntimeError("no kernel for this prompt")

    watched.before_step = fail
    said = await asyncio.gather(*(text_of(generation) for generation in generations), return_exceptions=True)
    assert said[0] == plain_tuned.complete(PROMPTS[0], TOKENS)
    assert isinstance(said[1], GenerationError) and "no kernel" in str(said[1])
    assert said[2] == plain_tuned.complete(PROMPTS[2], TOKENS)
    assert engine.lost is None


async def test_after_the_memory_did_not_suffice_batches_are_smaller(
    watched: Watched, plain_tuned: PlainGeneration
) -> None:
    engine = Engine(watched.generator)

    def fail(ids: torch.Tensor) -> None:
        if len(ids) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")

    generations = await held_until_all_are_queued(watched, engine, [watched.order(text) for text in PROMPTS])
    watched.before_step = fail
    texts = [plain_tuned.complete(text, TOKENS) for text in PROMPTS]
    assert await texts_of(generations) == texts
    watched.rows.clear()
    watched.before_step = lambda ids: None
    assert await texts_of(engine.submit([watched.order(text)]) for text in PROMPTS) == texts
    assert max(watched.rows) <= 3


async def test_batches_grow_again_after_a_while(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(watched.generator)
    monkeypatch.setattr("finetune_trainer.serving.engine.engine.GROW_AGAIN_SECONDS", 0.0)

    def fail(ids: torch.Tensor) -> None:
        if len(ids) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")

    generations = await held_until_all_are_queued(watched, engine, [watched.order(text) for text in PROMPTS])
    watched.before_step = fail
    await texts_of(generations)
    watched.rows.clear()
    watched.before_step = lambda ids: None
    for _ in range(3):  # twice the rows after each that ends
        await text_of(engine.submit([watched.order(PROMPTS[1])]))
    await texts_of(await held_until_all_are_queued(watched, engine, [watched.order(text) for text in PROMPTS]))
    assert max(watched.rows) == len(PROMPTS)


async def test_one_that_does_not_fit_alone_leaves_the_others_their_room(watched: Watched) -> None:
    engine = Engine(watched.generator)

    def fail(ids: torch.Tensor) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    watched.before_step = fail
    for _ in range(5):
        with pytest.raises(GenerationError):
            await text_of(engine.submit([watched.order(PROMPTS[0])]))
    watched.rows.clear()
    await texts_of(await held_until_all_are_queued(watched, engine, [watched.order(text) for text in PROMPTS]))
    assert max(watched.rows) == len(PROMPTS)


async def test_the_cache_of_a_batch_that_failed_is_free_before_its_rows_go_on(watched: Watched) -> None:
    engine = Engine(watched.generator)
    caches: list[weakref.ref[torch.Tensor]] = []
    kept: list[bool] = []

    def fail(ids: torch.Tensor) -> None:
        if caches:
            kept.append(caches[0]() is not None)
        elif tuple(ids.shape) == (len(PROMPTS), 1):  # all rows have joined: the next token of each
            assert engine._batch._cache is not None
            caches.append(weakref.ref(engine._batch._cache.layers[0].keys))
            raise torch.OutOfMemoryError("CUDA out of memory")

    generations = await held_until_all_are_queued(watched, engine, [watched.order(text) for text in PROMPTS])
    watched.before_step = fail
    await texts_of(generations)
    assert kept and not any(kept)


async def test_a_seed_gives_the_same_answer_after_its_batch_failed(watched: Watched) -> None:
    engine = Engine(watched.generator)
    sampled = watched.order(PROMPTS[0], temperature=1.2, seed=7)
    alone = await text_of(engine.submit([sampled]))
    others = [watched.order(text, temperature=1.5, seed=number) for number, text in enumerate(PROMPTS)]
    generations = await held_until_all_are_queued(watched, engine, [sampled, *others])
    choose, failed, last = Row.choose, list[int](), PROMPTS[-1]

    def choose_or_fail(row: Row, tokens: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        chosen = choose(row, tokens, scores)
        rows = engine._batch.rows
        if not failed and row is rows[-1] and len(rows) > len(PROMPTS) and len(row.tokens) > len(watched.tokens(last)):
            failed.append(1)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return chosen

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Row, "choose", choose_or_fail)
        assert (await texts_of(generations))[0] == alone
    assert failed


async def test_the_outputs_of_one_request_are_distinguished(watched: Watched, plain_tuned: PlainGeneration) -> None:
    engine = Engine(watched.generator)
    said: dict[int, str] = {0: "", 1: ""}
    ends: list[int] = []
    generation = engine.submit([watched.order(PROMPTS[0]), watched.order(PROMPTS[2], max_tokens=5)])
    async for output, piece in generation.pieces():
        if isinstance(piece, End):
            ends.append(output)
        elif not piece.special:
            said[output] += piece.text
    assert said == {0: plain_tuned.complete(PROMPTS[0], TOKENS), 1: plain_tuned.complete(PROMPTS[2], 5)}
    assert sorted(ends) == [0, 1]


@pytest.fixture(scope="module")
def sliding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model whose cache forgets: it can't be joined in the middle."""
    folder, tokenizer = tmp_path_factory.mktemp("sliding"), make_byte_level_tokenizer()
    torch.manual_seed(4)
    config = MistralConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        sliding_window=8,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    MistralForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    yield folder


async def test_a_model_with_another_kind_of_cache_batches_what_waits_together(sliding: Path) -> None:
    watched = Watched(load_generator(LocalModel(sliding)))
    engine = Engine(watched.generator)
    plain = PlainGeneration(AutoModelForCausalLM.from_pretrained(sliding), make_byte_level_tokenizer())
    generations = await held_until_all_are_queued(watched, engine, [watched.order(text) for text in PROMPTS])
    assert await texts_of(generations) == [plain.complete(text, TOKENS) for text in PROMPTS]
    assert set(watched.rows) == {1, len(PROMPTS) - 1}, "the first one alone, then all that waited for it"
