"""Completions through LangChain: whole and in pieces, alone and many at once, as sessions and within chains."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.load import dumps, loads
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import PromptTemplate

from cyllama import LLM, ConfigError, ContextSizeError, GrammarError, PromptError
from langchain_cyllama import CyllamaLLM, UnusedArgumentWarning

from ..support.harness import EXACT, Step, settled, together

PROMPT = "Once upon a time"


@pytest.fixture
def model(llm: LLM) -> Iterator[CyllamaLLM]:
    """A model with an `LLM` of its own, without a context and without sessions."""
    model = CyllamaLLM(llm=llm, max_tokens=12, temperature=0)
    yield model
    model.reset_sessions()


class Recorder(BaseCallbackHandler):
    """Records the events of a call."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.params: list[dict[str, Any]] = []
        self.errors: list[BaseException] = []

    def on_llm_start(self, serialized: dict[str, Any], prompts: list[str], **kwargs: Any) -> None:
        self.params.append(kwargs["invocation_params"])

    def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        self.tokens.append(token)

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        self.errors.append(error)


class AsyncRecorder(AsyncCallbackHandler):
    def __init__(self) -> None:
        self.tokens: list[str] = []

    async def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        self.tokens.append(token)


# -------------------- texts


def test_a_text_is_continued_as_cyllama_continues_it(model: CyllamaLLM, llm: LLM):
    assert model.invoke(PROMPT) == llm(PROMPT, max_tokens=12)
    assert asyncio.run(model.ainvoke(PROMPT)) == llm(PROMPT, max_tokens=12)


def test_a_stream_adds_up_to_the_text(model: CyllamaLLM):
    chunks = list(model.stream(PROMPT))
    assert len(chunks) > 3
    assert "".join(chunks) == model.invoke(PROMPT)

    async def read() -> list[str]:
        return [chunk async for chunk in model.astream(PROMPT)]

    assert "".join(asyncio.run(read())) == model.invoke(PROMPT)


def test_stop_words_end_a_text_before_them(model: CyllamaLLM):
    whole = model.invoke(PROMPT)
    word = whole.split()[2]
    assert model.invoke(PROMPT, stop=[word]) == whole[: whole.index(word)]
    assert model.bind(stop=[word]).invoke(PROMPT) == whole[: whole.index(word)]
    assert "".join(model.stream(PROMPT, stop=[word])) == whole[: whole.index(word)]


def test_a_text_may_begin_with_its_prompt_and_end_with_a_suffix(model: CyllamaLLM):
    framed = model.bind(echo=True, suffix=" THE END")
    expected = PROMPT + model.invoke(PROMPT) + " THE END"
    assert framed.invoke(PROMPT) == expected
    assert "".join(framed.stream(PROMPT)) == expected
    assert CyllamaLLM(llm=model.llm, max_tokens=12, echo=True).invoke(PROMPT) == PROMPT + model.invoke(PROMPT)


def test_a_grammar_decides_what_the_text_may_be(model: CyllamaLLM, tmp_path: Any):
    grammar = 'root ::= [0-9] "!"'
    (tmp_path / "digit.gbnf").write_text(grammar)
    from_file = CyllamaLLM(llm=model.llm, temperature=0, grammar_path=tmp_path / "digit.gbnf")
    (tmp_path / "digit.gbnf").unlink()
    for constrained in (CyllamaLLM(llm=model.llm, temperature=0, grammar=grammar), from_file):
        text = constrained.invoke("A number: ")
        assert text[0].isdigit()
        assert text[1:] == "!"
    assert model.invoke("A number: ", grammar=grammar) == text
    with pytest.raises(GrammarError):
        model.invoke("A number: ", grammar="no grammar")


def test_a_grammar_and_a_file_of_another_one_contradict_each_other(tmp_path: Any):
    (tmp_path / "a.gbnf").write_text('root ::= "a"')
    with pytest.raises(ConfigError, match=r"grammar and grammar_path=.* differ"):
        CyllamaLLM(grammar='root ::= "b"', grammar_path=tmp_path / "a.gbnf")
    with pytest.raises(FileNotFoundError, match=r"b\.gbnf"):
        CyllamaLLM(grammar_path=tmp_path / "b.gbnf")


def test_a_format_makes_it_json(model: CyllamaLLM):
    schema = {"type": "object", "properties": {"legs": {"type": "integer", "maximum": 9}}, "required": ["legs"]}
    answer = model.bind(format=schema, max_tokens=60).invoke("A fox as JSON: ")
    assert list(json.loads(answer)) == ["legs"]


