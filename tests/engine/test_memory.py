"""What every kind of memory can and cannot do, which the KV cache relies on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cyllama.llama.llama_cpp import (
    LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY,
    LlamaBatch,
    LlamaContext,
    LlamaContextParams,
    LlamaFlashAttnType,
    LlamaModel,
)

from ..support.random_models import ARCHITECTURES, HYBRID, RECURRENT, SLIDING, SLIDING_WINDOW, write_random_model

NewContext = Callable[..., LlamaContext]
Fresh = Callable[[Sequence[int]], np.ndarray]

SAME, DIFFERENT = 0.02, 0.1  # the rounding of another batch is below, another history above


def some_tokens(n: int, seed: int = 1) -> list[int]:
    return np.random.default_rng(seed).integers(10, 1270, n).tolist()


TOKENS = some_tokens(1400)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaModel]:
    path = write_random_model(tmp_path_factory.mktemp("models") / f"{request.param}.gguf", request.param)
    with LlamaModel(path) as model:
        yield model


@pytest.fixture
def new_context(model: LlamaModel) -> Iterator[NewContext]:
    """Create a context with these parameters; it is closed after the test."""
    contexts: list[LlamaContext] = []

    def create(**fields: Any) -> LlamaContext:
        params = LlamaContextParams()
        params.n_ctx, params.n_seq_max, params.n_outputs_max = 2048, 8, 8
        params.n_threads = params.n_threads_batch = 1
        params.kv_unified, params.swa_full = True, False
        params.flash_attn_type = LlamaFlashAttnType.DISABLED  # it sums up in 16 bits, differently for other batches
        for name, value in fields.items():
            setattr(params, name, value)
        contexts.append(LlamaContext(model, params))
        return contexts[-1]

    yield create
    for context in contexts:
        context.close()


@pytest.fixture
def context(new_context: NewContext) -> LlamaContext:
    return new_context()


def is_stateful(model: LlamaModel) -> bool:
    return model.is_recurrent or model.is_hybrid


def batch_of(tokens: Sequence[int], pos: int = 0, seq_id: int = 0) -> LlamaBatch:
    batch = LlamaBatch(len(tokens))
    batch.add_sequence(tokens, pos, seq_id)
    return batch


def tell(context: LlamaContext, tokens: Sequence[int], seq_id: int = 0) -> np.ndarray:
    """Append tokens to a sequence and return the logits of the last one."""
    pos = context.seq_pos_max(seq_id) + 1
    for i in range(0, len(tokens), context.n_batch):
        assert context.decode(batch_of(tokens[i : i + context.n_batch], pos + i, seq_id)) == 0
    return np.asarray(context.get_logits_ith())


def generate(context: LlamaContext, logits: np.ndarray, n: int) -> list[int]:
    tokens = []
    for _ in range(n):
        tokens.append(int(logits.argmax()))
        logits = tell(context, tokens[-1:])
    return tokens


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max())


@pytest.fixture
def fresh(new_context: NewContext) -> Fresh:
    """Logits of the last of some tokens, in a context that knows nothing else."""
    context = new_context()

    def evaluate(tokens: Sequence[int]) -> np.ndarray:
        context.kv_cache_clear()
        return tell(context, tokens)

    return evaluate


def test_every_kind_of_memory_is_there(model: LlamaModel):
    architecture = model.metadata["general.architecture"]
    assert model.is_recurrent == (architecture in RECURRENT)
    assert model.is_hybrid == (architecture in HYBRID)
    assert model.n_swa == (SLIDING_WINDOW if architecture in SLIDING else 0)


def test_greedy_tokens_are_the_same_every_time_but_not_one_another(context: LlamaContext):
    runs = []
    for _ in range(2):
        context.kv_cache_clear()
        logits = tell(context, TOKENS[:100])
        assert np.isfinite(logits).all()
        runs.append(generate(context, logits, 40))
    assert runs[0] == runs[1]
    assert len(set(runs[0])) > 20


def test_logits_depend_on_every_token_and_its_place(fresh: Fresh):
    logits = fresh(TOKENS[:100])
    for place in (0, 5, 50, 90, 98):
        assert difference(fresh([*TOKENS[:place], 9, *TOKENS[place + 1 : 100]]), logits) > DIFFERENT
    swapped = [*TOKENS[:20], TOKENS[21], TOKENS[20], *TOKENS[22:100]]
    assert difference(fresh(swapped), logits) > DIFFERENT


def test_how_the_tokens_are_split_makes_no_difference(context: LlamaContext, fresh: Fresh):
    one_by_one = [tell(context, [token]) for token in TOKENS[:100]]
    assert difference(one_by_one[-1], fresh(TOKENS[:100])) < SAME


@pytest.mark.parametrize("kept", [99, 90, 20])
def test_only_a_memory_without_a_state_drops_a_tail(kept: int, model: LlamaModel, context: LlamaContext, fresh: Fresh):
    tell(context, TOKENS[:100])
    assert context.seq_rm(0, kept, -1) == (not is_stateful(model))
    left = 100 if is_stateful(model) else kept
    assert context.seq_pos_max(0) == left - 1
    assert context.seq_pos_min(0) == (left - 1 if is_stateful(model) else 0)
    assert difference(tell(context, TOKENS[left:101]), fresh(TOKENS[:101])) < SAME


def test_a_copy_of_a_whole_sequence_goes_on_by_itself(context: LlamaContext, fresh: Fresh):
    tell(context, TOKENS[:100])
    context.seq_cp(0, 1)
    tell(context, TOKENS[200:220])
    context.seq_rm(0)
    assert difference(tell(context, TOKENS[100:101], 1), fresh(TOKENS[:101])) < SAME


def test_a_copy_of_a_part_has_the_state_of_the_whole(model: LlamaModel, context: LlamaContext, fresh: Fresh):
    tell(context, TOKENS[:100])
    context.seq_cp(0, 1, -1, 50)
    if is_stateful(model):
        assert context.seq_pos_min(1) == 99, "the only sign that a hybrid's copy is unusable"
        assert context.seq_pos_max(1) == (49 if model.is_hybrid else 99)
    else:
        assert difference(tell(context, TOKENS[50:101], 1), fresh(TOKENS[:101])) < SAME


def test_a_state_goes_on_in_another_sequence_of_a_larger_context(
    context: LlamaContext, new_context: NewContext, fresh: Fresh
):
    tell(context, TOKENS[:100])
    state = context.state_seq_get_data(0)
    larger = new_context(n_ctx=4096)
    tell(larger, TOKENS[300:350], 5)
    for target, seq_id in ((context, 3), (larger, 5)):
        target.state_seq_set_data(state, seq_id)
        assert target.seq_pos_max(seq_id) == 99
        assert difference(tell(target, TOKENS[100:101], seq_id), fresh(TOKENS[:101])) < SAME


def test_a_partial_state_brings_back_what_it_was_before_the_tail_is_dropped(context: LlamaContext, fresh: Fresh):
    logits = tell(context, TOKENS[:100])
    state = context.state_seq_get_data(0, LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY)
    for _ in range(2):
        generate(context, logits, 30)
        context.state_seq_set_data(state, 0, LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY)
        assert context.seq_rm(0, 100, -1)
        assert context.seq_pos_max(0) == 99
    assert difference(tell(context, TOKENS[100:101]), fresh(TOKENS[:101])) < SAME


def test_sequences_of_different_lengths_share_a_batch(context: LlamaContext, fresh: Fresh):
    told, lengths = [100, 0, 60, 30, 0], [1, 20, 1, 7, 20]
    batch, last = LlamaBatch(64), []
    for seq_id, (n_told, n) in enumerate(zip(told, lengths, strict=True)):
        if n_told:
            tell(context, TOKENS[seq_id : seq_id + n_told], seq_id)
        batch.add_sequence(TOKENS[seq_id + n_told : seq_id + n_told + n], n_told, seq_id)
        last.append(len(batch) - 1)
    assert context.decode(batch) == 0
    for seq_id, i in enumerate(last):
        alone = fresh(TOKENS[seq_id : seq_id + told[seq_id] + lengths[seq_id]])
        assert difference(np.asarray(context.get_logits_ith(i)), alone) < SAME


def test_after_an_abort_a_state_is_lost_with_its_whole_sequence(
    model: LlamaModel, new_context: NewContext, fresh: Fresh
):
    aborting = False
    context = new_context(abort_callback=lambda: aborting)
    for seq_id, n in enumerate((100, 60)):
        tell(context, TOKENS[:n], seq_id)
    aborting = True
    assert context.decode(batch_of(TOKENS[100:120], 100)) == 2
    aborting = False
    if is_stateful(model):
        assert context.seq_pos_max(0) == 119, "it claims what it has not computed"
        assert difference(tell(context, TOKENS[120:121]), fresh(TOKENS[:121])) > DIFFERENT
        assert context.seq_rm(0)
    assert difference(tell(context, TOKENS[context.seq_pos_max(0) + 1 : 121]), fresh(TOKENS[:121])) < SAME
    assert difference(tell(context, TOKENS[60:61], 1), fresh(TOKENS[:61])) < SAME


@pytest.mark.parametrize("model", RECURRENT, indirect=True)
def test_a_state_takes_the_same_room_however_long_its_sequence(new_context: NewContext):
    context = new_context(n_ctx=256, n_seq_max=2)
    sizes = set()
    for n in (10, 600):
        tell(context, TOKENS[:n])  # n_ctx is not enforced: there is nothing that could be full
        sizes.add(len(context.state_seq_get_data(0)))
    assert context.n_ctx == 256
    assert context.seq_pos_max(0) == 609
    assert len(sizes) == 1


@pytest.mark.parametrize("model", HYBRID, indirect=True)
def test_a_tail_is_not_dropped_before_a_partial_state_is_restored(context: LlamaContext, fresh: Fresh):
    logits = tell(context, TOKENS[:100])
    state = context.state_seq_get_data(0, LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY)
    generate(context, logits, 30)
    assert not context.seq_rm(0, 100, -1)
    context.state_seq_set_data(state, 0, LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY)
    assert context.seq_pos_max(0) == 99, "although the KV cache beside the state still holds the tail"
    assert context.seq_rm(0, 100, -1)
    assert difference(tell(context, TOKENS[100:101]), fresh(TOKENS[:101])) < SAME


@pytest.mark.parametrize("model", SLIDING, indirect=True)
@pytest.mark.parametrize("kept", [99, 98])
def test_a_tail_is_dropped_even_if_the_window_before_it_is_gone(kept: int, context: LlamaContext, fresh: Fresh):
    tell(context, TOKENS[:100])
    context.state_seq_set_data(context.state_seq_get_data(0), 0)
    assert context.seq_pos_min(0) == 100 - SLIDING_WINDOW, "a state has no more than the window"
    assert context.seq_rm(0, kept, -1)
    right = context.seq_pos_min(0) <= kept - SLIDING_WINDOW + 1
    assert right == (kept == 99)
    assert (difference(tell(context, TOKENS[kept:101]), fresh(TOKENS[:101])) < SAME) == right


@pytest.mark.parametrize("model", SLIDING, indirect=True)
def test_cells_that_left_the_window_are_used_again_unless_two_sequences_share_them(context: LlamaContext, fresh: Fresh):
    tell(context, TOKENS[:1000])
    assert context.seq_pos_min(0) > 0
    window = context.state_seq_get_data(0, LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY)
    context.seq_cp(0, 1)
    assert context.decode(batch_of(TOKENS[1000:1001], 1000)) == 1, "no room, although half of n_ctx is free"
    context.state_seq_set_data(window, 1, LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY)
    expected = fresh(TOKENS[:1001])
    for seq_id in (0, 1):
        assert difference(tell(context, TOKENS[1000:1001], seq_id), expected) < SAME


@pytest.mark.parametrize("model", SLIDING, indirect=True)
@pytest.mark.parametrize("passes", [1, 2])
def test_a_batch_of_several_passes_may_lose_a_part_of_the_window(passes: int, new_context: NewContext, fresh: Fresh):
    """Cells for both are looked for before the first one is computed, and the second one needs a window further on."""
    context = new_context(n_ctx=256, n_seq_max=2, n_batch=128, n_ubatch=64)
    tell(context, TOKENS[500:700], 1)
    tell(context, TOKENS[:30])
    context.seq_rm(1)
    tell(context, TOKENS[500:564], 1)  # so that the end of the window comes before its beginning
    tell(context, TOKENS[30:40])
    context.seq_rm(1)
    for i in range(40, 168, 64 * passes):
        assert context.decode(batch_of(TOKENS[i : i + 64 * passes], i)) == 0
    error = difference(np.asarray(context.get_logits_ith()), fresh(TOKENS[:168]))
    assert (error > DIFFERENT) == (passes > 1)


def test_a_whole_context_with_snapshots_of_its_recurrent_state_is_not_saved(tmp_path: Path):
    """llama.cpp aborts the process where two sequences share a state that one of them has rolled back."""
    params = LlamaContextParams()
    params.n_ctx, params.n_seq_max, params.kv_unified, params.n_rs_seq = 256, 2, True, 4
    with (
        LlamaModel(write_random_model(tmp_path / "model.gguf", "lfm2")) as model,
        LlamaContext(model, params) as context,
    ):
        batch = LlamaBatch(32)
        batch.add_sequence(list(range(10, 30)))
        assert context.decode(batch) == 0
        context.seq_cp(0, 1)
        assert context.seq_rm(1, 18)
        with pytest.raises(ValueError, match="only sequence by sequence"):
            context.state_get_data()
        assert context.state_seq_get_data(0)
