"""Embeddings: the vectors, the passes they are computed in, the context for them, and what is refused."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from cyllama import (
    LLM,
    ConfigError,
    ContextMemoryError,
    ContextSizeError,
    DecodeError,
    EmbeddingCancelledError,
    ForkedError,
    PromptError,
    PromptTypeError,
    UnsupportedModelError,
)
from cyllama.engine import embedding
from cyllama.engine.embedding import Embedder
from cyllama.llama.llama_cpp import LlamaBatch, LlamaContext, LlamaContextParams, LlamaPoolingType
from cyllama.models import TINY_CHAT

from ..support.harness import in_threads
from ..support.random_models import (
    ARCHITECTURES,
    BERT_N_CTX,
    HYBRID,
    RECURRENT,
    write_random_bert,
    write_random_model,
    write_random_t5_encoder,
)

SAME = 0.9995
"""Cosine of the vectors of one text in different passes: rounding leaves more, and two texts of these tests 0.96."""

# fmt: off
WORDS = [
    "the", "fox", "an", "animal", "sleeps", "rests", "hello", "world", "what", "do", "foxes", "eat", "mice", "zebra",
    "12", "quick!",
]
# fmt: on


def some_texts(n: int, most_words: int = 20, seed: int = 1) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, most_words))) for _ in range(n)]


def cosines(a: list[list[float]], b: list[list[float]]) -> np.ndarray:
    x, y = np.array(a), np.array(b)
    return (x * y).sum(axis=1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)


def submitted(llm: LLM, texts: str | list[str]) -> Future[list[list[float]]]:
    """Begin to compute embeddings."""
    return llm._submit_texts(texts, normalize=True, truncate=False, n_ctx=None)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the file of a model of that kind."""
    folder = tmp_path_factory.mktemp("embedding")
    special: dict[str, Callable[[Path], Path]] = {
        "tiny-chat": lambda path: TINY_CHAT,
        "bert": write_random_bert,
        "bert-cls": lambda path: write_random_bert(path, pooling=gguf.PoolingType.CLS),
        "bert-last": lambda path: write_random_bert(path, pooling=gguf.PoolingType.LAST),
        "bert-unnamed": lambda path: write_random_bert(path, pooling=None),
        "bert-none": lambda path: write_random_bert(path, pooling=gguf.PoolingType.NONE),
        "bert-unknown": lambda path: write_random_bert(path, pooling=99),
        "bert-causal": lambda path: write_random_bert(path, causal=None),
        "bert-nan": lambda path: write_random_bert(path, nan=True),
        "rank": lambda path: write_random_bert(path, pooling=gguf.PoolingType.RANK),
        "t5encoder": write_random_t5_encoder,
    }

    def write(kind: str) -> Path:
        path = folder / f"{kind}.gguf"
        if path.exists():
            return path
        return special[kind](path) if kind in special else write_random_model(path, kind)

    return write


@pytest.fixture
def load(models: Callable[[str], Path]) -> Iterator[Callable[..., LLM]]:
    loaded: list[LLM] = []

    def load(kind: str, **options: Any) -> LLM:
        loaded.append(LLM(models(kind), n_threads=1, temperature=0, **options))
        return loaded[-1]

    yield load
    for llm in loaded:
        llm.close()


@pytest.fixture
def bert(load: Callable[..., LLM]) -> LLM:
    return load("bert")


@pytest.fixture
def ranker(load: Callable[..., LLM]) -> LLM:
    return load("rank")