# -------------------- batches


def test_many_prompts_are_decoded_together(model: CyllamaLLM, steps: list[Step]):
    prompts: list[Any] = [f"{PROMPT} there were {n}" for n in ("one", "two", "three", "four")]
    results = together(model.client, 4, lambda: model.batch(prompts))
    assert max(len(step.generated) for step in steps) == 4
    assert results == [model.invoke(prompt) for prompt in prompts]
    assert asyncio.run(model.abatch(prompts)) == results


def test_a_batch_of_sixteen_runs_as_one(steps: list[Step]):
    with CyllamaLLM(max_tokens=8, n_parallel=16, **EXACT) as model:
        prompts: list[Any] = [f"{PROMPT} there were {n} foxes" for n in range(16)]
        assert len(together(model.client, 16, lambda: model.batch(prompts))) == 16
        assert max(len(step.generated) for step in steps) == 16


def test_a_batch_may_be_limited(model: CyllamaLLM, steps: list[Step]):
    prompts: list[Any] = [f"{PROMPT} there were {n}" for n in ("one", "two", "three")]
    results = together(model.client, 2, lambda: model.batch(prompts, {"max_concurrency": 2}))
    assert max(len(step.generated) for step in steps) == 2
    assert results == [model.invoke(prompt) for prompt in prompts]
    assert asyncio.run(model.abatch(prompts, {"max_concurrency": 2})) == results
    assert model.batch([]) == []


def test_an_error_of_one_prompt_does_not_end_the_others_if_asked(llm: LLM):
    model = CyllamaLLM(llm=llm, max_tokens=4, temperature=0, n_ctx=64)
    prompts: list[Any] = [PROMPT, "fox " * 200, PROMPT]
    for results in (
        model.batch(prompts, return_exceptions=True),
        asyncio.run(model.abatch(prompts, return_exceptions=True)),
    ):
        first, error, last = results
        assert isinstance(error, ContextSizeError)
        assert first == last == model.invoke(PROMPT)
    with pytest.raises(ContextSizeError):
        model.batch(prompts)
    assert llm.stats.running == 0


# -------------------- details of a text


def test_results_have_finish_reasons_and_token_counts(model: CyllamaLLM, llm: LLM):
    result = model.generate([PROMPT, "The capital of France is"])
    first, second = (generations[0].generation_info or {} for generations in result.generations)
    assert first["finish_reason"] == "length"
    assert first["token_usage"]["prompt_tokens"] == llm.count_tokens(PROMPT)
    assert first["token_usage"]["completion_tokens"] == 12
    assert set(first["timings"]) == {"queued", "prompt", "generation", "tokens_drafted", "tokens_accepted"}
    assert second["model_name"] == "tiny-chat"
    assert result.llm_output is not None
    total = result.llm_output["token_usage"]["total_tokens"]
    assert total == first["token_usage"]["total_tokens"] + second["token_usage"]["total_tokens"]


def test_the_last_chunk_of_a_stream_has_them_too(model: CyllamaLLM):
    *_, last = model._stream(PROMPT)
    assert last.generation_info is not None
    assert last.generation_info["finish_reason"] == "length"
    assert last.generation_info["token_usage"]["completion_tokens"] == 12


def test_log_probabilities_are_lists_that_add_up(model: CyllamaLLM):
    result = model.generate([PROMPT], logprobs=2)
    whole = (result.generations[0][0].generation_info or {})["logprobs"]
    assert "".join(whole["tokens"]) == result.generations[0][0].text
    assert all(logprob <= 0 for logprob in whole["token_logprobs"])
    assert all(len(top) == 2 for top in whole["top_logprobs"])
    chunks = list(model._stream(PROMPT, logprobs=True, top_logprobs=2))
    total = chunks[0]
    for chunk in chunks[1:]:
        total += chunk
    assert (total.generation_info or {})["logprobs"]["tokens"] == whole["tokens"]


def test_tokens_are_counted_as_the_model_counts_them(model: CyllamaLLM, llm: LLM):
    assert model.get_num_tokens(PROMPT) == llm.count_tokens(PROMPT)
    assert model.get_token_ids(PROMPT) == llm.tokenize(PROMPT)
    custom = CyllamaLLM(llm=llm, custom_get_token_ids=lambda text: [1] * len(text))
    assert custom.get_num_tokens("four") == 4


# -------------------- callbacks, traces, caches


