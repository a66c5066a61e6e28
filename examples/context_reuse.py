"""When a context is created, reused, replaced and given back, as the counters of ``llm.stats`` show it.

An LLM owns at most one context. The first generation creates it, later ones reuse it while it is large enough, a larger
one replaces it when it is not, and ``close()`` gives it back. The text depends on none of this.

Run it with ``python examples/context_reuse.py [model.gguf]``.
"""

from __future__ import annotations

import sys

from cyllama import LLM, ContextSizeError


def show(event: str, llm: LLM) -> None:
    stats = llm.stats
    print(f"{event:<34} created={stats.contexts_created} reused={stats.context_reuses} n_ctx={stats.n_ctx}")


def main(model_path: str | None = None) -> None:
    llm = LLM(model_path, temperature=0, max_tokens=32)
    prompt = llm.render([{"role": "user", "content": "What is the capital of France?"}])
    show("model loaded", llm)

    texts = [llm(prompt)]
    show("first generation", llm)  # prompt + max_tokens, rounded up to 256
    texts.append(llm(prompt))
    show("same size again", llm)
    texts.append(llm(prompt, max_tokens=600))
    show("more tokens wanted", llm)  # replaced: at least twice as large
    texts.append(llm(prompt))
    show("few tokens again", llm)  # a context never shrinks by itself

    llm.close()
    show("closed", llm)
    llm.close()
    show("closed twice", llm)
    texts.append(llm(prompt))
    show("created on demand", llm)
    llm.reset_context()
    texts.append(llm(prompt))
    show("reset, then a fresh one", llm)
    print(f"same text every time: {len(set(texts)) == 1}")

    # A fixed n_ctx is the exact limit of prompt and answer together. Set once to what the process needs, it avoids the
    # replacements.
    with LLM(model_path, temperature=0, n_ctx=512) as fixed:
        fixed(prompt, max_tokens=8)
        fixed(prompt, max_tokens=480)
        show("fixed n_ctx", fixed)
        before = fixed.stats
        try:
            fixed("word " * 600)
        except ContextSizeError as error:
            print(f"refused: {error}")
        print(f"nothing was evaluated: {fixed.stats == before}")
        response = fixed(prompt, max_tokens=None, ignore_eos=True)
        used = response.usage.total_tokens
        print(f"no limit but n_ctx: {used} tokens in all, finish reason {response.finish_reason}")
    show("after the with block", fixed)


if __name__ == "__main__":
    main(*sys.argv[1:2])
