"""Callbacks of a context: when they are called, and what they must not do."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from cyllama.llama.llama_cpp import (
    LlamaContext,
    LlamaContextParams,
    LlamaModel,
    LlamaModelParams,
    LlamaSampler,
)

from ...support.contexts import BatchOf, NewContext


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
    assert len(calls) == 1, "after an exception it is not called again"
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
