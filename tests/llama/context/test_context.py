"""Creating contexts and decoding with them: what comes out, and everything that must not be let in."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cyllama.llama.llama_cpp import (
    GGMLType,
    LlamaAttentionType,
    LlamaBatch,
    LlamaContext,
    LlamaContextParams,
    LlamaContextType,
    LlamaFlashAttnType,
    LlamaModel,
    LlamaPoolingType,
    LlamaRopeScalingType,
    LlamaSampler,
)

from ...support.contexts import BatchOf, NewContext, logits


def test_a_prompt_in_one_batch_or_token_by_token_gives_the_same_logits(
    new_context: NewContext, story: list[int], batch_of: BatchOf
):
    one, many = new_context(), new_context()
    assert one.decode(batch_of(story)) == 0
    for pos, token in enumerate(story):
        assert many.decode(batch_of([token], pos)) == 0
    assert logits(one).shape == (1280,)
    np.testing.assert_allclose(logits(one), logits(many), atol=0.15)
    assert logits(one).argmax() == logits(many).argmax()


def test_outputs_are_found_by_token_and_from_the_end(context: LlamaContext, batch_of: BatchOf):
    batch = LlamaBatch(4)
    for pos, wanted in enumerate([True, False, True, False]):
        batch.add(pos + 1, pos, logits=wanted)
    assert context.decode(batch) == 0
    np.testing.assert_array_equal(logits(context, 0), logits(context, -2))
    np.testing.assert_array_equal(logits(context, 2), logits(context, -1))
    for index in (1, 3, 4, -3, 2**31 - 1, -(2**31)):
        with pytest.raises(IndexError, match="4 tokens, 2 of them with logits"):
            context.get_logits_ith(index)
    assert context.decode(batch_of([5], 4, logits_last=False)) == 0
    with pytest.raises(IndexError, match="1 tokens, 0 of them with logits"):
        context.get_logits_ith()


def test_all_tokens_of_a_sequence_can_have_outputs(context: LlamaContext):
    batch = LlamaBatch(3)
    batch.add_sequence([1, 2, 3], logits_all=True)
    assert context.decode(batch) == 0
    assert {logits(context, i).shape for i in range(3)} == {(1280,)}


def test_logits_are_a_copy(context: LlamaContext, batch_of: BatchOf):
    context.decode(batch_of([1]))
    view = context.get_logits_ith()
    before = bytes(view)
    context.decode(batch_of([2], 1))
    context.close()
    assert bytes(view) == before


def test_before_any_decode_there_is_nothing_to_read(context: LlamaContext):
    with pytest.raises(IndexError, match="0 tokens"):
        context.get_logits_ith()
    with pytest.raises(IndexError, match="0 tokens"):
        context.get_embeddings_ith(0)
    with pytest.raises(RuntimeError, match="no such output"):
        context.get_embeddings_seq(0)


def test_a_full_cache_is_a_status_and_leaves_everything_as_it_was(context: LlamaContext, batch_of: BatchOf):
    assert context.decode(batch_of([1] * 250)) == 0
    assert context.decode(batch_of([1] * 10, 250)) == 1
    assert context.seq_pos_max(0) == 249
    assert context.decode(batch_of([1] * 6, 250)) == 0


@pytest.mark.parametrize(
    ("tokens", "pos", "seq_id", "why"),
    [
        ([1280], 3, 0, "ids 0 to 1279"),
        ([-1], 3, 0, "ids 0 to 1279"),
        ([1], 5, 0, "remain consecutive"),
        ([1], 2, 0, "remain consecutive"),
        ([1], 3, 1, "n_seq_max=1"),
        ([1], 3, -1, "n_seq_max=1"),
        ([1] * 257, 3, 0, "more than n_batch=256"),
        ([], 3, 0, "the batch is empty"),
    ],
)
def test_a_bad_batch_is_refused_and_the_next_one_works(
    tokens: list[int], pos: int, seq_id: int, why: str, context: LlamaContext, batch_of: BatchOf
):
    context.decode(batch_of([1, 2, 3]))
    with pytest.raises(ValueError, match=why):
        context.decode(batch_of(tokens, pos, seq_id))
    assert context.decode(batch_of([4], 3)) == 0
    assert logits(context).shape == (1280,)


@pytest.mark.parametrize("kv_unified", [True, False])
def test_batches_of_many_sequences_are_checked_whole(kv_unified: bool, new_context: NewContext):
    context = new_context(n_seq_max=3, n_ctx=768, kv_unified=kv_unified)

    def decode(*tokens: tuple[int, int, list[int]]) -> int:
        batch = LlamaBatch(8, 4)
        for token, pos, seq_ids in tokens:
            batch.add(token, pos, seq_ids, logits=True)
        return context.decode(batch)

    with pytest.raises(ValueError, match="not continuous"):
        decode((1, 0, [1]), (1, 2, [1]))
    with pytest.raises(ValueError, match="decreasing"):
        decode((1, 1, [1]), (1, 0, [1]))
    assert decode((1, 0, [0]), (2, 0, [1]), (3, 1, [0]), (4, 0, [2])) == 0
    assert context.get_logits_ith(3) == context.get_logits_ith(-1)
    context.kv_cache_clear()
    if kv_unified:
        assert decode((1, 0, [0, 0, 0])) == 0  # the same sequence over and over is one
        with pytest.raises(ValueError, match=r"divere?ged"):
            decode((1, 1, [0, 1]))
        context.kv_cache_clear()
        assert decode((1, 0, [0, 1, 2]), (2, 1, [0]), (3, 1, [1])) == 0
        assert [context.seq_pos_max(seq_id) for seq_id in range(3)] == [1, 1, 0]
    else:
        with pytest.raises(ValueError, match="kv_unified=True"):
            decode((1, 0, [0, 1]))


def test_outputs_beyond_what_the_context_was_made_for(new_context: NewContext):
    context = new_context(n_outputs_max=2)
    batch = LlamaBatch(3)
    for pos in range(3):
        batch.add(1, pos, logits=True)
    with pytest.raises(ValueError, match="n_outputs_max=2"):
        context.decode(batch)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"n_threads": 0}, "n_threads must be from 1"),
        ({"n_threads_batch": 10_000}, "n_threads_batch must be from 1"),
        ({"n_batch": 0}, "n_batch must be from 1"),
        ({"n_ctx": 2**32 - 1}, "n_ctx must be from 0"),
        ({"n_seq_max": 0}, "n_seq_max"),
        ({"n_seq_max": 257, "n_ctx": 4096}, "n_seq_max"),
        ({"n_seq_max": 2, "n_outputs_max": 1}, "n_outputs_max"),
        ({"n_outputs_max": 1, "embeddings": True}, "embeddings are outputs of all tokens"),
        ({"threadpool_poll": 101}, "threadpool_poll"),
        ({"threadpool_prio": 4}, "threadpool_prio"),
    ],
)
def test_parameters_out_of_range(fields: dict[str, Any], why: str, new_context: NewContext):
    with pytest.raises(ValueError, match=why):
        new_context(**fields)


def test_parameters_of_the_wrong_kind(model: LlamaModel, new_context: NewContext):
    for fields in ({"samplers": 5}, {"samplers": [5]}, {"samplers": [(0, None)]}, {"ctx_other": 5}):
        with pytest.raises(TypeError):
            new_context(**fields)
    with pytest.raises(TypeError):
        LlamaContext(model, 5)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        LlamaContext(None)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="cannot create a context"):
        new_context(ctx_type=LlamaContextType.MTP)


def test_extreme_numbers_never_take_the_process_along(in_process: Callable[..., str]):
    code = """
