"""Completions, as programs for llama-cpp-python ask for them and read them."""

from __future__ import annotations

import gc
import threading
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from cyllama import CompatibilityError, ConfigTypeError, ContextSizeError, GrammarError, TokenLogprob
from cyllama.compat import Llama, LlamaGrammar
from cyllama.compat.logprobs import CompletionTokens
from cyllama.compat.types import CreateCompletionResponse
from cyllama.models import TINY_CHAT

from ..support.harness import held, in_threads, together

GREEDY: Any = {"temperature": 0}
PROMPT = "Once upon a time"
SHAPE = TypeAdapter(CreateCompletionResponse)


def text_of(answer: Any) -> str:
    return answer["choices"][0]["text"]


def test_a_completion_is_a_dict_of_openais_shape(llama: Llama):
    answer = llama(PROMPT, max_tokens=8, **GREEDY)
    assert SHAPE.validate_python(answer) == answer, "nothing else is in it"
    assert answer["id"].startswith("cmpl-")
    assert answer["model"] == str(TINY_CHAT)
    assert answer["choices"] == [
        {"text": llama.llm(PROMPT, max_tokens=8, **GREEDY), "index": 0, "logprobs": None, "finish_reason": "length"}
    ]
    n = len(llama.tokenize(PROMPT.encode()))
    assert answer.get("usage") == {"prompt_tokens": n, "completion_tokens": 8, "total_tokens": n + 8}


def test_a_stream_is_dicts_that_add_up_to_the_same_text(llama: Llama):
    whole = llama(PROMPT, max_tokens=12, logprobs=2, **GREEDY)
    chunks = list(llama(PROMPT, max_tokens=12, logprobs=2, stream=True, **GREEDY))
    for chunk in chunks:
        assert SHAPE.validate_python(chunk) == chunk, "nothing else is in it"
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    assert "".join(map(text_of, chunks)) == text_of(whole)
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["length"]
    assert [chunk.get("usage") for chunk in chunks] == [None] * (len(chunks) - 1) + [whole.get("usage")]
    pieces = [chunk["choices"][0]["logprobs"] for chunk in chunks[:-1]]
    expected = whole["choices"][0]["logprobs"]
    assert expected is not None
    for key in ("tokens", "text_offset"):
        assert [each for piece in pieces if piece for each in piece[key]] == expected[key]


def test_logprobs_say_where_each_token_begins_and_need_no_option(llama: Llama):
    answer = llama(PROMPT, max_tokens=10, logprobs=3, **GREEDY)
    logprobs = answer["choices"][0]["logprobs"]
    assert logprobs is not None
    text, offsets = PROMPT + text_of(answer), [*logprobs["text_offset"], None]
    assert [text[start:end] for start, end in pairwise(offsets)] == logprobs["tokens"]
    for token, value, top in zip(logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True):
        assert top is not None
        assert top[token] == value == max(top.values())
        assert len(top) == 3


@given(st.text(min_size=1, max_size=20), st.data())
def test_tokens_that_split_characters_begin_where_their_first_character_does(text: str, data: st.DataObject):
    encoded = text.encode("utf-8", "ignore")
    text = encoded.decode()
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(encoded) - 1)), max_size=8)))
    ends = [*cuts, len(encoded)]
    tokens = [
        TokenLogprob("?", i, 0.0, encoded[start:end])
        for i, (start, end) in enumerate(zip([0, *cuts], ends, strict=True))
        if start < end
    ]
    found = CompletionTokens(7).of(text, [*tokens, TokenLogprob("", 9, 0.0, b"")])
    assert found is not None
    assert len(found["tokens"]) == len(tokens), "the token that ended the generation is left out"
    begins = [
        len(encoded[: sum(len(token.bytes) for token in tokens[:i])].decode("utf-8", "ignore"))
        for i in range(len(tokens))
    ]
    assert found["text_offset"] == [7 + begin for begin in begins]


