"""What programs for llama-cpp-python do, to run with its `Llama` and with that of `cyllama.compat`, and compared.

``python tests/support/llama_programs.py llama_cpp MODEL`` prints what is compared, as JSON. For llama-cpp-python 0.3.36
and tiny-chat, that is ``tests/compat/llama_cpp_python.json``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, SupportsFloat

GREEDY: dict[str, Any] = {"temperature": 0}
PROMPT = "Once upon a time"
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER = [{"role": "user", "content": "What is the weather in Paris?"}]
SCHEMA = {"type": "object", "properties": {"age": {"type": "integer", "maximum": 150}}, "required": ["age"]}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Get the weather.",
            "parameters": {
                "type": "object",
                "properties": {"location": {"type": "string", "maxLength": 20}},
                "required": ["location"],
            },
        },
    }
]
BY_NAME = {"type": "function", "function": {"name": "get_weather"}}
TEXT = "Ada und Bäume: 你好 🙂"
LOADING: dict[str, Any] = {"n_ctx": 512, "n_threads": 1, "logits_all": True, "verbose": False}


def _state(llama: Any) -> Any:
    """Save the state after a prompt, go on otherwise, and return to it."""
    llama(PROMPT, max_tokens=4, **GREEDY)
    state = llama.save_state()
    llama("The fox", max_tokens=4, **GREEDY)
    llama.load_state(state)
    return [state.n_tokens, len(state.llama_state) == state.llama_state_size, llama(PROMPT, max_tokens=4, **GREEDY)]


def _schema_grammar(llama: Any) -> Any:
    return import_module(type(llama).__module__.rpartition(".")[0]).LlamaGrammar.from_json_schema(
        json.dumps(SCHEMA), verbose=False
    )


def _gbnf(llama: Any) -> Any:
    return import_module(type(llama).__module__.rpartition(".")[0]).LlamaGrammar.from_string(
        'root ::= "yes" | "no"', verbose=False
    )


#: Each takes a `Llama`, and returns what such a call returns; a stream as a list.
PROGRAMS: dict[str, Callable[[Any], Any]] = {
    "completion": lambda llama: llama(PROMPT, max_tokens=8, **GREEDY),
    "completion with echo": lambda llama: llama.create_completion(PROMPT, max_tokens=4, echo=True, **GREEDY),
    "completion with stop": lambda llama: llama(PROMPT, max_tokens=32, stop=[" the", "."], **GREEDY),
    "completion of tokens": lambda llama: llama(llama.tokenize(PROMPT.encode()), max_tokens=4, **GREEDY),
    "completion with logprobs": lambda llama: llama(PROMPT, max_tokens=4, logprobs=2, **GREEDY),
    "completion with a seed": lambda llama: llama(PROMPT, max_tokens=4, seed=7, temperature=1.0),
    "completion with a bias": lambda llama: llama(PROMPT, max_tokens=4, logit_bias={"5": -100.0}, **GREEDY),
    "completion under a grammar": lambda llama: llama("Is it? ", grammar=_gbnf(llama), max_tokens=8, **GREEDY),
    "completion stream": lambda llama: list(llama(PROMPT, max_tokens=8, stream=True, **GREEDY)),
    "completion stream with logprobs": lambda llama: list(
        llama(PROMPT, max_tokens=4, logprobs=2, stream=True, **GREEDY)
    ),
    "chat": lambda llama: llama.create_chat_completion(QUESTION, max_tokens=16, **GREEDY),
    "chat cut": lambda llama: llama.create_chat_completion(messages=QUESTION, max_tokens=3, **GREEDY),
    "chat with a stop text": lambda llama: llama.create_chat_completion(
        QUESTION, stop="capital", max_tokens=16, **GREEDY
    ),
    "chat with a plain format": lambda llama: llama.create_chat_completion(
        QUESTION, response_format={"type": "text"}, max_tokens=3, **GREEDY
    ),
    "chat with logprobs": lambda llama: llama.create_chat_completion(
        QUESTION, logprobs=True, top_logprobs=2, max_tokens=4, **GREEDY
    ),
    "chat stream": lambda llama: list(llama.create_chat_completion(QUESTION, max_tokens=16, stream=True, **GREEDY)),
    "chat stream with logprobs": lambda llama: list(
        llama.create_chat_completion(QUESTION, logprobs=True, top_logprobs=2, max_tokens=4, stream=True, **GREEDY)
    ),
    "chat with a schema": lambda llama: llama.create_chat_completion(
        QUESTION, response_format={"type": "json_object", "schema": SCHEMA}, max_tokens=32, **GREEDY
    ),
    "chat with any JSON": lambda llama: llama.create_chat_completion(
        QUESTION, response_format={"type": "json_object"}, max_tokens=8, **GREEDY
    ),
    "chat under a grammar": lambda llama: llama.create_chat_completion(
        QUESTION, grammar=_schema_grammar(llama), max_tokens=32, **GREEDY
    ),
    "chat with tools": lambda llama: llama.create_chat_completion(
        WEATHER, tools=TOOLS, tool_choice=BY_NAME, max_tokens=48, **GREEDY
    ),
    "chat with tools, none chosen": lambda llama: llama.create_chat_completion(
        QUESTION, tools=TOOLS, tool_choice="none", max_tokens=4, **GREEDY
    ),
    "chat stream with tools": lambda llama: list(
        llama.create_chat_completion(WEATHER, tools=TOOLS, tool_choice=BY_NAME, max_tokens=48, stream=True, **GREEDY)
    ),
    "chat with functions": lambda llama: llama.create_chat_completion(
        WEATHER,
        functions=[tool["function"] for tool in TOOLS],
        function_call={"name": "get_weather"},
        max_tokens=48,
        **GREEDY,
    ),
    "tokens": lambda llama: llama.tokenize(TEXT.encode()),
    "tokens of a marker": lambda llama: llama.tokenize(b"<|im_start|>user", add_bos=False, special=True),
    "text of tokens": lambda llama: llama.detokenize(llama.tokenize(TEXT.encode(), add_bos=False)),
    "text of a marker": lambda llama: llama.detokenize(llama.tokenize(b"<|im_start|>user", special=True), special=True),
    "numbers": lambda llama: [llama.n_ctx(), llama.n_embd(), llama.n_vocab()],
    "special tokens": lambda llama: [llama.token_bos(), llama.token_eos(), llama.token_nl()],
    "metadata": lambda llama: llama.metadata["general.architecture"],
    "state": _state,
}

#: The same for embeddings, with a `Llama` that was made for them.
EMBEDDING_PROGRAMS: dict[str, Callable[[Any], Any]] = {
    "embedding": lambda llama: llama.create_embedding("A fox sleeps."),
    "embeddings": lambda llama: llama.create_embedding(["A fox sleeps.", "An owl"], model="mine"),
    "vector": lambda llama: llama.embed("A fox sleeps."),
    "vectors": lambda llama: llama.embed(["A fox sleeps.", "An owl"], normalize=True),
    "vectors and tokens": lambda llama: list(llama.embed(["A fox sleeps."], return_count=True)),
}


def results(module: Any, path: str | Path) -> dict[str, Any]:
    """Return what all programs return, by their names.

    Args:
        module: `llama_cpp`, or `cyllama.compat`.
        path: The model.
    """
    found = {}
    for programs, more in ((PROGRAMS, {}), (EMBEDDING_PROGRAMS, {"embedding": True, "pooling_type": 1})):
        llama = module.Llama(model_path=str(path), **LOADING, **more)
        found |= {name: program(llama) for name, program in programs.items()}
        llama.close()
    return found


def shape(value: Any) -> dict[str, str]:
    """Return the types of everything in a result by its place; "absent" is that of a key which some items do not have.

    >>> shape({"choices": [{"text": "Hi"}, {"text": None, "index": 0}]})
    {'.choices[].index': 'absent, int', '.choices[].text': 'NoneType, str'}
    """
    found: dict[str, set[str]] = {}
    if isinstance(value, list) and value and isinstance(value[0], dict) and "choices" in value[0]:  # a stream
        _walk({"first": value[0], "between": value[1:-1], "last": value[-1]}, "", found)
    else:
        _walk(value, "", found)
    return {place: ", ".join(sorted(types)) for place, types in sorted(found.items())}


def _walk(value: Any, place: str, found: dict[str, set[str]]) -> None:
    if isinstance(value, Mapping) and place.endswith("top_logprobs[]") and "token" not in value:
        value = list(value.values())  # by tokens, which are others in every place
    if isinstance(value, Mapping):
        for name, each in value.items():
            _walk(each, f"{place}.{name}", found)
    elif isinstance(value, (list, tuple)):
        for each in value:
            _walk(each, f"{place}[]", found)
        items = [each for each in value if isinstance(each, Mapping)]
        for name in {name for each in items for name in each}:
            if any(name not in each for each in items):
                found.setdefault(f"{place}[].{name}", set()).add("absent")
    else:
        number = isinstance(value, SupportsFloat) and not isinstance(value, (bool, int))  # of numpy, too
        found.setdefault(place, set()).add("float" if number else type(value).__name__)


def exact(value: Any) -> Any:
    """Return what of a result no rounding decides: tokens, numbers, texts of tokens, and how long a prompt is."""
    if isinstance(value, dict):
        return value["usage"]["prompt_tokens"] if "usage" in value else None
    if isinstance(value, list):
        return value if all(isinstance(each, int) for each in value) else None
    return list(value) if isinstance(value, bytes) else value


def compared(module: Any, path: str | Path) -> dict[str, Any]:
    """Return what is compared of all :func:`results`, by the names of the programs."""
    return {name: {"exact": exact(value), "shape": shape(value)} for name, value in results(module, path).items()}


if __name__ == "__main__":
    print(json.dumps(compared(import_module(sys.argv[1]), sys.argv[2]), indent=1))