logging.disable()
model, nan, inf = load(), float("nan"), float("inf")
yarn = ("yarn_ext_factor", "yarn_attn_factor", "yarn_beta_fast", "yarn_beta_slow")
for name in ("rope_freq_base", "rope_freq_scale", *yarn):
    for value in (nan, inf, -inf, -1e30, 1e38, 1e-45):
        with LlamaContext(model, params(**{name: value})) as context:
            context.decode(batch_of([1] * 40))
            for sampler in (LlamaSampler.greedy(), LlamaSampler.mirostat(1280, 1, 5, 0.1), LlamaSampler.chain(
                [LlamaSampler.penalties(1280, 10, 1.1), LlamaSampler.typical(0.5), LlamaSampler.dist(1)]
            )):
                raised(sampler.sample, context)
for fields in (
    dict(n_batch=100_000), dict(n_ubatch=100_000), dict(n_ctx=1, n_batch=1), dict(n_ubatch=0), dict(n_rs_seq=2**32 - 1),
    dict(n_outputs_max=2**32 - 1), dict(n_seq_max=200, n_ctx=2048, kv_unified=True), dict(threadpool_prio=3),
):
    with LlamaContext(model, params(**fields)) as context:
        assert context.decode(batch_of([1])) == 0, fields
print("fine")
"""
    assert in_process(code) == "fine\n"


def test_more_threads_than_the_system_has_are_an_error(in_process: Callable[..., str]):
    code = """
