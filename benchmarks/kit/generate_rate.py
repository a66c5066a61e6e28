#!/usr/bin/env python3
"""Measure one build of cyllama from outside: prints JSON with tokens per second and the cost of a one-token call.

python benchmarks/kit/generate_rate.py model.gguf --tokens 128 --mode stream
"""

from __future__ import annotations

import argparse
import json
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

from cyllama import LLM
from cyllama.llama.llama_cpp import LlamaBatch, LlamaContext, LlamaContextParams, LlamaSampler

PROMPT = [7, 8, 9]


def stream_rate(llm: LLM, n_tokens: int, **options: Any) -> float:
    """Stream a generation; return tokens per second from the first token to the last, as the engine clocked it."""
    with llm(PROMPT, max_tokens=n_tokens, ignore_eos=True, stream=True, **options) as stream:
        for _ in stream:
            pass
    response = stream.response
    assert response is not None
    assert response.usage.completion_tokens == n_tokens
    return (n_tokens - 1) / response.timings.generation


def in_new_thread(function: Callable[[], float]) -> float:
    """Run a function on a thread of its own."""
    results: list[float] = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


def one_token_overhead(llm: LLM, n_calls: int = 20, n_ctx: int = 4096) -> float:
    """Return the seconds that a one-token call in a reused context takes beyond its native step."""
    llm.close()  # its threads would spin beside those of the native context
    native = _native_step_seconds(llm, n_calls, n_ctx)
    llm(PROMPT, max_tokens=1, n_ctx=n_ctx)
    seconds = []
    for _ in range(n_calls):
        start = time.perf_counter()
        llm(PROMPT, max_tokens=1, n_ctx=n_ctx)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds) - native


def _native_step_seconds(llm: LLM, n_calls: int, n_ctx: int) -> float:
    params = _context_params(llm, n_ctx)
    batch, sampler = LlamaBatch(len(PROMPT)), LlamaSampler.greedy()
    batch.add_sequence(PROMPT)
    seconds = []
    with LlamaContext(llm.model, params) as context:
        for _ in range(n_calls + 1):
            start = time.perf_counter()
            context.kv_cache_clear(clear_data=False)
            context.decode_and_sample(batch, [(len(PROMPT) - 1, sampler)])
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def direct_rate(llm: LLM, n_tokens: int) -> float:
    """Decode on a new thread for every request, as bindings do that leave the choice of thread to their callers."""
    llm.close()
    params = _context_params(llm, n_ctx=512)
    batch, sampler = LlamaBatch(1), LlamaSampler.greedy()

    def decode() -> float:
        context.kv_cache_clear(clear_data=False)
        token = PROMPT[0]
        start = time.perf_counter()
        for position in range(n_tokens):
            batch.clear()
            batch.add(token, position, logits=True)
            _, [token], _ = context.decode_and_sample(batch, [(0, sampler)])
        return n_tokens / (time.perf_counter() - start)

    with LlamaContext(llm.model, params) as context:
        return statistics.median(in_new_thread(decode) for _ in range(5))


def _context_params(llm: LLM, n_ctx: int) -> LlamaContextParams:
    params = LlamaContextParams()
    params.n_ctx, params.n_outputs_max = n_ctx, 1
    params.n_threads = params.n_threads_batch = llm.model_config.n_threads or 1
    return params


MODES: dict[str, Callable[[LLM, int], float]] = {
    "stream": stream_rate,
    "thread": lambda llm, n: in_new_thread(lambda: stream_rate(llm, n)),
    "sampled": lambda llm, n: stream_rate(llm, n, temperature=0.8),
    "overhead": lambda llm, _: one_token_overhead(llm),
    "direct": direct_rate,
}


def main() -> None:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--poll", type=int, default=50, help="threadpool_poll of ModelConfig")
    parser.add_argument("--runs", type=int, default=3, help="counted runs; one more comes first")
    parser.add_argument("--mode", choices=MODES, action="append", default=[])
    args = parser.parse_args()
    options = {"n_threads": args.threads, "threadpool_poll": args.poll}
    with LLM(args.model, temperature=0, n_ctx=4096, **options) as llm:
        stream_rate(llm, 16)
        rates = {
            mode: statistics.median(MODES[mode](llm, args.tokens) for _ in range(args.runs))
            for mode in args.mode or MODES
        }
    print(json.dumps(rates))


if __name__ == "__main__":
    main()