@pytest.mark.parametrize("stop", [" named", ["zzz", " named"], (" named",)])
def test_a_text_ends_before_its_stop_string_also_in_streams(llama: Llama, stop: Any):
    prompt = "<|im_start|>user\nTell me a story about a fox.<|im_end|>\n<|im_start|>assistant\n"
    answer = llama(prompt, max_tokens=64, stop=stop, logprobs=0, **GREEDY)
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert text_of(answer).endswith("fox")
    assert "named" not in text_of(answer)
    logprobs = answer["choices"][0]["logprobs"]
    assert logprobs is not None
    assert "".join(logprobs["tokens"]) == text_of(answer)
    chunks = llama(prompt, max_tokens=64, stop=stop, stream=True, **GREEDY)
    assert "".join(map(text_of, chunks)) == text_of(answer)


@pytest.mark.parametrize("limit", [None, 0, -1])
def test_no_limit_is_the_end_of_the_context(limit: int | None):
    with Llama(str(TINY_CHAT), n_ctx=64, n_threads=1) as small:
        answer = small(PROMPT, max_tokens=limit, ignore_eos=True, **GREEDY)  # type: ignore[call-arg]
        assert answer.get("usage", {}).get("total_tokens") == 64
        with pytest.raises(ContextSizeError, match="64"):
            small("word " * 100)
        with pytest.raises(ValueError, match="64"):  # what llama-cpp-python raises
            small("word " * 100)


def test_echo_puts_the_prompt_before_the_text(llama: Llama):
    plain = text_of(llama(PROMPT, max_tokens=4, **GREEDY))
    assert text_of(llama(PROMPT, max_tokens=4, echo=True, **GREEDY)) == PROMPT + plain
    assert text_of(llama(llama.tokenize(PROMPT.encode()), max_tokens=4, echo=True, **GREEDY)) == PROMPT + plain
    assert "".join(map(text_of, llama(PROMPT, max_tokens=4, echo=True, stream=True, **GREEDY))) == PROMPT + plain
    with pytest.raises(CompatibilityError, match="echo with logprobs"):
        llama(PROMPT, echo=True, logprobs=1)


def test_seeds_of_the_object_and_of_a_call():
    def texts(llama: Llama, **options: Any) -> set[str]:
        return {text_of(llama(PROMPT, max_tokens=12, temperature=1.5, **options)) for _ in range(3)}

    with Llama(str(TINY_CHAT), seed=7, n_threads=1) as llama:
        llama(PROMPT, max_tokens=1)  # as in llama-cpp-python, the next ones keep the prompt, and round alike
        (seventh,) = texts(llama)
        assert texts(llama, seed=7) == {seventh}
        assert texts(llama, seed=8) != {seventh}
        llama.set_seed(8)
        assert texts(llama) == texts(llama, seed=8)
        llama.set_seed(-1)
        assert len(texts(llama)) > 1
    with Llama(str(TINY_CHAT), seed=0xFFFFFFFF) as llama:  # LLAMA_DEFAULT_SEED
        assert len(texts(llama)) > 1


def test_grammars_by_text_file_and_schema(llama: Llama, tmp_path: Any):
    gbnf = 'root ::= "yes" | "no"'
    (tmp_path / "answer.gbnf").write_text(gbnf)
    for grammar in (
        gbnf,
        LlamaGrammar.from_string(gbnf, verbose=False),
        LlamaGrammar.from_file(tmp_path / "answer.gbnf"),
    ):
        assert text_of(llama("Is it?", grammar=grammar)) in ("yes", "no")
    schema = LlamaGrammar.from_json_schema('{"enum": ["red", "green"]}')
    assert text_of(llama("A color:", grammar=schema)) in ('"red"', '"green"')
    with pytest.raises(GrammarError):
        LlamaGrammar.from_string("this is not a grammar")


