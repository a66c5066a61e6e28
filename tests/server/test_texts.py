"""The other routes of OpenAI's API, of llama-server and of an operator."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import openai
import pytest

from cyllama import LLM
from cyllama.models import TINY_CHAT

from ..support.random_models import write_random_bert
from ..support.server import ServerProcess


def test_a_text_goes_on(client: openai.OpenAI):
    def go_on(**options: Any) -> Any:
        return client.completions.create(model="tiny-chat", prompt="Once upon a time", temperature=0, **options)

    whole = go_on(max_tokens=12, logprobs=1)
    choice = whole.choices[0]
    assert (choice.finish_reason, whole.usage.completion_tokens) == ("length", 12)
    assert "".join(choice.logprobs.tokens) == choice.text
    assert go_on(max_tokens=12, echo=True).choices[0].text == "Once upon a time" + choice.text
    chunks = list(go_on(max_tokens=12, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == choice.text
    assert chunks[-1].usage.completion_tokens == 12
    assert go_on().usage.completion_tokens == 16, "the default of the API"


def test_several_prompts_have_an_answer_each(client: openai.OpenAI):
    prompts = ["The sky is", "A fox is"]
    together = client.completions.create(model="tiny-chat", prompt=prompts, temperature=0, max_tokens=8)
    alone = [client.completions.create(model="tiny-chat", prompt=p, temperature=0, max_tokens=8) for p in prompts]
    assert [choice.index for choice in together.choices] == [0, 1]
    assert together.usage.prompt_tokens == sum(each.usage.prompt_tokens for each in alone)  # type: ignore[union-attr]


def test_embeddings_are_the_same_in_both_encodings(client: openai.OpenAI, server: ServerProcess):
    texts = ["A fox sleeps.", "The sky is blue."]
    decoded = client.embeddings.create(model="tiny-chat", input=texts)  # the client asks for base64
    plain = server.http.post("/v1/embeddings", json={"input": texts}).json()
    for one, other in zip(decoded.data, plain["data"], strict=True):
        assert one.embedding == pytest.approx(other["embedding"], abs=1e-6)
    assert decoded.usage.prompt_tokens > 4
    short = client.embeddings.create(model="tiny-chat", input=texts[0], dimensions=16).data[0].embedding
    assert len(short) == 16
    assert sum(value * value for value in short) == pytest.approx(1, abs=1e-5)


def test_tokens_of_a_text_and_back(server: ServerProcess):
    tokens = server.http.post("/tokenize", json={"content": "Hello world"}).json()["tokens"]
    assert server.http.post("/detokenize", json={"tokens": tokens}).json() == {"content": "Hello world"}
    pieces = server.http.post("/tokenize", json={"content": "Hello", "with_pieces": True}).json()["tokens"]
    assert "".join(piece["piece"] for piece in pieces) == "Hello"


def test_an_operator_sees_what_goes_on(server: ServerProcess, client: openai.OpenAI):
    before = server.metric("cyllama_completion_tokens_total")
    client.completions.create(model="tiny-chat", prompt="Once", max_tokens=5, extra_body={"ignore_eos": True})
    assert server.metric("cyllama_completion_tokens_total") == before + 5
    assert server.metric("cyllama_kv_cells") > 0
    assert server.metric("cyllama_first_token_seconds_count") > 0
    assert server.http.get("/health").json() == {"status": "ok"}
    assert '" 200"' not in server.log


def test_curl_gets_an_answer_too(server: ServerProcess):
    body = '{"messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0}'
    command = ["curl", "-sS", "--fail-with-body", f"{server.v1}/chat/completions", "-d", body]
    assert (
        "The capital of France is Paris." in subprocess.run(command, capture_output=True, text=True, check=True).stdout
    )


# -------------------- several models


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    ranker = tmp_path_factory.mktemp("models") / "ranker.gguf"
    write_random_bert(ranker, pooling=gguf.PoolingType.RANK)
    with LLM() as llm:
        llm("Hi.", max_tokens=2)
        stats = llm.stats
    contexts = sum((*stats.kv_cache_bytes.values(), *stats.compute_bytes.values()))
    budget = str(-(-(TINY_CHAT.stat().st_size + contexts + ranker.stat().st_size) // 2**20) + 1)
    models = [f"small={TINY_CHAT}", f"same={TINY_CHAT}", f"ranker={ranker}"]
    arguments = [part for model in models for part in ("--model", model)]
    options = ("--option", "max_tokens=4", "--option", "same.temperature=0")
    with ServerProcess(*arguments, *options, "--memory-budget-mb", budget, "--any-model") as server:
        yield server


def loaded(server: ServerProcess) -> set[str]:
    return {model["id"] for model in server.http.get("/v1/models").json()["data"] if model["loaded"]}


def wait_until_loaded(server: ServerProcess, names: set[str]) -> None:
    """Wait until no other models are loaded: those that have grown drive out others after their answer."""
    deadline = time.monotonic() + 60  # something hangs
    while loaded(server) != names:
        assert time.monotonic() < deadline, loaded(server)


def test_models_are_loaded_on_demand_and_the_least_recently_used_leaves(several: ServerProcess):
    assert loaded(several) == {"small"}
    rank = {"model": "ranker", "query": "What do foxes eat?", "documents": ["Foxes eat mice.", "The sky is blue."]}
    results = several.http.post("/v1/rerank", json=rank | {"return_documents": True}).json()["results"]
    assert {result["index"] for result in results} == {0, 1}
    assert results[0]["relevance_score"] >= results[1]["relevance_score"]
    assert len(several.http.post("/v1/rerank", json=rank | {"top_n": 1}).json()["results"]) == 1
    assert loaded(several) == {"small", "ranker"}
    chat = {"model": "same", "messages": [{"role": "user", "content": "Hi."}], "max_tokens": 2}
    assert several.http.post("/v1/chat/completions", json=chat).json()["model"] == "same"
    wait_until_loaded(several, {"same", "ranker"})
    assert several.http.post("/v1/chat/completions", json=chat | {"model": "gpt-9"}).json()["model"] == "gpt-9"
    wait_until_loaded(several, {"small"})  # both others are older, and there is no room for one of them
    assert several.http.get("/v1/models/ranker").json()["id"] == "ranker"


def test_a_model_that_cannot_be_loaded_is_not_the_end(tmp_path: Path):
    broken = tmp_path / "broken.gguf"
    broken.write_text("This is not a model.")
    with ServerProcess("--model", f"good={TINY_CHAT}", "--model", f"broken={broken}") as server:
        chat = {"messages": [{"role": "user", "content": "Hi."}], "max_tokens": 1}
        refused = server.http.post("/v1/chat/completions", json=chat | {"model": "broken"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_not_available")
        assert server.http.post("/v1/chat/completions", json=chat | {"model": "good"}).status_code == 200