def test_callbacks_get_every_chunk_of_a_stream(model: CyllamaLLM):
    recorder = Recorder()
    text = "".join(model.stream(PROMPT, {"callbacks": [recorder]}))
    assert "".join(recorder.tokens) == text
    assert len(recorder.tokens) > 3


def test_callbacks_get_every_chunk_of_invoke_if_asked(model: CyllamaLLM):
    recorder, silent, other = Recorder(), Recorder(), AsyncRecorder()
    streaming = model.model_copy(update={"streaming": True})
    text = streaming.invoke(PROMPT, {"callbacks": [recorder]})
    assert "".join(recorder.tokens) == text
    assert asyncio.run(streaming.ainvoke(PROMPT, {"callbacks": [other]})) == "".join(other.tokens)
    model.invoke(PROMPT, {"callbacks": [silent]})
    assert silent.tokens == []


def test_traces_name_the_model_and_its_options(model: CyllamaLLM):
    params = model.bind(num_predict=5, stop=["."])
    assert model._get_ls_params(stop=["x"], num_predict=5) == {
        "ls_provider": "cyllama",
        "ls_model_name": "tiny-chat",
        "ls_model_type": "llm",
        "ls_temperature": 0,
        "ls_max_tokens": 5,
        "ls_stop": ["x"],
    }
    recorder = Recorder()
    params.invoke(PROMPT, {"callbacks": [recorder]})
    assert recorder.params[0]["num_predict"] == 5
    assert recorder.params[0]["_type"] == "cyllama-llm"
    list(model.stream(PROMPT, {"callbacks": [recorder], "configurable": {"session_id": "ada"}}))
    assert json.dumps(recorder.params)


def test_a_cache_keeps_what_depends_on_other_options_apart(llm: LLM):
    model = CyllamaLLM(llm=llm, max_tokens=4, temperature=0, cache=InMemoryCache())
    first = model.invoke(PROMPT)
    evaluated = llm.stats.prompt_tokens_evaluated
    assert model.invoke(PROMPT) == first
    assert llm.stats.prompt_tokens_evaluated == evaluated
    longer = model.invoke(PROMPT, max_tokens=8)
    assert longer.startswith(first)
    assert longer != first
    assert asyncio.run(model.ainvoke(PROMPT)) == first
    assert asyncio.run(model.ainvoke(PROMPT, max_tokens=8)) == longer


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
def test_it_can_be_saved_and_loaded():
    saved = dumps(CyllamaLLM(temperature=0, num_predict=3, stop=["."]))
    assert json.loads(saved)["id"] == ["langchain_cyllama", "llms", "CyllamaLLM"]
    loaded = loads(saved, allowed_objects="all", valid_namespaces=["langchain_cyllama"])
    assert repr(loaded) == "CyllamaLLM(temperature=0.0, stop=['.'], num_predict=3)"


# -------------------- ending early


@pytest.mark.usefixtures("lockstep")
def test_closing_a_stream_ends_the_generation(model: CyllamaLLM, llm: LLM):
    stream: Any = model.stream(PROMPT, max_tokens=-1, options={"ignore_eos": True})
    next(stream)
    assert llm.stats.running == 1
    stream.close()
    assert llm.stats.running == 0


@pytest.mark.usefixtures("lockstep")
def test_closing_a_stream_of_an_event_loop_ends_the_generation(model: CyllamaLLM, llm: LLM):
    async def read_one() -> None:
        stream: Any = model.astream(PROMPT, max_tokens=-1, session_id="ada", options={"ignore_eos": True})
        await anext(stream)
        assert llm.stats.running == 1
        await stream.aclose()

    asyncio.run(read_one())
    settled(llm)
    assert llm.stats.running == 0


@pytest.mark.usefixtures("lockstep")
def test_cancelling_a_task_ends_its_generations(model: CyllamaLLM, llm: LLM):
    async def cancel() -> None:
        recorder = AsyncRecorder()
        streaming = model.model_copy(update={"streaming": True})
        config: Any = {"callbacks": [recorder]}
        endless = {"max_tokens": -1, "options": {"ignore_eos": True}}
        task = asyncio.create_task(streaming.ainvoke(PROMPT, config, **endless))
        while not recorder.tokens:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    settled(llm)
    assert llm.stats.running == 0


def test_an_empty_prompt_is_refused(model: CyllamaLLM):
    recorder = Recorder()
    with pytest.raises(PromptError, match="empty"):
        model.invoke("", {"callbacks": [recorder]})
    assert isinstance(recorder.errors[0], PromptError)


