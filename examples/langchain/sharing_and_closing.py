"""Which objects share a model, who closes it, and how to hold one conversation at a time.

Run it with ``python examples/langchain/sharing_and_closing.py [model.gguf]``.
"""

from __future__ import annotations

import sys

from langchain_core.messages import AnyMessage, HumanMessage

from cyllama import LLM
from langchain_cyllama import ChatCyllama, CyllamaEmbeddings, CyllamaLLM


def by_path(model_path: str | None) -> None:
    # Objects of one file and the same loading options share one model, also with different options of generation.
    chat = ChatCyllama(model_path=model_path, temperature=0)
    writer = CyllamaLLM(model_path=model_path, temperature=0.8, max_tokens=16)
    embeddings = CyllamaEmbeddings(model_path=model_path)
    llm = chat.client
    print(f"shared: {llm is writer.client is embeddings.client}")

    # The last of them gives it back: by close(), at the end of a with block, or when nothing refers to it.
    print(f"answer: {chat.invoke('What is the capital of France?').text}")
    chat.close()
    del embeddings
    print(f"one has closed: n_ctx={llm.stats.n_ctx}")
    writer.close()
    print(f"all have closed: n_ctx={llm.stats.n_ctx}")


def given(model_path: str | None) -> None:
    # A model that you pass is not changed and not closed by the objects that use it.
    with LLM(model_path, kv_cells=1024, n_ctx=512) as llm:
        with ChatCyllama(llm=llm, temperature=0) as chat:
            chat.invoke("What is the capital of France?")
        print(f"the chat has closed: n_ctx={llm.stats.n_ctx}")
    print(f"you have closed: n_ctx={llm.stats.n_ctx}")


def one_at_a_time(model_path: str | None) -> None:
    # For machines with little memory: another conversation drops the context of the one before.
    with ChatCyllama(model_path=model_path, temperature=0, sessions="exclusive") as chat:
        histories: dict[str, list[AnyMessage]] = {"ada": [], "ben": []}
        for name, text in (("ada", "I am Ada."), ("ada", "Who am I?"), ("ben", "I am Ben."), ("ada", "Who am I?")):
            history = histories[name]
            history.append(HumanMessage(text))
            history.append(answer := chat.invoke(history, session_id=name))
            known = (answer.usage_metadata or {}).get("input_token_details", {}).get("cache_read")
            print(f"{name}: {answer.text} ({known} tokens were known; sessions: {', '.join(chat.client.sessions)})")
        print(f"contexts created: {chat.client.stats.contexts_created}")


def main(model_path: str | None = None) -> None:
    by_path(model_path)
    given(model_path)
    one_at_a_time(model_path)


if __name__ == "__main__":
    main(*sys.argv[1:2])
