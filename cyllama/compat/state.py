"""Saved states of :class:`Llama`."""

from __future__ import annotations

import tempfile
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from typing_extensions import Self

from ..llm import LLM


@dataclass(frozen=True)
class LlamaState:
    """What :meth:`Llama.save_state` returns. It can be pickled.

    Attributes:
        n_tokens: The number of tokens of the last call, its answer included.
        llama_state: These tokens and their KV cache, as :meth:`Session.save` writes them; empty if they are forgotten.
        seed: The seed of calls that have none of their own.
    """

    n_tokens: int
    llama_state: bytes = field(repr=False)
    seed: int | None

    @property
    def llama_state_size(self) -> int:
        """Bytes of `llama_state`."""
        return len(self.llama_state)

    @classmethod
    def of(cls, llm: LLM, session: str | None, seed: int | None) -> Self:
        """Return the state of a session, or an empty one where it is forgotten."""
        if session is None or session not in llm.sessions:
            return cls(0, b"", seed)
        with tempfile.TemporaryDirectory(prefix="cyllama-") as folder:
            path = Path(folder) / "state"
            saved = llm.session(session)
            saved.save(path)
            return cls(saved.tokens, path.read_bytes(), seed)

    def restore(self, llm: LLM) -> None:
        """Add the tokens to those that are known, so that a prompt that begins with them goes on from there.

        Raises:
            SessionFileError: The state is of another model.
        """
        if not self.llama_state:
            return
        with tempfile.TemporaryDirectory(prefix="cyllama-") as folder:
            path = Path(folder) / "state"
            path.write_bytes(self.llama_state)
            llm.load_session(path, f"state {uuid.uuid4()}")
