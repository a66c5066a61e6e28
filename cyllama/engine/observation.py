"""What conversations have and do, as any thread may see it while the engine goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from .cells import CellShare
from .conversation import Conversation
from .request import Request, Status
from .stats import SessionStats

_NO_CELLS = CellShare(0, 0, 0.0)


def observe(
    conversations: Iterable[Conversation], shares: Mapping[int, CellShare]
) -> tuple[tuple[SessionStats, ...], int]:
    """Return what conversations have and do, and how many cells of the context have a single owner.

    No lock is taken, and the engine does not wait: beside a step, two values may be of two moments.

    Args:
        conversations: The conversations.
        shares: The cells of each sequence, by its id.
    """
    found = [(each, None if each.sequence is None else each.sequence.seq_id) for each in conversations]
    holders = Counter(seq_id for _, seq_id in found)  # after a fork, two conversations have one sequence
    alone = sum(share.alone for seq_id, share in shares.items() if holders[seq_id] < 2)
    sessions = [
        _session_stats(conversation, shares.get(-1 if seq_id is None else seq_id, _NO_CELLS), holders[seq_id])
        for conversation, seq_id in found
    ]
    return tuple(sessions), alone


def _session_stats(conversation: Conversation, share: CellShare, n_holders: int) -> SessionStats:
    requests = [each for each in conversation.requests.copy() if isinstance(each, Request)]
    running = [each for each in requests if each.status is Status.RUNNING]
    return SessionStats(
        name=conversation.name,
        tokens=max((each.n_evaluated for each in running), default=len(conversation.tokens)),
        place=conversation.place,
        cells=share.alone if n_holders == 1 else 0,
        shared_cells=share.shared if n_holders == 1 else share.alone + share.shared,
        cell_share=share.part / n_holders,
        running=len(running),
        waiting=sum(each.status in (Status.NEW, Status.WAITING) for each in requests),
    )