import resource
model = load()
context = LlamaContext(model, params())
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 30),) * 2)
print(raised(LlamaContext, model, params(n_threads=512)))
print(raised(context.set_n_threads, 512, 512))
print(context.decode(batch_of()))
"""
    message = "RuntimeError: cannot start {} threads: choose a smaller n_threads"
    assert in_process(code).splitlines() == [message.format(513), message.format(512), "0"]


def test_every_field_is_kept():
    values: dict[str, Any] = {
        "n_ctx": 1,
        "n_batch": 2,
        "n_ubatch": 3,
        "n_seq_max": 4,
        "n_rs_seq": 5,
        "n_outputs_max": 6,
        "n_outputs_max_per_seq": 7,
        "n_threads": 8,
        "n_threads_batch": 9,
        "ctx_type": LlamaContextType.MTP,
        "rope_scaling_type": LlamaRopeScalingType.YARN,
        "pooling_type": LlamaPoolingType.CLS,
        "attention_type": LlamaAttentionType.NON_CAUSAL,
        "flash_attn_type": LlamaFlashAttnType.ENABLED,
        "rope_freq_base": 0.5,
        "rope_freq_scale": 1.5,
        "yarn_ext_factor": 2.5,
        "yarn_attn_factor": 3.5,
        "yarn_beta_fast": 4.5,
        "yarn_beta_slow": 5.5,
        "yarn_orig_ctx": 10,
        "defrag_thold": 6.5,
        "type_k": GGMLType.Q8_0,
        "type_v": GGMLType.Q4_0,
        "abort_callback": bool,
        "cb_eval": max,
        "embeddings": True,
        "offload_kqv": False,
        "no_perf": False,
        "op_offload": False,
        "swa_full": False,
        "kv_unified": True,
        "samplers": [(0, LlamaSampler.chain())],
        "threadpool_poll": 11,
        "threadpool_prio": 2,
    }
    params = LlamaContextParams()
    for name, value in values.items():
        setattr(params, name, value)
    assert {name: getattr(params, name) for name in values} == values


def test_threads_can_be_changed(context: LlamaContext, batch_of: BatchOf):
    context.set_n_threads(1, 2)
    assert (context.n_threads, context.n_threads_batch) == (1, 2)
    assert context.decode(batch_of([1] * 40)) == 0
    with pytest.raises(ValueError, match="n_threads"):
        context.set_n_threads(0, 1)
    with pytest.raises(ValueError, match="n_threads_batch"):
        context.set_n_threads(1, 1000)


def test_close_is_idempotent_and_final(context: LlamaContext, batch_of: BatchOf):
    assert not context.closed
    context.close()
    context.close()
    assert context.closed
    assert repr(context) == "<LlamaContext (closed)>"
    for use in (
        lambda: context.decode(batch_of()),
        lambda: context.n_ctx,
        context.kv_cache_clear,
        context.state_get_data,
        context.get_logits_ith,
        context.synchronize,
        lambda: context.seq_rm(0),
        lambda: LlamaSampler.greedy().sample(context),
    ):
        with pytest.raises(RuntimeError, match="the context is closed"):
            use()


def test_closing_the_model_closes_its_contexts(tiny_chat: Path, new_context: NewContext):
    model = LlamaModel(tiny_chat)
    contexts = [new_context(model), new_context(model)]
    model.close()
    assert all(context.closed for context in contexts)


def test_a_context_keeps_its_model(tiny_chat: Path, new_context: NewContext, batch_of: BatchOf):
    context = new_context(LlamaModel(tiny_chat))
    gc.collect()
    assert context.decode(batch_of()) == 0
