"""What the tests of many callers at once have in common: prompts, threads, and a reference to compare answers with."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import numpy as np

from cyllama import LLM
from cyllama.engine import Engine, Request
from cyllama.llama.llama_cpp import (
    LlamaAdapterLora,
    LlamaBatch,
    LlamaContext,
    LlamaContextParams,
    LlamaFlashAttnType,
    LlamaModel,
)
from cyllama.stream import LoopOutlet

EXACT: dict[str, Any] = {"temperature": 0, "n_threads": 1, "flash_attn": "disabled"}
NEAR_TIE, NEAR_TIE_WITH_FLASH_ATTENTION = 0.25, 1.0
"""Logits that two tokens may differ by for rounding to decide between them.

Where another history was used, it is several. Flash attention adds up in 16 bits, in the order of the cells, which
depends on who else is there: that has moved the difference of two tokens of the embedded model by half a logit. Without
it, the difference moves by 0.1 at most, and hardly ever.
"""

T = TypeVar("T")


def turn(text: str) -> str:
    """Return a user's turn as the embedded model knows it, up to where the answer begins."""
    return f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


def story(of: str = "a fox") -> str:
    """Return a prompt that is answered with 60 to 200 tokens."""
    return turn(f"Tell me a story about {of}.")


# fmt: off
ANIMALS = [
    "a fox", "an owl", "a bear", "a cat", "a dog", "a goat", "a hare", "a lion", "a mole", "a newt", "a pig",
    "a rat", "a seal", "a swan", "a toad", "a wolf", "a yak", "a bat", "a bee", "a cow", "a crab", "a crow",
    "a deer", "a duck", "a frog", "a goose", "a horse", "a koala", "a lamb", "a lynx", "a moose", "a mouse",
]
# fmt: on
ENDLESS: dict[str, Any] = {"max_tokens": None, "ignore_eos": True, "n_ctx": 20_000}
"""An answer takes half a minute or more on any machine: a test leaves it before its end, however late its thread is."""


def n_unread(outlet: Any) -> int:
    """Return how many chunks, of those that a generation has put into its outlet, are not read yet."""
    if isinstance(outlet, LoopOutlet):
        return len(outlet._mailbox._items) + outlet.queue.qsize()
    return outlet.qsize()


def in_threads(functions: Iterable[Callable[[], T]]) -> list[T]:
    """Call every function in a thread of its own, all at once; return what they return, or raise what one raised."""
    calls = list(functions)
    results: dict[int, T] = {}
    errors: list[BaseException] = []
    start = threading.Barrier(len(calls))

    def run(i: int, call: Callable[[], T]) -> None:
        try:
            start.wait()
            results[i] = call()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [results[i] for i in range(len(calls))]


def engine_of(llm: LLM) -> Engine:
    """Return the engine, started if need be."""
    with llm._runtime.lock:
        return llm._runtime.running_engine()


@contextmanager
def held(llm: LLM) -> Iterator[None]:
    """Let the engine wait between two steps: what arrives meanwhile is taken together."""
    with engine_of(llm).paused():
        yield


def settled(llm: LLM) -> None:
    """Wait until the engine has done all that it was asked to before, and ended all that was cancelled before."""
    with held(llm):
        last_in_line = llm([0], stream=True, max_tokens=0)
        last_in_line.cancel()
    last_in_line.read()


def together(llm: LLM, n: int, call: Callable[[], T]) -> T:
    """Call a function that asks for ``n`` generations; the first begins after the last was asked for."""
    with ThreadPoolExecutor(1) as pool:
        with held(llm):
            result = pool.submit(call)
            while llm.stats.waiting < n and not result.done():
                threading.Event().wait(0.001)
        return result.result()


class Step(NamedTuple):
    """What one batch held.

    Attributes:
        prompts: Tokens of prompts, by request.
        generated: Requests that had their last token evaluated.
        cells: Cells in use afterwards.
        chunk: Most tokens of a long prompt beside requests that generate.
    """

    prompts: dict[Request, int]
    generated: list[Request]
    cells: int
    chunk: int

    @property
    def requests(self) -> set[Request]:
        """All that took part."""
        return {*self.prompts, *self.generated}


