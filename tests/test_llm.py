"""The context rules: when a context is created, reused, replaced and given back, and what every generation promises."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest

from cyllama import LLM, ContextSizeError, GenerationConfig, ModelConfig, PromptError, Response
from cyllama.errors import ForkedError

CAPITAL = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"


def test_the_embedded_model_answers_a_question(llm: LLM):
    response = llm(CAPITAL)
    assert response == "The capital of France is Paris."
    assert response.finish_reason == "stop"
    assert response.model == "tiny-chat"


def test_loading_a_model_creates_no_context(tiny_chat: Path):
    llm = LLM(tiny_chat)
    assert (llm.stats.contexts_created, llm.stats.n_ctx) == (0, 0)


def test_the_first_generation_creates_a_context_for_its_need(llm: LLM):
    before = llm.stats
    llm(CAPITAL, max_tokens=8)
    assert llm.stats.contexts_created == before.contexts_created + 1
    assert llm.stats.n_ctx == 256, "prompt and answer, rounded up to 256"


def test_later_generations_reuse_the_context(llm: LLM):
    llm(CAPITAL, max_tokens=8)
    before = llm.stats
    for _ in range(5):
        llm(CAPITAL, max_tokens=8)
    after = llm.stats
    assert after.contexts_created == before.contexts_created
    assert after.context_reuses == before.context_reuses + 5


def test_a_longer_need_replaces_the_context_by_one_at_least_twice_as_large(llm: LLM):
    llm(CAPITAL, max_tokens=200)
    assert llm.stats.n_ctx == 256
    llm(CAPITAL, max_tokens=250)
    assert llm.stats.n_ctx == 512
    llm(CAPITAL, max_tokens=1000)
    assert llm.stats.n_ctx == 1024
    created = llm.stats.contexts_created
    llm(CAPITAL, max_tokens=8)
    assert llm.stats.contexts_created == created, "a smaller need keeps the larger context"


def test_a_context_grows_by_itself_up_to_the_training_length_only(llm: LLM):
    llm(CAPITAL, max_tokens=1500)
    llm(CAPITAL, max_tokens=100_000, stop_sequences=["capital"])
    assert llm.stats.n_ctx == llm.n_ctx_train == 2048


def test_max_tokens_none_goes_to_the_end_of_the_context(llm: LLM):
    response = llm(CAPITAL, max_tokens=None, ignore_eos=True, n_ctx=300)
    assert response.finish_reason == "length"
    assert response.usage.total_tokens == 300


@pytest.mark.parametrize("n_ctx", [20, 100, 256, 300, 1000])
def test_a_fixed_n_ctx_is_honoured_exactly(llm: LLM, n_ctx: int):
    response = llm(CAPITAL, n_ctx=n_ctx, max_tokens=5000, ignore_eos=True)
    assert llm.stats.n_ctx == n_ctx
    assert response.usage.total_tokens == n_ctx
    assert response.finish_reason == "length"


def test_a_fixed_n_ctx_may_exceed_the_training_length(llm: LLM):
    llm(CAPITAL, n_ctx=3000, max_tokens=1)
    assert llm.stats.n_ctx == 3000


def test_a_fixed_n_ctx_is_not_doubled(tiny_chat: Path):
    with LLM(tiny_chat, n_ctx=300, temperature=0) as llm:
        llm(CAPITAL, n_ctx=280, max_tokens=1)
        llm(CAPITAL, max_tokens=1)
        assert llm.stats.n_ctx == 300


def test_a_prompt_longer_than_a_fixed_n_ctx_is_refused_and_nothing_evaluated(llm: LLM):
    before = llm.stats
    n_prompt = llm.count_tokens(CAPITAL)
    with pytest.raises(ContextSizeError, match=rf"{n_prompt} tokens but n_ctx is 10\b"):
        llm(CAPITAL, n_ctx=10)
    assert llm.stats == before
    assert llm(CAPITAL) == "The capital of France is Paris."


def test_a_prompt_longer_than_the_training_length_is_refused(llm: LLM):
    prompt = [1] * (llm.n_ctx_train + 1)
    with pytest.raises(ContextSizeError, match=r"2049 tokens .* context of 2048"):
        llm(prompt)
    assert llm([1] * llm.n_ctx_train, max_tokens=5).finish_reason == "length"


def test_a_prompt_that_fills_the_context_leaves_no_space_for_an_answer(llm: LLM):
    n_prompt = llm.count_tokens(CAPITAL)
    response = llm(CAPITAL, n_ctx=n_prompt)
    assert (response, response.finish_reason) == ("", "length")
    assert llm(CAPITAL, n_ctx=n_prompt + 1).usage.completion_tokens == 1


def test_max_tokens_zero_generates_nothing(llm: LLM):
    response = llm(CAPITAL, max_tokens=0)
    assert (response, response.finish_reason, response.usage.completion_tokens) == ("", "length", 0)


def test_reset_context_makes_the_next_generation_start_in_a_fresh_context(llm: LLM):
    llm(CAPITAL, max_tokens=8)
    created = llm.stats.contexts_created
    llm.reset_context()
    assert llm.stats.n_ctx == 0
    assert llm(CAPITAL) == "The capital of France is Paris."
    assert llm.stats.contexts_created == created + 1


def test_close_gives_the_context_back_and_leaves_the_instance_usable(llm: LLM):
    llm(CAPITAL, max_tokens=8)
    llm.close()
    llm.close()
    assert llm.stats.n_ctx == 0
    assert llm(CAPITAL) == "The capital of France is Paris."


def test_close_ends_the_engine_thread(llm: LLM):
    others = set(threading.enumerate())
    llm(CAPITAL, max_tokens=1)
    started = set(threading.enumerate()) - others
    assert [thread.name for thread in started] == ["cyllama-engine"]
    llm.close()
    assert not started & set(threading.enumerate())


def test_with_closes_also_after_an_exception(tiny_chat: Path):
    llm = LLM(tiny_chat)

    def fail() -> None:
        with llm:
            llm(CAPITAL, max_tokens=1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert llm.stats.n_ctx == 0


def test_a_dropped_instance_is_collected_with_its_thread(tiny_chat: Path):
    others = set(threading.enumerate())
    llm = LLM(tiny_chat)
    llm(CAPITAL, max_tokens=1)
    reference = weakref.ref(llm)
    del llm
    gc.collect()
    assert reference() is None
    assert set(threading.enumerate()) <= others


def test_an_instance_in_a_reference_cycle_is_collected(tiny_chat: Path):
    llm = LLM(tiny_chat)
    llm(CAPITAL, max_tokens=1)
    llm.myself = llm  # type: ignore[attr-defined]
    reference = weakref.ref(llm)
    del llm
    gc.collect()
    assert reference() is None


def test_a_failed_load_leaves_nothing_to_clean_up():
    with pytest.raises(FileNotFoundError):
        LLM("there-is-no-such-model.gguf")
    gc.collect()


def test_the_same_prompt_gives_the_same_text_whatever_ran_before(llm: LLM):
    fresh = [llm(CAPITAL, seed=seed, temperature=1.5, max_tokens=30) for seed in range(3)]
    llm("Something else entirely. " * 20, max_tokens=50)
    llm([5, 6, 7], max_tokens=3, seed=1, temperature=2)
    assert [llm(CAPITAL, seed=seed, temperature=1.5, max_tokens=30) for seed in range(3)] == fresh


def test_nothing_is_remembered_from_one_call_to_the_next(llm: LLM):
    question = "<|im_start|>user\nWhat is my name?<|im_end|>\n<|im_start|>assistant\n"
    llm(CAPITAL.replace("What is the capital of France?", "My name is Zorblax."))
    assert "Zorblax" not in llm(question)


def test_without_a_seed_generations_differ(llm: LLM):
    assert len({llm("Once upon a time", temperature=2, top_k=0, max_tokens=20) for _ in range(5)}) > 1


def test_a_long_prompt_is_evaluated_in_chunks_with_the_same_result(llm: LLM):
    prompt = "The wheels on the bus go round and round. " * 30 + CAPITAL
    assert llm(prompt, n_batch=7) == llm(prompt)
    assert llm.stats.prompt_tokens_evaluated >= 2 * llm.count_tokens(prompt)


def test_a_response_is_its_text_and_more(llm: LLM):
    response = llm(CAPITAL)
    assert isinstance(response, str)
    assert response.text == "The capital of France is Paris."
    assert type(response.text) is str
    usage = response.usage
    assert usage.prompt_tokens == llm.count_tokens(CAPITAL)
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.cached_tokens == 0
    timings = response.timings
    assert timings.prompt > 0
    assert timings.generation > 0
    assert timings.total == pytest.approx(timings.queued + timings.prompt + timings.generation)


def test_a_response_can_be_copied_and_pickled(llm: LLM):
    response = llm(CAPITAL)
    for twin in (copy.deepcopy(response), pickle.loads(pickle.dumps(response))):
        assert isinstance(twin, Response)
        assert (twin, twin.finish_reason, twin.usage, twin.model) == (response, "stop", response.usage, "tiny-chat")


def test_stats_count_tokens(llm: LLM):
    before = llm.stats
    response = llm(CAPITAL)
    after = llm.stats
    assert after.prompt_tokens_evaluated - before.prompt_tokens_evaluated == response.usage.prompt_tokens
    assert after.tokens_generated - before.tokens_generated == response.usage.completion_tokens
    assert after.prompt_tokens_reused == before.prompt_tokens_reused


def test_config_and_overrides_merge_from_general_to_specific(tiny_chat: Path):
    llm = LLM(tiny_chat, GenerationConfig(temperature=0, max_tokens=3), seed=1)
    assert (llm.config.temperature, llm.config.max_tokens, llm.config.seed) == (0, 3, 1)
    assert llm(CAPITAL).usage.completion_tokens == 3
    assert llm(CAPITAL, {"max_tokens": 2}).usage.completion_tokens == 2
    assert llm(CAPITAL, GenerationConfig(max_tokens=2), max_tokens=1).usage.completion_tokens == 1
    assert llm.config.max_tokens == 3
    llm.close()


def test_model_options_may_be_given_by_name(tiny_chat: Path):
    with LLM(tiny_chat, n_threads=1, type_k="q8_0", temperature=0, max_tokens=5) as llm:
        assert llm.model_config == ModelConfig(n_threads=1, type_k="q8_0")
        assert llm(CAPITAL).startswith("The capital")


def test_an_unknown_option_is_a_type_error_that_suggests_the_nearest(llm: LLM, tiny_chat: Path):
    misspelt: dict[str, Any] = {"temperatur": 1}
    of_the_model: dict[str, Any] = {"n_threads": 1}
    with pytest.raises(TypeError, match="'temperatur': did you mean 'temperature'"):
        llm("Hi", **misspelt)
    with pytest.raises(TypeError, match="'n_gpu_layer': did you mean 'n_gpu_layers'"):
        LLM(tiny_chat, n_gpu_layer=1)
    with pytest.raises(TypeError, match="no option 'n_threads'"):
        llm("Hi", **of_the_model)


def test_many_threads_take_turns(llm: LLM):
    prompts = [CAPITAL.replace("France", country) for country in ("Spain", "Italy", "Norway", "Japan")] * 3
    alone = [llm(prompt) for prompt in prompts]
    together = [""] * len(prompts)

    def work(i: int) -> None:
        together[i] = llm(prompts[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone
    assert len(set(alone)) == 4


def test_tokens_and_text_round_trip(llm: LLM):
    for text in ("Hello, world!", " leading space", "naïve café 日本語 🦊", "<|im_start|>user\n", "\x00\x01\t\r\n", ""):
        assert llm.detokenize(llm.tokenize(text)) == text
        assert llm.count_tokens(text) == len(llm.tokenize(text))


def test_control_tokens_are_parsed_as_configured(llm: LLM):
    assert len(llm.tokenize("<|im_end|>")) == 1
    assert len(llm.tokenize("<|im_end|>", parse_special=False)) > 1


def test_a_prompt_of_token_ids_is_the_same_as_its_text(llm: LLM):
    assert llm(llm.tokenize(CAPITAL)) == llm(CAPITAL)


def test_add_bos_puts_the_token_in_front(llm: LLM):
    bos = llm.model.vocab.bos
    assert llm.tokenize("Hi", add_bos=True) == [bos, *llm.tokenize("Hi", add_bos=False)]
    assert llm("Hi", add_bos=True, max_tokens=1).usage.prompt_tokens == llm.count_tokens("Hi") + 1


def test_an_instance_cannot_be_pickled(llm: LLM):
    with pytest.raises(TypeError, match="owns a loaded model"):
        pickle.dumps(llm)


def test_reset_context_from_another_thread_ends_a_generation_as_cancelled(llm: LLM):
    stream = llm(CAPITAL, max_tokens=None, ignore_eos=True, stream=True)
    text = next(stream)
    thread = threading.Thread(target=llm.reset_context)
    thread.start()
    text += "".join(stream)
    thread.join()
    assert stream.response.finish_reason == "cancelled"
    assert stream.response == text
    assert llm(CAPITAL) == "The capital of France is Paris."


def test_close_from_a_callback_ends_the_generation(llm: LLM):
    chunks: list[str] = []

    def close(chunk: str) -> None:
        chunks.append(chunk)
        llm.close()

    response = llm(CAPITAL, ignore_eos=True, max_tokens=None, on_token=close)
    assert response.finish_reason == "cancelled"
    assert response == "".join(chunks)
    assert llm.stats.n_ctx == 0


def test_close_ends_waiting_generations_too(llm: LLM):
    running = llm(CAPITAL, max_tokens=None, ignore_eos=True, stream=True)
    next(running)
    waiting = [llm(CAPITAL, stream=True) for _ in range(3)]
    llm.close()
    for stream in waiting:
        assert list(stream) == []
        assert stream.response.finish_reason == "cancelled"
    running.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_forked_child_gets_an_error_instead_of_a_deadlock(tiny_chat: Path):
    code = f"""
