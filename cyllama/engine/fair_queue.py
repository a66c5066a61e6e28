"""Which waiting item is served next, so that all get equal service: start-time fair queueing on two levels."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class _Clock:
    """Virtual time: the service that a member gets which always has an item.

    Attributes:
        now: The virtual time.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._ahead: dict[Hashable, float] = {}  # members that left with more than that
        self._purge_at = 64

    def enter(self, key: Hashable) -> float:
        """Return the service that a member begins with: what the others have, or what it left with if that is more."""
        return max(self.now, self._ahead.pop(key, self.now))

    def leave(self, key: Hashable, tag: float) -> None:
        """Remember the service of a member that has no item any more."""
        if tag <= self.now:
            return
        self._ahead[key] = tag
        if len(self._ahead) >= self._purge_at:
            self._ahead = {key: tag for key, tag in self._ahead.items() if tag > self.now}
            self._purge_at = 2 * len(self._ahead) + 64


class _Scope(Generic[T]):
    """The items of one scope.

    Attributes:
        key: What it is called.
        tag: The service of all its items, in virtual time.
        ahead: What is left of the quanta of those that are served now.
        is_new: Whether none of its items was served yet: then `ahead` is less by what new ones advance.
        clock: The virtual time of its flows.
        n_items: Its items, waiting or served.
        n_begun: Those of them that were started.
        waiting: Those that wait, least served first: new ones, and those that were started before.
    """

    def __init__(self, key: Hashable, tag: float, advance: float) -> None:
        self.key = key
        self.tag = tag
        self.ahead = -advance
        self.is_new = True
        self.clock = _Clock()
        self.n_items = self.n_begun = 0
        self.waiting: tuple[list[_Entry[T]], list[_Entry[T]]] = ([], [])

    @property
    def order(self) -> float:
        """What the scopes are ordered by."""
        return self.tag + self.ahead

    def in_order(self, most_begun: int) -> Iterator[_Entry[T]]:
        """Yield the items that wait. The one that was yielded last may be taken out meanwhile."""
        new, begun = self.waiting
        i = j = 0
        while i < len(new) or j < len(begun):
            takes_new = j >= len(begun) or (
                i < len(new) and self.n_begun < most_begun and new[i].order < begun[j].order
            )
            entry = new[i] if takes_new else begun[j]
            yield entry
            if takes_new:
                i += i < len(new) and new[i] is entry
            else:
                j += j < len(begun) and begun[j] is entry


class _Entry(Generic[T]):
    """An item, and how far its flow is.

    Attributes:
        item: The item.
        flow: Its flow; `None` for one that has no other item after it.
        scope: The scope of that.
        number: The order of arrival.
        tag: The service of its flow before its latest start, in virtual time; before the first one, less what new ones
            advance.
        used: The service since its latest start.
        begun: Whether it was started before.
        running: Whether it is served now.
    """

    __slots__ = ("begun", "flow", "item", "number", "running", "scope", "tag", "used")

    def __init__(self, item: T, flow: Hashable, scope: _Scope[T], number: int, tag: float) -> None:
        self.item = item
        self.flow = flow
        self.scope = scope
        self.number = number
        self.tag = tag
        self.used = 0.0
        self.begun = self.running = False

    @property
    def order(self) -> tuple[float, int]:
        """What the items of a scope are ordered by."""
        return self.tag, self.number