def test_an_object_has_one_model(model: CyllamaLLM):
    with pytest.warns(UnusedArgumentWarning, match="an object has one model"):
        model.invoke(PROMPT, model="another")


# -------------------- sessions


def cached(model: CyllamaLLM, prompt: str, **kwargs: Any) -> int:
    """Return how many tokens of a prompt did not have to be evaluated."""
    result = model.generate([prompt], **kwargs)
    return (result.generations[0][0].generation_info or {})["token_usage"]["prompt_tokens_details"]["cached_tokens"]


def test_the_next_turn_of_a_session_evaluates_only_what_is_new(model: CyllamaLLM, llm: LLM):
    text = f"Ada: {PROMPT}\nBob:"
    config: Any = {"configurable": {"session_id": "ada"}}
    text += model.invoke(text, config) + "\nAda: Go on.\nBob:"
    before = llm.stats.prompt_tokens_evaluated
    model.invoke(text, config)
    assert llm.stats.prompt_tokens_evaluated - before < 20
    assert llm.sessions == ["ada"]


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "astream", "batch", "abatch", "events"])
def test_every_way_of_calling_finds_the_session(way: str, model: CyllamaLLM, llm: LLM):
    config: Any = {"configurable": {"thread_id": "ada"}}

    async def read(items: Any) -> list[Any]:
        return [item async for item in items]

    calls = {
        "invoke": lambda: model.invoke(PROMPT, config),
        "ainvoke": lambda: asyncio.run(model.ainvoke(PROMPT, config)),
        "stream": lambda: list(model.stream(PROMPT, config)),
        "astream": lambda: asyncio.run(read(model.astream(PROMPT, config))),
        "batch": lambda: model.batch([PROMPT], config),
        "abatch": lambda: asyncio.run(model.abatch([PROMPT], [config])),
        "events": lambda: asyncio.run(read(model.astream_events(PROMPT, config, version="v2"))),
    }
    calls[way]()
    assert llm.sessions == ["ada"]
    assert cached(model, PROMPT, session_id="ada") > 0


def test_a_batch_has_a_session_for_each_text(model: CyllamaLLM, llm: LLM):
    configs: Any = [{"configurable": {"session_id": name}} for name in ("ada", "bob", "eve")]
    prompts: list[Any] = [f"{PROMPT} there was", "The capital of France is", f"{PROMPT} there was"]
    model.batch(prompts, configs)
    assert set(llm.sessions) == {"ada", "bob", "eve"}
    assert cached(model, prompts[1], session_id="bob") > 0
    asyncio.run(model.abatch(prompts, configs))
    assert set(llm.sessions) == {"ada", "bob", "eve"}


def test_texts_from_a_cache_leave_the_sessions_of_the_others(llm: LLM):
    model = CyllamaLLM(llm=llm, max_tokens=2, temperature=0, cache=InMemoryCache())
    model.invoke("known")
    configs: Any = [{"configurable": {"session_id": name}} for name in ("ada", "bob")]
    model.batch(["known", "unknown"], configs)
    assert llm.sessions == ["bob"]


def test_calls_without_a_session_leave_nothing(model: CyllamaLLM, llm: LLM):
    model.invoke(PROMPT)
    model.batch([PROMPT, PROMPT])
    assert llm.sessions == []
    assert cached(model, PROMPT) == 0


def test_a_session_of_the_object_itself(llm: LLM):
    model = CyllamaLLM(llm=llm, max_tokens=2, session_id="ada")
    model.invoke(PROMPT)
    assert llm.sessions == ["ada"]
    model.reset_session("ada")
    assert llm.sessions == []


def test_one_conversation_at_a_time_where_memory_is_short(llm: LLM):
    model = CyllamaLLM(llm=llm, max_tokens=2, sessions="exclusive")
    model.invoke(PROMPT, session_id="ada")
    model.invoke(PROMPT, session_id="ada")
    assert llm.sessions == ["ada"]
    model.batch([PROMPT, "Hello"], [{"configurable": {"session_id": name}} for name in ("bob", "eve")])
    assert llm.sessions == ["eve"]


# -------------------- within chains


def test_it_is_a_part_of_chains(model: CyllamaLLM, llm: LLM):
    chain = PromptTemplate.from_template("Once upon {when}") | model | StrOutputParser()
    assert chain.invoke({"when": "a time"}) == model.invoke(PROMPT)
    chain.invoke({"when": "a time"}, {"configurable": {"session_id": "ada"}})
    assert llm.sessions == ["ada"]
