"""Conversations that stay warm: the next turn evaluates only what is new.

Run it with ``python examples/sessions.py [model.gguf]``.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from cyllama import LLM, MessageLike


def main(model_path: str | None = None) -> None:
    with LLM(model_path, temperature=0, max_tokens=64) as llm:
        # A session by name: pass the whole history, and what the session holds of it already is not evaluated again.
        histories: dict[str, list[MessageLike]] = {"ada": [], "ben": []}
        for text in ("My name is {}.", "What is my name?"):
            for name, history in histories.items():
                history.append({"role": "user", "content": text.format(name.capitalize())})
                answer = llm.chat(history, session=name)
                history.append(answer.message)
                print(
                    f"{name}: {answer} ({answer.usage.cached_tokens} of {answer.usage.prompt_tokens} tokens were known)"
                )

        # A session object: what you pass is appended.
        ada = llm.session("ada")
        question = "\n" + llm.render([{"role": "user", "content": "Tell me a story about a dog."}])

        # A fork goes its own way from here, without evaluating anything again.
        before = llm.stats.prompt_tokens_evaluated
        with ada.fork() as branch:
            print(f"a branch of ada: {branch(question, stop_sequences=['.'])}...")
        print(f"evaluated for it: {llm.stats.prompt_tokens_evaluated - before} tokens")  # the question's, and one more

        # A file carries a conversation over a restart.
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "ada.session"
            ada.save(file)
            ada.close()
            loaded = llm.load_session(file)
            print(f"loaded: {loaded.name}, {loaded.tokens} tokens; sessions: {llm.sessions}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
