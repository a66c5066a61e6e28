"""What is remembered of a conversation, and of all of them."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple

from ..errors import SessionError
from .images import PromptImage
from .sequence import LeaseHolder, common_prefix

TENANT_END = "\x1e"
"""What ends the tenant in the name of a conversation that belongs to one."""


class Reply(NamedTuple):
    """Where an answer ends in a conversation."""

    n_tokens: int
    n_chars: int


class History(NamedTuple):
    """What a conversation holds.

    Attributes:
        tokens: All its token ids, sampled ones as they were sampled.
        text: The same as text, as callers gave and received it; ``None`` if they gave token ids.
        replies: Where answers end in both, in order.
        images: The images that its token ids below zero belong to, by key.
    """

    tokens: list[int]
    text: str | None
    replies: tuple[Reply, ...]
    images: Mapping[int, PromptImage] = MappingProxyType({})


class Conversation(LeaseHolder):
    """The token ids and the text of one conversation, whether or not a KV cache holds them.

    The engine's thread changes it when a generation ends, and at no other time.

    Attributes:
        name: What callers call it.
        history: What it holds. Replaced as a whole, never changed: others may be reading it.
        lease: What keeps its sequence in the KV cache. Only the engine's thread changes it.
        requests: Its generations that have not ended.
        handles: The session objects that callers hold.
        opened: Whether there ever was a session object, and not only calls that name it.
        last_used: When it was last asked for, on the registry's clock.
        forgotten: Whether it was forgotten: its name may be that of another one now.
    """

    def __init__(self, name: str, history: History | None = None) -> None:
        super().__init__()
        self.name = name
        self.history = history or History([], "", ())
        self.requests: set[object] = set()
        self.handles: weakref.WeakSet[object] = weakref.WeakSet()
        self.opened = False
        self.last_used = 0
        self.forgotten = False

    @property
    def scope(self) -> str:
        """Its tenant: only the conversations of one tenant share prefixes, so that no other one learns of them.

        How soon an answer begins, and ``cached_tokens``, would tell whether another conversation began alike.
        """
        tenant, end, _ = self.name.partition(TENANT_END)
        return tenant if end else ""

    @property
    def in_use(self) -> bool:
        """Whether it has to stay: it generates, or callers hold a session object of it."""
        return bool(self.requests or self.handles)

    @property
    def failed(self) -> bool:
        """Whether it was made by calls, none of which succeeded."""
        return not (self.tokens or self.requests or self.opened)

    @property
    def tokens(self) -> list[int]:
        """All its token ids."""
        return self.history.tokens

    @property
    def place(self) -> Literal["resident", "swapped", "dropped"]:
        """Where its KV cache is: in the context, in host memory, or nowhere."""
        sequence = self.sequence
        if sequence is None or not sequence.tokens:
            return "dropped"
        return "resident" if sequence.seq_id is not None else "swapped"

    def keep_replies(self, prompt: list[int], text: str, tokenize: Callable[[str], list[int]]) -> list[int]:
        """Return the tokens of a whole history, with the ids that were sampled where it repeats answers.

        Tokenizing the text of an answer may give other tokens than those that were sampled. So ``text`` keeps the
        sampled ids up to the end of the last answer that it repeats, and the KV cache stays useful.

        Args:
            prompt: The tokens of ``text`` alone.
            text: The whole history.
            tokenize: Turns what follows into tokens.
        """
        history = self.history
        if history.text is None:
            return prompt
        for reply in reversed(history.replies):
            if text.startswith(history.text[: reply.n_chars]):
                known = history.tokens[: reply.n_tokens]
                if prompt[: reply.n_tokens] == known:
                    return prompt
                return known + tokenize(text[reply.n_chars :])
        return prompt

    def end_turn(
        self,
        prompt: Sequence[int],
        prompt_text: str | None,
        answer: Sequence[int],
        answer_text: str,
        n_reply: int,
        images: Mapping[int, PromptImage],
    ) -> None:
        """Replace the history by a prompt, which repeats all of it that counts, and its answer.

        Args:
            prompt: Tokens of the prompt.
            prompt_text: Its text, if it was given as text.
            answer: Tokens of the answer; may end with a token that has no text.
            answer_text: Its text.
            n_reply: How many tokens of the answer have a text.
            images: The images of the prompt, by key.
        """
        before, replies = self.history.text, self.history.replies
        if prompt_text is None or before is None:
            replies = ()
        else:
            kept = common_prefix(self.tokens, prompt)
            whole = prompt_text.startswith(before)
            replies = tuple(
                reply
                for reply in replies
                if reply.n_tokens <= kept and (whole or prompt_text.startswith(before[: reply.n_chars]))
            )
        text = None if prompt_text is None else prompt_text + answer_text
        if text is not None:
            replies += (Reply(len(prompt) + n_reply, len(text)),)
        self.history = History([*prompt, *answer], text, replies, images)


def _image_sizes(conversation: Conversation) -> dict[int, int]:
    """Return the bytes of each image, by its ``id``: one that several conversations hold is in memory once."""
    return {id(each.image): len(each.image.rgb) for each in conversation.history.images.values()}


class Conversations:
    """The conversations that are remembered, by name. The caller holds a lock."""

    def __init__(self, limit: int, image_bytes: int) -> None:
        """Remember at most ``limit``, whose images have at most ``image_bytes`` bytes."""
        self._limit = limit
        self._image_bytes = image_bytes
        self._by_name: dict[str, Conversation] = {}
        self._clock = itertools.count(1)

    def __iter__(self) -> Iterator[Conversation]:
        return iter(list(self._by_name.values()))

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    @property
    def names(self) -> list[str]:
        """The names of all, oldest first."""
        return list(self._by_name)

    def find(self, name: str) -> Conversation | None:
        """Return the conversation of that name if there is one."""
        conversation = self._by_name.get(name)
        if conversation is not None:
            conversation.last_used = next(self._clock)
        return conversation

    def add(self, conversation: Conversation) -> Conversation | None:
        """Remember a conversation; return the one that was forgotten to make room for it, if any.

        Raises:
            SessionError: There are too many, and all are in use.
        """
        forgotten = self._make_room()
        conversation.last_used = next(self._clock)
        self._by_name[conversation.name] = conversation
        return forgotten

    def new_name(self) -> str:
        """Return a name that no conversation has."""
        return next(name for n in itertools.count(1) if (name := f"session-{n}") not in self._by_name)

    def forget(self, conversation: Conversation) -> None:
        """Forget a conversation."""
        conversation.forgotten = True
        if self._by_name.get(conversation.name) is conversation:
            del self._by_name[conversation.name]

    @property
    def image_bytes(self) -> int:
        """Bytes of the pixels of all images."""
        return sum({each: size for conversation in self for each, size in _image_sizes(conversation).items()}.values())

    def beyond_image_bytes(self, used: Conversation) -> list[Conversation]:
        """Return the conversations to forget because all hold too many bytes of images: those unused for the longest.

        Args:
            used: The conversation of the call that asks, which stays, as those in use do.
        """
        having = [c for c in self._by_name.values() if c.history.images]
        found: list[Conversation] = []
        counted: set[int] = set()
        n_bytes = 0
        for conversation in sorted(having, key=lambda c: (c is used or c.in_use, c.last_used), reverse=True):
            own = {each: size for each, size in _image_sizes(conversation).items() if each not in counted}
            n_bytes += sum(own.values())
            if own and n_bytes > self._image_bytes and conversation is not used and not conversation.in_use:
                found.append(conversation)
            else:
                counted.update(own)
        return found

    def _make_room(self) -> Conversation | None:
        """Forget the conversation that was unused for the longest, if there is no room for one more."""
        if len(self._by_name) < self._limit:
            return None
        unused = [c for c in self._by_name.values() if not c.in_use]
        if not unused:
            raise SessionError(
                f"there are {self._limit} sessions already, and all are held by your code or generating: close one, or "
                f"raise max_sessions in ModelConfig"
            )
        oldest = min(unused, key=lambda c: c.last_used)
        self.forget(oldest)
        return oldest
