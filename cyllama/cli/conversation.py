"""A conversation: its messages, and the session that holds their KV cache. Both can be saved to one file."""

from __future__ import annotations

import json
import tempfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from ..chat import Message
from ..chat_stream import ChatStream
from ..errors import SessionError, SessionFileError, UnsupportedModelError
from ..images import Image
from ..llm import LLM
from ..session import Session

MESSAGES = "messages.json"
STATE = "kv-cache.session"


def question(text: str, images: Sequence[Image] = ()) -> Message:
    """Return a message of the user, with images before its text."""
    if not images:
        return Message(role="user", content=text)
    shown = [{"type": "image", "image": image} for image in images]
    return Message(role="user", content=[*shown, {"type": "text", "text": text}])


def check_reads_images(llm: LLM) -> None:
    """Check that a model reads images.

    Raises:
        UnsupportedModelError: It has no projector.
    """
    if llm.model_config.projector is None:
        raise UnsupportedModelError(
            f"{llm.model_name} reads no images without a projector: give its file with --projector, or `auto` "
            "for the one beside the model"
        )


class Conversation:
    """A conversation with one model.

    Args:
        llm: The model.
        system: What the model is told before everything else.
        options: Options of every answer, as :meth:`LLM.chat` takes them.
        prefill: What every answer begins with.

    Attributes:
        messages: All messages so far.
        options: Options of every answer, as :meth:`LLM.chat` takes them.
        prefill: What every answer begins with, if anything.
    """

    def __init__(
        self,
        llm: LLM,
        system: str | None = None,
        options: Mapping[str, Any] | None = None,
        prefill: str | None = None,
    ) -> None:
        self.messages = [] if system is None else [Message(role="system", content=system)]
        self._llm = llm
        self.options = dict(options or {})
        self.prefill = prefill or ""
        self._names = (f"chat {number}" for number in count(1))
        self._session = llm.session(next(self._names))

    def ask(self, question: Message) -> ChatStream:
        """Return the answer to a message of the user while it is generated. :meth:`keep` adds both to the messages."""
        messages = [*self.messages, question]
        if self.prefill:
            messages.append(Message(role="assistant", content=self.prefill))
        return self._llm.chat(messages, session=self._session.name, stream=True, **self.options)

    def keep(self, question: Message, answer: Message) -> None:
        """Add a message of the user and its answer to the conversation."""
        whole = answer.model_copy(update={"content": self.prefill + answer.content}) if self.prefill else answer
        self.messages += [question, whole]

    def take_back(self) -> Message | None:
        """Forget the last message of the user and its answer, and return that message; ``None`` without one."""
        for i in reversed(range(len(self.messages))):
            if self.messages[i].role == "user":
                question = self.messages[i]
                del self.messages[i:]
                return question
        return None

    @property
    def system(self) -> str:
        """What the model is told before everything else."""
        return self.messages[0].content if self._has_system else ""

    @system.setter
    def system(self, text: str) -> None:
        self.messages[: int(self._has_system)] = [Message(role="system", content=text)]

    @property
    def _has_system(self) -> bool:
        return bool(self.messages) and self.messages[0].role in ("system", "developer")

    @property
    def turns(self) -> int:
        """The number of the user's messages."""
        return sum(message.role == "user" for message in self.messages)

    def reset(self) -> None:
        """Forget all messages except the system message."""
        self._session.close()
        self._session = self._llm.session(next(self._names))
        del self.messages[int(self._has_system) :]

    def save(self, path: Path) -> None:
        """Write the conversation to a file, a zip archive of messages and session.

        A failure leaves the file as it was before.

        Raises:
            SessionError: There are no messages yet.
            OSError: The file cannot be written.
        """
        if self.turns == 0:
            raise SessionError("nothing to save: there is no answer yet")
        messages = json.dumps([message.to_dict() for message in self.messages], ensure_ascii=False, indent=1)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".cyllama-") as folder:
            state, archive = Path(folder, STATE), Path(folder, "archive")
            self._session.save(state)
            with zipfile.ZipFile(archive, "w") as file:
                file.writestr(MESSAGES, messages)
                file.write(state, STATE)
            archive.replace(path)

    def load(self, path: Path) -> bool:
        """Replace the conversation by that of a file that :meth:`save` wrote.

        Returns:
            Whether the session could be used. Another model than the one that saved it cannot use it, and evaluates
            the messages again.

        Raises:
            SessionFileError: The file is not a saved conversation, or it is damaged.
            OSError: The file cannot be read.
        """
        with tempfile.TemporaryDirectory(prefix="cyllama-") as folder:
            try:
                with zipfile.ZipFile(path) as file:
                    messages = [Message.from_dict(message) for message in json.loads(file.read(MESSAGES))]
                    state = file.extract(STATE, folder)
            except (zipfile.BadZipFile, zlib.error, KeyError, TypeError, ValueError, NotImplementedError) as error:
                raise SessionFileError(f"{str(path)!r} holds no chat that /save wrote, or is damaged") from error
            session, is_warm = self._load_session(state)
        self._session.close()
        self._session, self.messages = session, messages
        return is_warm

    def _load_session(self, path: str) -> tuple[Session, bool]:
        name = next(self._names)
        try:
            return self._llm.load_session(path, name), True
        except SessionFileError:
            return self._llm.session(name), False
