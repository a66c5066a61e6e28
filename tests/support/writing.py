"""Text sampled under a grammar, by the embedded model and by one with random weights."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cyllama.chat import ChatPlan, ChatTemplates, plan_samplers, preserved_token_ids, spec_samplers
from cyllama.grammar import GrammarSpec
from cyllama.llama.llama_cpp import LlamaBatch, LlamaContext, LlamaContextParams, LlamaModel, LlamaSampler
from cyllama.models import TINY_CHAT

from .matching import Matcher
from .random_models import write_random_model

Plan = ChatPlan | GrammarSpec


@pytest.fixture(scope="session")
def model() -> Iterator[LlamaModel]:
    with LlamaModel(TINY_CHAT) as model:
        yield model


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaModel]:
    with LlamaModel(write_random_model(tmp_path_factory.mktemp("models") / "random.gguf", "llama")) as model:
        yield model


@pytest.fixture
def templates(model: LlamaModel) -> ChatTemplates:
    return ChatTemplates(model)


class Writer:
    """Lets a model write what a plan allows."""

    def __init__(self, model: LlamaModel) -> None:
        params = LlamaContextParams()
        params.n_ctx, params.n_threads, params.n_threads_batch = 2048, 1, 1
        self._context = LlamaContext(model, params)
        self._batch = LlamaBatch(2048)
        self._vocab = model.vocab
        # A model with random weights would not come to an end by itself.
        closing = [token for token in range(self._vocab.n_tokens) if self._piece(token)[:1] in (b'"', b"}", b"]")]
        self._closing = [(token, 4.0) for token in [*closing, *self._vocab.eog_tokens()]]

    def _piece(self, token: int, special: bool = False) -> bytes:
        return self._vocab.token_to_piece(token, special=special)

    def __call__(
        self, plan: Plan, *, max_tokens: int = 300, seed: int | None = None, begin: str = ""
    ) -> tuple[str, bool]:
        """Return the text, and whether it came to an end; without a seed the most likely one.

        Args:
            plan: What the text has to fit.
            max_tokens: Most tokens of it.
            seed: Of the choice.
            begin: What the answer begins with, which is not returned.
        """
        kept = preserved_token_ids(self._vocab, plan) if isinstance(plan, ChatPlan) else frozenset()
        prompt = plan.prompt if isinstance(plan, ChatPlan) else "Hello"
        tokens = self._vocab.tokenize(prompt, add_special=True, parse_special=True)
        chain = plan_samplers(self._vocab, plan) if isinstance(plan, ChatPlan) else spec_samplers(self._vocab, plan)
        begun = self._vocab.tokenize(begin, add_special=False, parse_special=True)
        for sampler in chain:
            sampler.accept(begun)
        tokens += begun
        if seed is None:
            chain.append(LlamaSampler.greedy())
        else:
            chain += [LlamaSampler.logit_bias(self._vocab.n_tokens, self._closing), LlamaSampler.dist(seed)]
        sampler = LlamaSampler.chain(chain)
        self._context.kv_cache_clear(clear_data=False)
        self._decode(tokens, 0)
        data = b""
        for n in range(max_tokens):
            token = sampler.sample(self._context)
            if self._vocab.is_eog(token):
                return data.decode(errors="replace"), True
            data += self._piece(token, token in kept)
            self._decode([token], len(tokens) + n)
        return data.decode(errors="replace"), False

    def _decode(self, tokens: list[int], pos: int) -> None:
        self._batch.clear()
        self._batch.add_sequence(tokens, pos, 0, True)
        self._context.decode(self._batch)


@pytest.fixture(scope="session")
def write(model: LlamaModel) -> Writer:
    """Let the embedded model write."""
    return Writer(model)


@pytest.fixture(scope="session")
def write_randomly(random_model: LlamaModel) -> Writer:
    """Let the model with random weights write."""
    return Writer(random_model)


@pytest.fixture(scope="session")
def matches(model: LlamaModel) -> Matcher:
    """Tell whether a grammar allows a text."""
    return Matcher(model)