import os, warnings
warnings.simplefilter("ignore")
from cyllama import LLM, ForkedError
llm = LLM({str(tiny_chat)!r})
llm("Hi", max_tokens=1)
pid = os.fork()
if pid == 0:
    try:
        llm("Hi", max_tokens=1)
    except ForkedError as error:
        print("child:", error, flush=True)
    llm.close()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
print("parent:", llm("Hi", max_tokens=1).finish_reason)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "child: this LLM was loaded before os.fork()" in result.stdout
    assert "parent: length" in result.stdout
    assert issubclass(ForkedError, RuntimeError)


@pytest.mark.parametrize(
    "ending",
    [
        "",  # everything alive
        "stream = llm('Hi', max_tokens=None, ignore_eos=True, stream=True); next(stream)",  # a generation running
        "import threading; threading.Thread(target=llm, args=('Hi',), daemon=True).start()",
        "import sys; sys.exit(0)",
        "del llm",
    ],
)
def test_the_interpreter_exits_cleanly(ending: str):
    code = f"from cyllama import LLM\nllm = LLM()\nllm('Hi', max_tokens=2)\n{ending}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stderr) == (0, "")


def test_an_exception_carries_the_builtin_type(llm: LLM):
    with pytest.raises(ValueError, match="empty"):
        llm("")
    with pytest.raises(PromptError):
        llm([])