class Reference:
    """What a model answers in a context that has seen nothing but one conversation, without the engine.

    Attributes:
        compared: How many answers were compared with it.
        near_ties: How far apart the two tokens were where an answer went another way, for each that did.
    """

    def __init__(
        self,
        model: LlamaModel | None = None,
        adapters: Sequence[tuple[LlamaAdapterLora, float]] = (),
        *,
        flash_attn: bool = False,
    ) -> None:
        """Make one of the embedded model, or another one, with adapters and their scales."""
        self._model = model = model or LLM(n_threads=1).model
        self._adapters = adapters
        self._flash_attn = LlamaFlashAttnType.ENABLED if flash_attn else LlamaFlashAttnType.DISABLED
        self._near_tie = NEAR_TIE_WITH_FLASH_ATTENTION if flash_attn else NEAR_TIE
        self._eog = list(model.vocab.eog_tokens())
        self._lock = threading.Lock()
        self._context: LlamaContext | None = None
        self._evaluated: list[int] = []
        self.compared = 0
        self.near_ties: list[float] = []

    def check(self, request: Request, hint: str = "") -> bool:
        """Raise ``AssertionError`` where an answer is another one, and not because two tokens were nearly tied.

        Checking the turns of a conversation one after the other lets the reference go on from turn to turn as well.

        Args:
            request: A greedy generation that has ended, or was cancelled: then it may be the beginning of an answer.
            hint: What to say besides.

        Returns:
            Whether the answer is the same.
        """
        prompt, answer = request.prompt, request.tokens
        with self._lock:
            expected = self._evaluate(prompt, len(answer), request.config.ignore_eos)[0]
            self.compared += 1
            if answer == expected:
                return True
            n = next((i for i, (a, b) in enumerate(zip(answer, expected, strict=False)) if a != b), None)
            assert n is not None, f"{self.text(answer)!r} ends otherwise than {self.text(expected)!r}. {hint}"
            logits = self._evaluate([*prompt, *expected[:n]], 0, request.config.ignore_eos)[1]
            gap = float(logits.max() - logits[answer[n]])
            assert gap < self._near_tie, (
                f"{self.text(answer)!r} instead of {self.text(expected)!r} after {self.text(prompt)!r}: token {n} is "
                f"{gap:.3f} logits below the best. {hint}"
            )
            self.near_ties.append(gap)
            return False

    def answer(self, prompt: Sequence[int], n: int) -> list[int]:
        """Return the most likely answer, of at most ``n`` tokens."""
        with self._lock:
            return self._evaluate(prompt, n, ignore_eos=False)[0]

    def text(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens, control tokens included."""
        vocab = self._model.vocab
        return vocab.detokenize(list(tokens), remove_special=False, unparse_special=True).decode(errors="replace")

    def summary(self) -> str:
        """Return how many answers were compared, and how many went another way."""
        largest = max(self.near_ties, default=0.0)
        return f"{len(self.near_ties)} of {self.compared} answers differ, by a near tie of at most {largest:.3f} logits"

    def _evaluate(self, prompt: Sequence[int], n: int, ignore_eos: bool) -> tuple[list[int], np.ndarray]:
        """Return the most likely tokens, and the last logits."""
        context = self._context_for(prompt, n)
        tokens: list[int] = []
        rest = list(prompt[len(self._evaluated) :])
        batch = LlamaBatch(len(rest))
        while True:
            batch.clear()
            batch.add_sequence(rest, len(self._evaluated))
            assert context.decode(batch) == 0
            self._evaluated += rest
            logits = np.array(context.get_logits_ith(-1))
            if ignore_eos:
                logits[self._eog] = -np.inf
            if len(tokens) < n:
                tokens.append(int(logits.argmax()))
            if len(tokens) == n or tokens[-1] in self._eog:
                return tokens, logits
            rest = tokens[-1:]

    def _context_for(self, prompt: Sequence[int], n: int) -> LlamaContext:
        """Return a new context, or the last one if it has seen the beginning of this conversation and nothing else."""
        n_seen = len(self._evaluated)
        context, goes_on = self._context, list(prompt[:n_seen]) == self._evaluated and n_seen < len(prompt)
        if context is not None and goes_on and len(prompt) + n <= context.n_ctx:
            return context
        if context is not None:
            context.close()
        params = LlamaContextParams()
        params.n_ctx = params.n_batch = max(2048, len(prompt) + n)
        params.n_seq_max, params.kv_unified, params.no_perf = 1, True, True
        params.n_threads = params.n_threads_batch = 1
        params.flash_attn_type = self._flash_attn
        self._context, self._evaluated = LlamaContext(self._model, params), []
        self._context.set_adapters_lora(self._adapters)
        return self._context