def test_several_texts_of_one_prompt(llama: Llama):
    answer = llama(PROMPT, n=3, max_tokens=6, temperature=1.0, seed=1)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert text_of(answer) == text_of(llama(PROMPT, max_tokens=6, temperature=1.0, seed=1))
    assert answer.get("usage", {}).get("completion_tokens") == 18
    with pytest.raises(CompatibilityError, match="n=2 cannot be used with stream"):
        llama(PROMPT, n=2, stream=True)


def test_options_by_other_names_have_their_meaning(llama: Llama):
    forbidden = llama.llm(PROMPT, max_tokens=1, logprobs=0, **GREEDY).logprobs
    assert forbidden is not None
    token = forbidden[0].token_id
    assert text_of(llama(PROMPT, max_tokens=1, logit_bias={str(token): -100.0}, **GREEDY)) != forbidden[0].token
    assert text_of(llama(PROMPT, max_tokens=4, mirostat_mode=2, seed=1)) == llama.llm(
        PROMPT, max_tokens=4, mirostat=2, seed=1, temperature=0.8
    )
    assert text_of(llama(PROMPT, max_tokens=4, temperature=-1, seed=1)) == llama.llm(
        PROMPT, max_tokens=4, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, seed=1
    )
    assert llama(PROMPT, max_tokens=1, model="tiny")["model"] == "tiny"
    assert llama(PROMPT, max_tokens=1, tfs_z=1.0, logits_processor=None, stopping_criteria=[])


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"logits_processor": [print]}, "logit_bias"),
        ({"stopping_criteria": [print]}, "close"),
        ({"suffix": "the end"}, "infilling"),
        ({"tfs_z": 0.5}, "min_p"),
    ],
)
def test_what_cannot_be_followed_says_what_to_use(llama: Llama, options: Any, hint: str):
    with pytest.raises(CompatibilityError, match=hint):
        llama(PROMPT, **options)
    with pytest.raises(NotImplementedError):
        llama(PROMPT, **options)


def test_a_misspelt_option_is_an_error(llama: Llama):
    with pytest.raises(ConfigTypeError, match="did you mean 'temperature'"):
        llama(PROMPT, temprature=0)  # type: ignore[call-arg]


@pytest.mark.usefixtures("lockstep")
def test_a_stream_that_is_left_ends_its_generation():
    with Llama(str(TINY_CHAT), n_threads=1) as llama:
        options: Any = {"max_tokens": -1, "ignore_eos": True, "stream": True}
        for leave in (lambda stream: stream.close(), lambda stream: stream.__exit__(), lambda stream: None):
            stream: Any = llama(PROMPT, **options)
            next(stream)
            leave(stream)
            del stream
            never_read: Any = llama(PROMPT, **options)
            del never_read
        while llama.llm.stats.running:
            threading.Event().wait(0.001)
        assert llama.llm.stats.waiting == 0
        closed: Any = llama(PROMPT, **options)
        closed.close()
        assert list(closed) == []
        cancelled: Any = llama(PROMPT, **options)
        cancelled.cancel()
        assert list(cancelled)[-1]["choices"][0]["finish_reason"] == "cancelled"


def test_dropping_a_stream_does_not_wait_for_its_generation():
    """It may happen on any thread: garbage is collected on the engine's thread, too."""
    with Llama(str(TINY_CHAT), n_threads=1) as llama:
        with held(llama.llm):  # a generation cannot end meanwhile
            stream: Any = llama(PROMPT, stream=True)
            stream.itself = stream
            del stream
            gc.collect()
        assert llama(PROMPT, max_tokens=1)


def test_threads_share_one_object(llama: Llama):
    prompts = [f"The {animal}" for animal in ("fox", "owl", "bear", "cat")]
    before = llama.llm.stats
    options: Any = {"max_tokens": 32, "ignore_eos": True}
    calls = [lambda prompt=prompt: llama(prompt, **options) for prompt in prompts]
    answers = together(llama.llm, 4, lambda: in_threads(calls))
    assert [answer.get("usage", {}).get("completion_tokens") for answer in answers] == [32] * 4
    after = llama.llm.stats
    assert after.steps - before.steps < 4 * 32, "they were decoded together"
