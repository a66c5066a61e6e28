"""Creating contexts and decoding with them: what comes out, and everything that must not be let in."""

from __future__ import annotations

import gc
import math
import weakref
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
    LlamaModelParams,
    LlamaPoolingType,
    LlamaRopeScalingType,
    LlamaSampler,
)

from ..support.random_models import (
    BERT_N_CTX,
    write_one_layer,
    write_random_bert,
    write_random_model,
    write_random_t5,
)

BatchOf = Callable[..., LlamaBatch]
NewContext = Callable[..., LlamaContext]


def logits(context: LlamaContext, i: int = -1) -> np.ndarray:
    return np.asarray(context.get_logits_ith(i))


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


# ------------------------------------------------------------------------------------------------------------ callbacks


def test_abort_stops_every_decode_until_it_is_cleared(context: LlamaContext, batch_of: BatchOf):
    context.abort()
    assert context.decode(batch_of()) == 2
    with pytest.raises(IndexError):
        context.get_logits_ith()
    assert context.seq_pos_max(0) == -1
    context.clear_abort()
    assert context.decode(batch_of()) == 0


def test_the_abort_callback_decides_by_truth(new_context: NewContext, batch_of: BatchOf):
    answers: list[object] = [None]
    context = new_context(abort_callback=lambda: answers[0])
    assert context.decode(batch_of()) == 0
    answers[0] = "yes"
    assert context.decode(batch_of([1], 3)) == 2
    answers[0] = 0
    assert context.decode(batch_of([1], 3)) == 0


class NoTruth:
    def __bool__(self) -> bool:
        raise ArithmeticError("neither")


@pytest.mark.parametrize("name", ["abort_callback", "cb_eval"])
@pytest.mark.parametrize("error", [ArithmeticError, KeyboardInterrupt, None])
def test_what_a_callback_raises_comes_out_of_decode(
    name: str, error: type[BaseException] | None, new_context: NewContext, batch_of: BatchOf
):
    calls = []

    def callback(*args: object) -> object:
        calls.append(args)
        if len(calls) > 1:
            return False
        if error is None:
            return NoTruth()
        raise error

    context = new_context(**{name: callback})
    with pytest.raises(error or ArithmeticError):
        context.decode_and_sample(batch_of(), [(2, LlamaSampler.greedy())])
    assert len(calls) == 1, "after an exception nobody asks again"
    with pytest.raises(IndexError):
        context.get_logits_ith()
    context.kv_cache_clear()
    assert context.decode(batch_of()) == 0


def test_a_callback_that_cannot_be_called(new_context: NewContext, batch_of: BatchOf):
    with pytest.raises(TypeError, match="not callable"):
        new_context(abort_callback=7).decode(batch_of())


def test_the_eval_callback_sees_the_tensors_it_wants(new_context: NewContext, batch_of: BatchOf):
    asked, seen = set(), []

    def callback(name: str, ask: bool) -> bool:
        if ask:
            asked.add(name)
            return name == "result_output"
        seen.append(name)
        return True

    assert new_context(cb_eval=callback).decode(batch_of()) == 0
    assert "result_output" in asked
    assert len(asked) > 10
    assert seen == ["result_output"]


def test_a_callback_cannot_use_its_own_context(tiny_chat: Path, new_context: NewContext, batch_of: BatchOf):
    model = LlamaModel(tiny_chat)
    errors: list[str] = []
    uses: list[Callable[[], object]] = []

    def callback() -> bool:
        while uses:
            with pytest.raises(RuntimeError) as error:
                uses.pop()()
            errors.append(str(error.value))
        return False

    context = new_context(model, abort_callback=callback)
    uses += [context.close, lambda: context.decode(batch_of()), lambda: context.n_ctx, model.close]
    assert context.decode(batch_of()) == 0
    assert "not from a callback" in errors[0]
    assert all("in use by this thread" in error for error in errors[1:])
    assert len(errors) == 4
    model.close()
    assert context.closed, "what was refused in the callback works afterwards"


def test_a_callback_can_use_other_contexts(new_context: NewContext, batch_of: BatchOf):
    other = new_context()
    context = new_context(abort_callback=lambda: other.kv_cache_clear() or other.decode(batch_of()) != 0)
    assert context.decode(batch_of()) == 0
    assert other.seq_pos_max(0) == 2


def test_params_keep_what_a_context_uses_and_cycles_are_collected(
    tiny_chat: Path, new_context: NewContext, batch_of: BatchOf
):
    class Holder:
        context: LlamaContext

    holder, params, model_params = Holder(), LlamaContextParams(), LlamaModelParams()
    params.n_ctx = 256
    params.abort_callback = lambda own=holder: own.context is None
    holder.context = LlamaContext(LlamaModel(tiny_chat), params)
    params.abort_callback = None  # the context has a copy
    assert holder.context.decode(batch_of()) == 0
    model_params.progress_callback = lambda progress, own=model_params: own is not None
    gone = weakref.ref(holder)
    del holder, params, model_params
    gc.collect()
    assert gone() is None


# ----------------------------------------------------------------------------------------------- attention, embeddings


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