def held_pass(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Let passes say that they begin, and wait there until they may."""
    begun, go_on = threading.Event(), threading.Event()
    compute = Embedder._compute

    def held(self: Embedder, *args: Any) -> None:
        if self._model is llm.model:
            begun.set()
            assert go_on.wait(60)
        compute(self, *args)

    monkeypatch.setattr(Embedder, "_compute", held)
    return begun, go_on


# --- vectors

KINDS = ("tiny-chat", "bert", "bert-cls", "bert-last", "t5encoder", *ARCHITECTURES)


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_has_the_same_vector_alone_and_among_others_in_any_order(kind: str, load: Callable[..., LLM]):
    llm, texts = load(kind), some_texts(40)
    alone = [llm.embed(text) for text in texts]
    together = llm.embed(texts)
    assert cosines(alone, together).min() > SAME
    order = random.Random(2).sample(range(40), 40)
    shuffled = llm.embed([texts[i] for i in order])
    assert cosines([together[i] for i in order], shuffled).min() > SAME
    assert cosines(alone, alone[1:] + alone[:1]).max() < 0.97


@pytest.mark.parametrize("kind", ["tiny-chat", "bert", "t5encoder"])
def test_vectors_have_length_one_unless_they_are_not_to_be_normalized(kind: str, load: Callable[..., LLM]):
    llm, texts = load(kind), some_texts(5)
    plain = llm.embed(texts, normalize=False)
    np.testing.assert_allclose(np.linalg.norm(llm.embed(texts), axis=1), 1)
    assert all(abs(length - 1) > 0.01 for length in np.linalg.norm(plain, axis=1))
    assert cosines(plain, llm.embed(texts)).min() > SAME


def test_a_text_gives_a_vector_and_a_list_of_texts_a_list(bert: LLM):
    vector, vectors = bert.embed("hello"), bert.embed(["hello"])
    assert len(vector) == bert.model.n_embd_out == 64
    assert all(type(x) is float for x in vector)
    # how many texts are computed at once decides which kernel multiplies them, and so the last digits
    assert len(vectors) == 1
    assert cosines(vectors, [vector])[0] > SAME
    together = bert.embed(text for text in ("hello", "hello"))
    assert len(together) == 2
    assert cosines(together, [vector, vector]).min() > SAME


def token_vectors(llm: LLM, text: str) -> np.ndarray:
    """Return the vectors of the tokens, without pooling, by the binding alone."""
    tokens = llm.tokenize(text)
    params = LlamaContextParams()
    params.n_ctx = params.n_batch = params.n_ubatch = len(tokens)
    params.embeddings, params.pooling_type = True, LlamaPoolingType.NONE
    params.n_threads = params.n_threads_batch = 1
    batch = LlamaBatch(len(tokens))
    batch.add_sequence(tokens, logits_all=True)
    with LlamaContext(llm.model, params) as context:
        context.decode(batch)
        return np.array([np.asarray(context.get_embeddings_ith(i)) for i in range(len(tokens))])


@pytest.mark.parametrize(
    ("kind", "pool"),
    [
        ("bert", lambda x: x.mean(axis=0)),
        ("bert-unnamed", lambda x: x.mean(axis=0)),
        ("bert-none", lambda x: x.mean(axis=0)),
        ("bert-cls", lambda x: x[0]),
        ("bert-last", lambda x: x[-1]),
        ("tiny-chat", lambda x: x.mean(axis=0)),
    ],
)
def test_tokens_are_pooled_as_the_model_says_else_averaged(
    kind: str, pool: Callable[[np.ndarray], np.ndarray], load: Callable[..., LLM]
):
    llm = load(kind)
    text = " ".join(some_texts(2 if kind.startswith("bert") else 60))
    assert kind.startswith("bert") or llm.count_tokens(text) > 600  # more than a ubatch has by default
    expected = pool(token_vectors(llm, text))
    assert cosines([llm.embed(text, normalize=False)], [expected.tolist()])[0] > SAME
    np.testing.assert_allclose(llm.embed(text, normalize=False), expected, atol=0.02)


def test_accents_and_their_form_do_not_matter_to_a_model_that_ignores_them(bert: LLM, llm: LLM):
    plain = bert.tokenize("fee mice")
    assert bert.tokenize("f\u00e9e m\u00edce") == bert.tokenize("fe\u0301e mi\u0301ce") == plain
    assert llm.tokenize("f\u00e9e") != llm.tokenize("fe\u0301e")


# --- passes


def test_many_short_texts_take_few_passes(bert: LLM):
    texts = some_texts(1000, most_words=3)
    n_tokens = sum(bert.count_tokens(text) for text in texts)
    vectors = bert.embed(texts)
    stats = bert.stats
    assert (stats.texts_embedded, stats.tokens_embedded) == (1000, n_tokens)
    assert stats.embedding_passes <= 1.2 * max(n_tokens / 512, 1000 / 128) + 1
    assert cosines(vectors[::100], [bert.embed(text) for text in texts[::100]]).min() > SAME


def test_texts_of_all_lengths_fill_the_passes(load: Callable[..., LLM]):
    llm = load("bert", n_ubatch=256)
    texts = ["hello " * 120] * 3 + ["fox " * 60] * 6 + ["world"] * 20
    n_tokens = sum(llm.count_tokens(text) for text in texts)
    assert len(llm.embed(texts)) == 29
    assert llm.stats.embedding_passes == -(-n_tokens // 256) == 4


@pytest.mark.parametrize("kind", [*RECURRENT, *HYBRID])
def test_models_with_a_state_have_few_sequences(kind: str, load: Callable[..., LLM]):
    llm = load(kind)
    assert len(llm.embed(["hello"] * 9)) == 9
    assert llm.stats.embedding_passes == 3


# --- the context


def test_the_context_is_created_by_the_first_call_reused_and_released(bert: LLM):
    assert (bert.stats.embedding_contexts_created, bert.stats.embedding_n_ctx) == (0, 0)
    bert.embed("hello")
    assert (bert.stats.embedding_contexts_created, bert.stats.embedding_context_reuses) == (1, 0)
    assert bert.stats.embedding_n_ctx == 512
    bert.embed(["hello"] * 300)
    assert (bert.stats.embedding_contexts_created, bert.stats.embedding_context_reuses) == (1, 1)
    for release in (bert.close, bert.close, bert.reset_context):
        release()
        assert bert.stats.embedding_n_ctx == 0
    assert all(thread.name != "cyllama-embedder" for thread in threading.enumerate())
    vector = bert.embed("hello")
    assert bert.stats.embedding_contexts_created == 2
    with bert:
        assert bert.embed("hello") == vector
    assert bert.stats.embedding_n_ctx == 0
    assert bert.stats.contexts_created == 0


def test_a_longer_text_gets_a_larger_context_with_room_for_more(load: Callable[..., LLM]):
    llm = load("llama", n_ubatch=256)
    llm.embed("hello")
    assert llm.stats.embedding_n_ctx == 256
    n_first = llm.embed("hello " * 150) and llm.stats.embedding_n_ctx
    assert n_first == 512
    llm.embed("hello " * 1000)
    n_tokens = llm.count_tokens("hello " * 1000)
    assert llm.stats.embedding_n_ctx == -(-n_tokens // 256) * 256 > 1024
    llm.embed(["hello"] * 3)
    assert (llm.stats.embedding_contexts_created, llm.stats.embedding_context_reuses) == (3, 1)


def test_generations_and_embeddings_have_contexts_side_by_side(load: Callable[..., LLM]):
    llm = load("tiny-chat")
    alone, vector = llm("Once upon a time", max_tokens=16), llm.embed("a fox")
    session = llm.session("ada")
    session("Once", max_tokens=4)
    texts: list[str] = []
    vectors: list[list[float]] = []
    in_threads(
        [
            lambda: texts.append(llm("Once upon a time", max_tokens=16).text),
            lambda: vectors.extend(llm.embed("a fox") for _ in range(20)),
        ]
    )
    assert texts == [alone.text]
    assert vectors == [vector] * 20
    assert (llm.stats.contexts_created, llm.stats.embedding_contexts_created) == (1, 1)
    assert session.tokens > 0
    llm.reset_context(session="ada")
    assert llm.stats.embedding_n_ctx > 0


def test_without_memory_for_it_there_is_an_error_and_what_was_there_stays(
    load: Callable[..., LLM], monkeypatch: pytest.MonkeyPatch
):
    llm = load("llama")
    vector = llm.embed("hello")
    with monkeypatch.context() as patch:
        patch.setattr(embedding, "available_memory", lambda: 16 * 2**20)
        with pytest.raises(ContextMemoryError, match=r"2304 tokens needs .* GiB, but 0.0 GiB"):
            llm.embed(["hello", "hello " * 1100])
    assert llm.embed("hello") == vector
    assert llm.stats.embedding_n_ctx == 512


def test_a_larger_context_than_needed_is_given_up_where_memory_is_short(
    load: Callable[..., LLM], monkeypatch: pytest.MonkeyPatch
):
    llm = load("llama")
    llm.embed("hello " * 1000)
    n_ctx = llm.stats.embedding_n_ctx
    check = Embedder._check_memory

    def short(self: Embedder, n: int) -> None:
        if n >= 2 * n_ctx:
            raise ContextMemoryError("none")
        check(self, n)

    monkeypatch.setattr(Embedder, "_check_memory", short)
    llm.embed("hello " * 1100)
    assert n_ctx < llm.stats.embedding_n_ctx < 2 * n_ctx


# --- many callers


def test_threads_use_one_context(bert: LLM):
    texts = some_texts(16)
    vectors = in_threads([lambda text=text: bert.embed(text) for text in texts])
    assert cosines(vectors, bert.embed(texts)).min() > SAME
    assert bert.stats.embedding_contexts_created == 1
    assert bert.stats.embedding_context_reuses == 16


def test_calls_share_passes(bert: LLM, monkeypatch: pytest.MonkeyPatch):
    begun, go_on = held_pass(bert, monkeypatch)
    first = submitted(bert, "hello")
    assert begun.wait(60)
    others = [submitted(bert, text) for text in some_texts(16, most_words=4)]
    go_on.set()
    vectors = [future.result()[0] for future in (first, *others)]
    assert bert.stats.embedding_passes == 2
    assert cosines(vectors, bert.embed(["hello", *some_texts(16, most_words=4)])).min() > SAME


def test_a_short_call_does_not_wait_for_the_end_of_a_long_one(bert: LLM, monkeypatch: pytest.MonkeyPatch):
    begun, go_on = held_pass(bert, monkeypatch)
    ended: list[int] = []
    futures = []
    for n in (40, 1):
        futures.append(submitted(bert, ["fox " * 100] * n))
        futures[-1].add_done_callback(lambda future: ended.append(len(future.result())))
        assert begun.wait(60)
    go_on.set()
    assert [len(future.result()) for future in futures] == [40, 1]
    assert ended == [1, 40]


def test_tasks_embed_without_blocking_the_loop(bert: LLM):
    texts = some_texts(20)

    async def main() -> tuple[list[list[float]], list[float], int]:
        vectors = await asyncio.gather(*(bert.aembed(text) for text in texts))
        n_threads = threading.active_count()
        [last] = await bert.aembed(texts[-1:], normalize=True, truncate=True)
        return vectors, last, n_threads

    n_threads = threading.active_count()
    vectors, last, n_threads_meanwhile = asyncio.run(main())
    assert cosines(vectors, bert.embed(texts)).min() > SAME
    assert cosines([last], vectors[-1:])[0] > SAME
    assert n_threads_meanwhile <= n_threads + 1


def test_a_cancelled_task_frees_its_place(bert: LLM, monkeypatch: pytest.MonkeyPatch):
    begun, go_on = held_pass(bert, monkeypatch)

    async def main() -> None:
        task = asyncio.create_task(bert.aembed(["fox " * 100] * 100))
        while not begun.is_set():
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()

    asyncio.run(main())
    assert len(bert.embed("hello")) == 64
    assert bert.stats.texts_embedded <= 2


@pytest.mark.parametrize("end", ["close", "reset_context"])
def test_calls_in_flight_end_with_an_error_when_the_context_is_closed(
    end: str, bert: LLM, monkeypatch: pytest.MonkeyPatch
):
    begun, go_on = held_pass(bert, monkeypatch)
    futures = [submitted(bert, ["fox " * 100] * 20) for _ in range(3)]
    assert begun.wait(60)
    join = Embedder.join

    def release_and_join(self: Embedder) -> None:
        go_on.set()
        join(self)

    monkeypatch.setattr(Embedder, "join", release_and_join)
    getattr(bert, end)()
    for future in futures:
        with pytest.raises(EmbeddingCancelledError, match="after 0 of 20 texts"):
            future.result()
    assert bert.stats.embedding_n_ctx == 0
    assert len(bert.embed("hello")) == 64


def test_a_pass_that_fails_is_an_error_and_the_next_call_works(bert: LLM, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:

        def fail(self: Embedder, *args: Any) -> None:
            raise RuntimeError("out of luck")

        patch.setattr(Embedder, "_compute", fail)
        with pytest.raises(DecodeError, match="out of luck"):
            bert.embed(["hello", "world"])
    assert len(bert.embed("hello")) == 64
    assert bert.stats.embedding_contexts_created == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_is_refused(bert: LLM):
    bert.embed("hello")
    pid = os.fork()
    if pid == 0:
        try:
            bert.embed("hello")
        except ForkedError:
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert len(bert.embed("hello")) == 64


# --- ranking


def test_documents_are_ranked_in_their_order_whatever_stands_beside_them(ranker: LLM):
    documents = some_texts(30, most_words=10)
    scores = ranker.rerank("what do foxes eat?", documents)
    assert len(set(scores)) > 20
    alone = [ranker.rerank("what do foxes eat?", [document])[0] for document in documents]
    np.testing.assert_allclose(scores, alone, atol=0.01)
    assert scores != ranker.rerank("hello", documents)
    assert ranker.stats.embedding_contexts_created == 1


def test_a_pair_is_written_as_the_model_was_trained(ranker: LLM):
    [score] = ranker.rerank("the fox", ["mice"])
    vocab = ranker.model.vocab
    tokens = [vocab.tokenize(text, add_special=False) for text in ("the fox", "mice")]
    batch = LlamaBatch(32)
    batch.add_sequence([vocab.bos, *tokens[0], vocab.eos, *tokens[1], vocab.eos], logits_all=True)
    params = LlamaContextParams()
    params.n_ctx, params.embeddings = 256, True
    with LlamaContext(ranker.model, params) as context:
        context.decode(batch)
        assert score == pytest.approx(context.get_embeddings_seq(0)[0], abs=1e-3)


def test_ranking_for_an_event_loop(ranker: LLM):
    documents = some_texts(3)
    assert asyncio.run(ranker.arerank("fox", documents)) == pytest.approx(ranker.rerank("fox", documents), abs=0.01)


def test_long_documents_are_refused_or_truncated(ranker: LLM):
    with pytest.raises(ContextSizeError, match=rf"the query with document 1 has 20\d tokens .* {BERT_N_CTX} "):
        ranker.rerank("hello", ["fox", "fox " * 200])
    scores = ranker.rerank("hello", ["fox", "fox " * 200, "fox " * 300], truncate=True)
    assert scores[1] == pytest.approx(scores[2], abs=0.01)
    with pytest.raises(ContextSizeError, match=r"has \d+ tokens that cannot be left out"):
        ranker.rerank("fox " * 200, ["fox"], truncate=True)


def test_a_call_may_set_a_shorter_limit(bert: LLM, ranker: LLM):
    with pytest.raises(ContextSizeError, match="32"):
        bert.embed("fox " * 50, n_ctx=32)
    cut = bert.embed("fox " * 50, n_ctx=32, truncate=True)
    assert cut == pytest.approx(asyncio.run(bert.aembed("fox " * 60, n_ctx=32, truncate=True)), abs=1e-3)
    assert cut != pytest.approx(bert.embed("fox " * 50), abs=1e-3)
    with pytest.raises(ContextSizeError, match="32"):
        ranker.rerank("hello", ["fox " * 50], n_ctx=32)
    assert asyncio.run(ranker.arerank("hello", ["fox " * 50], n_ctx=32, truncate=True))
    with pytest.raises(ConfigError, match="n_ctx"):
        bert.embed("fox", n_ctx=0)


# --- what is refused


def test_models_that_make_embeddings_do_not_generate(bert: LLM, load: Callable[..., LLM]):
    for llm in (bert, load("t5encoder"), load("rank"), load("bert-causal")):
        with pytest.raises(UnsupportedModelError, match="cannot generate text"):
            llm("hi")
    assert len(bert.embed("hi")) == 64


def test_models_that_cannot_do_it_say_so(bert: LLM, ranker: LLM, llm: LLM, load: Callable[..., LLM]):
    with pytest.raises(UnsupportedModelError, match=r"it ranks: use rerank\(\)"):
        ranker.embed("hello")
    for other in (bert, llm):
        with pytest.raises(UnsupportedModelError, match="does not rank"):
            other.rerank("hello", ["world"])
    with pytest.raises(UnsupportedModelError, match="pooling_type '99' is unknown"):
        load("bert-unknown").embed("hello")


def test_a_damaged_model_is_an_error(load: Callable[..., LLM]):
    llm = load("bert-nan")
    with pytest.raises(DecodeError, match=r"of text \d is not finite"):
        llm.embed(["hello", "world"])


def test_pooling_can_be_overridden(models: Callable[[str], Path], load: Callable[..., LLM]):
    overridden = load("bert", kv_overrides={"bert.pooling_type": 2})
    assert cosines([overridden.embed("the fox sleeps")], [load("bert-cls").embed("the fox sleeps")])[0] > SAME


@pytest.mark.parametrize("kind", ["bert", "tiny-chat"])
def test_texts_that_are_too_long_are_refused_or_truncated(kind: str, load: Callable[..., LLM]):
    llm = load(kind)
    limit, long = llm.n_ctx_train, "fox " * 3000
    n_tokens = llm.count_tokens(long)
    with pytest.raises(ContextSizeError, match=f"text 1 has {n_tokens} tokens but at most {limit} "):
        llm.embed(["hello", long])
    with pytest.raises(ContextSizeError, match=f"the text has {n_tokens} tokens"):
        llm.embed(long)
    short, cut = llm.embed(["hello", long], truncate=True)
    assert cosines([short], [llm.embed("hello")])[0] > SAME
    n_words = next(n for n in range(limit, 0, -1) if llm.count_tokens("fox " * n) <= limit)
    assert cosines([cut], [llm.embed("fox " * n_words)])[0] > SAME


def test_the_end_token_stays_where_a_text_is_truncated(load: Callable[..., LLM]):
    llm = load("bert-last")
    truncated, whole = llm.embed("fox " * 200, truncate=True), llm.embed("fox " * (BERT_N_CTX - 2))
    assert cosines([truncated], [whole])[0] > SAME


def test_n_ctx_limits_texts_and_does_not_extend_positions(load: Callable[..., LLM]):
    with pytest.raises(ContextSizeError, match="has 42 tokens but at most 32"):
        load("bert", n_ctx=32).embed("fox " * 40)
    with pytest.raises(ContextSizeError, match=f"has 202 tokens but at most {BERT_N_CTX}"):
        load("bert", n_ctx=4096).embed("fox " * 200)


@pytest.mark.parametrize(
    ("texts", "error", "why"),
    [
        ([], PromptError, "the list of texts is empty"),
        ("", PromptError, "is empty"),
        (["hello", ""], PromptError, "text 1 of the list is empty"),
        (["hello", " \n"], PromptError, "text 1 is empty: it has no tokens"),
        (["hello", "\ud800x"], PromptError, "text 1.* lone surrogate at index 0"),
        ("x\udfff", PromptError, "the text.* lone surrogate at index 1"),
        (b"hello", PromptTypeError, "a list of texts, not bytes"),
        (None, PromptTypeError, "a list of texts, not NoneType"),
        (5, PromptTypeError, "a list of texts, not int"),
        ({"a": 1}, PromptTypeError, "a list of texts, not dict"),
        (["hello", 5], PromptTypeError, "text 1 of the list is a str, not int"),
        (["hello", None], PromptTypeError, "text 1 of the list is a str, not NoneType"),
        ([["hello"]], PromptTypeError, "text 0 of the list is a str, not list"),
    ],
)
def test_bad_texts_are_refused_and_the_next_ones_embedded(
    texts: Any, error: type[Exception], why: str, bert: LLM, ranker: LLM
):
    with pytest.raises(error, match=why):
        bert.embed(texts)
    with pytest.raises(error, match=why):
        asyncio.run(bert.aembed(texts))
    if not isinstance(texts, str) and texts != ["hello", " \n"]:
        with pytest.raises(error, match=why.replace("text", "document")):
            ranker.rerank("hello", texts)
    assert len(bert.embed("hello")) == 64


@pytest.mark.parametrize(
    ("query", "error", "why"),
    [
        ("", PromptError, "the query is empty"),
        (None, PromptTypeError, "the query is a str, not NoneType"),
        ("\ud800", PromptError, "the query cannot be encoded"),
    ],
)
def test_bad_queries_are_refused(query: Any, error: type[Exception], why: str, ranker: LLM):
    with pytest.raises(error, match=why):
        ranker.rerank(query, ["hello"])
    assert len(ranker.rerank("hello", ["world"])) == 1


# --- generative models


@pytest.mark.parametrize("kind", ["llama", "gemma3", "mamba", "lfm2"])
def test_texts_evaluated_in_pieces_have_the_vectors_of_whole_ones(
    kind: str, load: Callable[..., LLM], monkeypatch: pytest.MonkeyPatch
):
    texts = some_texts(12, most_words=60)
    whole = load(kind).embed(texts)
    monkeypatch.setattr(embedding, "LOGITS_BYTES", 1)  # the least pieces that there are
    llm = load(kind)
    assert cosines(llm.embed(texts), whole).min() > SAME
    assert cosines([llm.embed(text) for text in texts[:3]], whole[:3]).min() > SAME


def test_no_logits_are_kept_for_every_token_of_a_long_text(load: Callable[..., LLM], monkeypatch: pytest.MonkeyPatch):
    """A text cut to the training length is refused for what its keys and values take, not for logits."""
    llm = load("llama")
    n_vocab, n_ctx = llm.model.vocab.n_tokens, llm.n_ctx_train
    logits = 4 * n_vocab * n_ctx
    monkeypatch.setattr(embedding, "LOGITS_BYTES", 64 * 4 * n_vocab)  # as of a larger vocabulary
    monkeypatch.setattr(embedding, "available_memory", lambda: logits)
    assert len(llm.embed("hello " * (n_ctx + 100), truncate=True)) > 0
    assert llm.stats.tokens_embedded == n_ctx
