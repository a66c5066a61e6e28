"""What a context attends to, and what comes out besides logits: embeddings and log probabilities."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cyllama.llama.llama_cpp import (
    LlamaAttentionType,
    LlamaBatch,
    LlamaContext,
    LlamaContextParams,
    LlamaModel,
    LlamaModelParams,
    LlamaPoolingType,
    LlamaSampler,
)

from ...support.contexts import BatchOf, NewContext, logits
from ...support.random_models import (
    BERT_N_CTX,
    write_one_layer,
    write_random_bert,
    write_random_model,
    write_random_t5,
)


def test_non_causal_attention_needs_the_whole_batch_at_once(new_context: NewContext, batch_of: BatchOf):
    context = new_context(n_ubatch=64)
    assert context.decode(batch_of([1] * 100)) == 0
    context.kv_cache_clear()
    context.set_causal_attn(False)
    with pytest.raises(ValueError, match="more than n_ubatch=64"):
        context.decode(batch_of([1] * 65))
    assert context.decode(batch_of([1] * 64)) == 0
    with pytest.raises(ValueError, match="more than n_ubatch=64"):
        new_context(n_ubatch=64, attention_type=LlamaAttentionType.NON_CAUSAL).decode(batch_of([1] * 65))


def test_a_file_can_say_that_attention_is_not_causal(tiny_chat: Path, new_context: NewContext, batch_of: BatchOf):
    params = LlamaModelParams()
    params.kv_overrides = {"llama.attention.causal": False}
    context = new_context(LlamaModel(tiny_chat, params), n_ubatch=64)
    with pytest.raises(ValueError, match="more than n_ubatch=64"):
        context.decode(batch_of([1] * 65))


def test_embeddings_come_and_go(model: LlamaModel, new_context: NewContext, batch_of: BatchOf):
    context = new_context(pooling_type=LlamaPoolingType.MEAN)
    context.decode(batch_of())
    context.set_embeddings(True)
    with pytest.raises(RuntimeError, match="no such output"):
        context.get_embeddings_seq(0)
    context.decode(batch_of([4, 5], 3))
    pooled = np.asarray(context.get_embeddings_seq(0))
    assert pooled.shape == (model.n_embd_out,)
    assert np.isfinite(pooled).all()
    with pytest.raises(RuntimeError, match="pooling_type"):
        context.get_embeddings_ith(0)
    context.set_embeddings(False)
    context.decode(batch_of([6], 5))
    with pytest.raises(RuntimeError, match="no such output"):
        context.get_embeddings_seq(0)
    with pytest.raises(ValueError, match="n_seq_max=1"):
        context.get_embeddings_seq(1)


def test_embeddings_of_every_token(model: LlamaModel, new_context: NewContext, batch_of: BatchOf):
    context = new_context(embeddings=True, pooling_type=LlamaPoolingType.NONE)
    context.decode(batch_of(logits_last=False))
    rows = np.stack([np.asarray(context.get_embeddings_ith(i)) for i in range(3)])
    assert rows.shape == (3, model.n_embd_out)
    assert not np.allclose(rows[0], rows[1])
    mean = new_context(embeddings=True, pooling_type=LlamaPoolingType.MEAN)
    mean.decode(batch_of())
    np.testing.assert_allclose(np.asarray(mean.get_embeddings_seq()), rows.mean(axis=0), rtol=1e-3, atol=1e-3)


def test_embeddings_need_outputs_for_all_tokens(new_context: NewContext):
    context = new_context(n_outputs_max=1)
    with pytest.raises(ValueError, match="embeddings are outputs of all tokens"):
        context.set_embeddings(True)


def test_an_embedding_model_has_no_memory_and_answers_all_the_same(
    tmp_path: Path, new_context: NewContext, batch_of: BatchOf
):
    model = LlamaModel(write_random_bert(tmp_path / "bert.gguf"))
    context = new_context(model, embeddings=True, n_seq_max=2)
    assert context.decode(batch_of(logits_last=False)) == 0
    embedding = np.asarray(context.get_embeddings_seq(0))
    assert embedding.shape == (model.n_embd,)
    assert math.isfinite(embedding.sum())
    assert context.seq_pos_max(0) == -1
    assert not context.can_shift
    context.kv_cache_clear()
    context.kv_cache_clear(False)
    context.seq_keep(0)
    context.seq_cp(0, 1)
    assert context.seq_rm(0)
    with pytest.raises(ValueError, match="more than n_ubatch=2"):
        new_context(model, embeddings=True, n_ubatch=2).decode(batch_of())
    with pytest.raises(ValueError, match="n_outputs_max=1"):
        new_context(model, n_outputs_max=1).decode(batch_of())


def test_an_encoder_decoder_model_encodes_first(tmp_path: Path, new_context: NewContext, batch_of: BatchOf):
    model = LlamaModel(write_random_t5(tmp_path / "t5.gguf"))
    assert model.has_encoder
    assert model.has_decoder
    context = new_context(model)
    with pytest.raises(ValueError, match="needs encode"):
        context.decode(batch_of([0]))
    context.encode(batch_of([5, 6, 7]))
    assert context.decode(batch_of([0])) == 0
    after_567 = logits(context)
    context.kv_cache_clear()
    context.encode(batch_of([8, 9]))
    assert context.decode(batch_of([0])) == 0
    assert not np.allclose(after_567, logits(context))
    with pytest.raises(ValueError, match="more than n_ubatch"):
        context.encode(batch_of([1] * 257))
    context.abort()
    with pytest.raises(RuntimeError, match="aborted"):
        context.encode(batch_of())
    with pytest.raises(ValueError, match="kv_unified=True"):
        new_context(model, n_seq_max=2)


def test_only_an_encoder_encodes(context: LlamaContext, batch_of: BatchOf):
    with pytest.raises(ValueError, match="no encoder"):
        context.encode(batch_of())


@pytest.mark.parametrize("n_ctx", [2**31 - 1025, 1_500_000_000])
def test_a_context_larger_than_the_machine_is_refused_before_the_kernel_would_kill(model: LlamaModel, n_ctx: int):
    params = LlamaContextParams()
    params.n_ctx = n_ctx
    with pytest.raises(MemoryError, match=rf"n_ctx={n_ctx} needs about \d+ GiB for its KV cache"):
        LlamaContext(model, params)


def log_softmax(values: np.ndarray) -> np.ndarray:
    shifted = values.astype(np.float64) - values.max()
    return shifted - np.log(np.exp(shifted).sum())


def test_log_probabilities_are_those_of_the_raw_logits(context: LlamaContext, batch_of: BatchOf, story: list[int]):
    sampler = LlamaSampler.chain([LlamaSampler.top_k(3), LlamaSampler.temp(0.1), LlamaSampler.dist(1)])
    status, [token], _ = context.decode_and_sample(batch_of(story), [(len(story) - 1, sampler)])
    assert status == 0
    expected = log_softmax(logits(context))
    logprob, top = context.get_logprobs_ith(len(story) - 1, token, 5)
    assert logprob == pytest.approx(expected[token], abs=1e-9)
    assert [id for id, _ in top] == np.argsort(-expected, kind="stable")[:5].tolist()
    np.testing.assert_allclose([value for _, value in top], np.sort(expected)[::-1][:5], atol=1e-9)
    everything = context.get_logprobs_ith(-1, 0, 1280)[1]
    assert sum(math.exp(value) for _, value in everything) == pytest.approx(1)
    assert context.get_logprobs_ith(-1, 0) == (pytest.approx(expected[0], abs=1e-9), [])


def test_log_probabilities_of_what_there_is_not(context: LlamaContext, batch_of: BatchOf, story: list[int]):
    with pytest.raises(IndexError, match="0 tokens"):
        context.get_logprobs_ith(-1, 0)
    context.decode(batch_of(story))
    with pytest.raises(IndexError, match="no output"):
        context.get_logprobs_ith(0, 0)
    for token in (-1, 1280):
        with pytest.raises(ValueError, match="token must be from 0 to 1279"):
            context.get_logprobs_ith(-1, token)
    for n_top in (-1, 1281):
        with pytest.raises(ValueError, match="n_top must be from 0 to 1280"):
            context.get_logprobs_ith(-1, 0, n_top)


def test_log_probabilities_of_a_damaged_model(tmp_path: Path, new_context: NewContext, batch_of: BatchOf):
    with LlamaModel(write_one_layer(tmp_path / "llama.gguf", nan=True)) as model:
        context = new_context(model)
        context.decode(batch_of())
        logprob, top = context.get_logprobs_ith(-1, 0, 3)
        assert math.isnan(logprob)
        assert [id for id, _ in top] == [0, 1, 2]


def test_what_a_model_attends_to_and_remembers(tmp_path: Path, new_context: NewContext, model: LlamaModel):
    assert model.is_causal
    assert new_context().has_memory
    with LlamaModel(write_random_bert(tmp_path / "bert.gguf")) as bert:
        assert not bert.is_causal
        assert not new_context(bert, embeddings=True).has_memory


@pytest.mark.parametrize("kv_unified", [True, False])
def test_positions_beyond_the_learned_ones_are_refused(
    kv_unified: bool, tmp_path: Path, new_context: NewContext, batch_of: BatchOf
):
    with LlamaModel(write_random_bert(tmp_path / "bert.gguf")) as model:
        assert model.n_positions == BERT_N_CTX
        context = new_context(model, n_ctx=512, n_batch=512, n_ubatch=512, n_seq_max=4, kv_unified=kv_unified)
        with pytest.raises(ValueError, match=f"position {BERT_N_CTX} is out of range.*learned.*{BERT_N_CTX} positions"):
            context.decode(batch_of([5] * (BERT_N_CTX + 1)))
        batch = LlamaBatch(4 * BERT_N_CTX)
        for seq_id in range(4):  # together they may be longer
            batch.add_sequence([5] * BERT_N_CTX, 0, seq_id)
        assert context.decode(batch) == 0


def test_computed_positions_have_no_end(model: LlamaModel):
    assert model.n_positions == 0


@pytest.mark.parametrize("n_seq_max", [3, 5, 7])
def test_a_mean_needs_whole_shares_of_a_pass(n_seq_max: int, new_context: NewContext, batch_of: BatchOf):
    fields: dict[str, Any] = {"embeddings": True, "pooling_type": LlamaPoolingType.MEAN, "n_batch": 128}
    with pytest.raises(ValueError, match=f"multiple of n_seq_max={n_seq_max}, not 128"):
        new_context(n_seq_max=n_seq_max, **fields)
    n_ubatch = 128 // n_seq_max * n_seq_max
    context = new_context(n_seq_max=n_seq_max, n_ubatch=n_ubatch, **fields)
    assert context.decode(batch_of([1, 2, 3], 0, n_seq_max - 1)) == 0
    assert len(context.get_embeddings_seq(n_seq_max - 1)) > 0


@pytest.mark.parametrize("n_ubatch", [2, 16])
def test_snapshots_of_a_state_must_fit_into_a_pass(
    n_ubatch: int, tmp_path: Path, new_context: NewContext, batch_of: BatchOf
):
    with LlamaModel(write_random_model(tmp_path / "lfm2.gguf", "lfm2")) as model:
        for n_rs_seq in (n_ubatch - 1, n_ubatch, 2**32 - 1):
            with pytest.raises(ValueError, match="n_rs_seq"):
                new_context(model, n_ubatch=n_ubatch, n_rs_seq=n_rs_seq)
        context = new_context(model, n_ubatch=n_ubatch, n_rs_seq=n_ubatch - 2)
        assert context.decode(batch_of(range(1, 40))) == 0


def test_thread_pools_can_be_replaced_between_decodes(in_process: Callable[..., str]):
    code = """
context = LlamaContext(load(), params(n_threads=2, n_threads_batch=2))
for i in range(60):
    context.decode(batch_of(pos=3 * i))
    context.set_n_threads(1 + i % 3, 1 + (i + 1) % 3)
    context.set_n_threads(2, 1 + i % 2)
n_threads = len(os.listdir("/proc/self/task")) if sys.platform == "linux" else 1
context.close()
print("fine" if n_threads < 10 else n_threads)
"""
    assert in_process(code) == "fine\n"


@pytest.mark.parametrize(
    "pooling_type", [LlamaPoolingType.CLS, LlamaPoolingType.LAST, LlamaPoolingType.RANK, LlamaPoolingType.MEAN]
)
def test_pooling_can_be_switched_off_and_on(
    pooling_type: LlamaPoolingType, tmp_path: Path, new_context: NewContext, batch_of: BatchOf
):
    with LlamaModel(write_random_bert(tmp_path / "bert.gguf")) as model:
        context = new_context(model, embeddings=True, pooling_type=pooling_type)
        for embeddings in (True, False, True, True, False, False, True):
            context.set_embeddings(embeddings)
            assert context.decode(batch_of()) == 0
        assert context.get_embeddings_seq(0)