class FairQueue(Generic[T]):
    """Items that wait or are served, several at a time, so that their owners get equal service.

    An item belongs to a flow, such as a conversation, and that to a scope, such as a tenant. The next item is one of
    the scope that got the least service, and there of the flow that did. A flow has one item at a time. What had no
    item begins with the service of the others, but its first quantum comes before theirs.

    An item that is served may be displaced after a quantum by one that got a quantum less, and sooner by an urgent one.
    So flows, and scopes, that always have an item differ in their service by a few quanta at most. Virtual time
    advances by all service, divided by the number of members: no stream of new ones can hold up the others.

    >>> queue = FairQueue(quantum=64, first_quantum=16, most_begun=8)
    >>> for item, scope in (("a1", "a"), ("a2", "a"), ("b1", "b")):
    ...     queue.add(item, scope, flow=None)
    >>> queue.start("a1")
    >>> list(queue.in_order())
    ['b1', 'a2']
    >>> queue.charge("a1", 16)
    >>> queue.may_displace("b1", "a1", urgent=True)
    True

    Args:
        quantum: Service after which an item may be displaced by one that got so much less.
        first_quantum: Service after which it may be displaced by an urgent one that got less.
        most_begun: Most items of a scope that were started and not ended, before those that were displaced go first.
    """

    def __init__(self, quantum: float, first_quantum: float, most_begun: int) -> None:
        self._quantum = quantum
        self._advance = 2 * quantum  # of new members: more than others differ by
        self._first_quantum = first_quantum
        self._most_begun = most_begun
        self._clock = _Clock()
        self._scopes: dict[Hashable, _Scope[T]] = {}
        self._entries: dict[T, _Entry[T]] = {}
        self._next = 0

    def __contains__(self, item: T) -> bool:
        return item in self._entries

    def add(self, item: T, scope: Hashable, flow: Hashable | None) -> None:
        """Let an item wait whose flow has no other one; ``None`` is a flow of its own."""
        owner = self._scopes.get(scope)
        if owner is None:
            ahead = sum(each.ahead for each in self._scopes.values() if not each.is_new) / max(1, len(self._scopes))
            owner = self._scopes[scope] = _Scope(scope, self._clock.enter(scope) + ahead, self._advance)
        tag = owner.clock.enter(flow) - self._advance
        entry = self._entries[item] = _Entry(item, flow, owner, self._next, tag)
        self._next += 1
        owner.n_items += 1
        insort(owner.waiting[0], entry, key=_order)

    def in_order(self) -> Iterator[T]:
        """Yield the items that wait, in the order in which they should start.

        The one that was yielded last may be started or removed meanwhile, and others displaced.
        """
        orders = {scope: scope.in_order(self._most_begun) for scope in self._scopes.values()}
        heads = {scope: entry for scope, order in orders.items() if (entry := next(order, None)) is not None}
        passed = dict.fromkeys(heads, 0.0)  # quanta of those that were yielded, and wait still
        while heads:
            scope = min(heads, key=lambda scope: (scope.order + passed[scope], heads[scope].number))
            entry = heads[scope]
            yield entry.item
            passed[scope] += 0.0 if entry.running else self._quantum
            following = next(orders[scope], None)
            if following is None:
                del heads[scope]
            else:
                heads[scope] = following

    def start(self, item: T) -> None:
        """Begin to serve an item that waits."""
        entry = self._entries[item]
        scope = entry.scope
        self._take_out(entry)
        if not entry.begun:
            entry.tag += self._advance
            scope.n_begun += 1
        if scope.is_new:
            scope.is_new = False
            scope.ahead += self._advance
        entry.begun = entry.running = True
        scope.ahead += self._quantum

    def charge(self, item: T, service: float) -> None:
        """Count service of an item that is served, as a part of its quantum."""
        entry = self._entries[item]
        entry.scope.ahead -= self._left(entry)
        entry.used += service
        entry.scope.ahead += self._left(entry)
        self._count(entry.scope, service)

    def charge_extra(self, item: T, service: float) -> None:
        """Count service of an item that is served, but not as a part of its quantum."""
        entry = self._entries[item]
        entry.tag += service
        self._count(entry.scope, service)

    def displace(self, item: T) -> None:
        """Let an item that is served wait again."""
        entry = self._entries[item]
        self._stop(entry)
        insort(entry.scope.waiting[1], entry, key=_order)

    def remove(self, item: T) -> None:
        """Take out an item, waiting or served."""
        entry = self._entries.pop(item)
        scope = entry.scope
        if entry.running:
            self._stop(entry)
        else:
            self._take_out(entry)
        scope.n_items -= 1
        scope.n_begun -= entry.begun
        if entry.begun and entry.flow is not None:
            scope.clock.leave(entry.flow, entry.tag)
        if not scope.n_items:
            del self._scopes[scope.key]
            self._clock.leave(scope.key, scope.tag)

    def may_displace(self, item: T, other: T, *, urgent: bool) -> bool:
        """Return whether an item that waits should be served in place of one that is served.

        Args:
            item: The one that waits.
            other: The one that is served.
            urgent: Whether it has to start soon.
        """
        waiting, served, lead = self._entries[item], self._entries[other], 0.0 if urgent else self._quantum
        if served.used < (self._first_quantum if urgent else self._quantum):
            return False
        scope = waiting.scope
        if scope is not served.scope:
            return scope.order + lead <= self._order_without(served)
        is_beyond_limit = not waiting.begun and scope.n_begun >= self._most_begun
        return not is_beyond_limit and waiting.tag + lead <= served.tag + served.used

    def service(self, item: T) -> tuple[float, float]:
        """Return the service that the scope of an item got, and its flow, in virtual time."""
        entry = self._entries[item]
        return self._order_without(entry), entry.tag + entry.used

    def _left(self, entry: _Entry[T]) -> float:
        """Return what is left of the quantum of an item that is served."""
        return max(0.0, self._quantum - entry.used)

    def _order_without(self, entry: _Entry[T]) -> float:
        """Return what its scope would be ordered by if an item that is served stopped now."""
        return entry.scope.order - self._left(entry)

    def _count(self, scope: _Scope[T], service: float) -> None:
        scope.tag += service
        scope.clock.now += service / scope.n_items
        self._clock.now += service / len(self._scopes)

    def _stop(self, entry: _Entry[T]) -> None:
        entry.scope.ahead -= self._left(entry)
        entry.tag += entry.used
        entry.used = 0.0
        entry.running = False

    def _take_out(self, entry: _Entry[T]) -> None:
        waiting = entry.scope.waiting[entry.begun]
        del waiting[bisect_left(waiting, entry.order, key=_order)]


def _order(entry: _Entry[T]) -> tuple[float, int]:
    return entry.order
