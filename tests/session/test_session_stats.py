"""What `llm.stats.sessions` says of conversations, while they are answered and after."""

from __future__ import annotations

import itertools
import threading

import pytest

from cyllama import LLM, SessionStats


def found(llm: LLM) -> dict[str, SessionStats]:
    return {each.name: each for each in llm.stats.sessions}


def test_a_session_has_its_tokens_and_cells(llm: LLM):
    ada, ben = llm.session("ada"), llm.session("ben")
    assert [(each.name, each.tokens, each.place) for each in llm.stats.sessions] == [
        ("ada", 0, "dropped"),
        ("ben", 0, "dropped"),
    ]
    ada("My name is Ada.", max_tokens=8)
    stats = found(llm)
    assert stats["ada"].tokens == ada.tokens
    assert stats["ada"].cells == llm.stats.kv_cells_used == ada.tokens - 1, (
        "the last token is evaluated with the next turn"
    )
    assert (stats["ben"].cells, stats["ben"].place) == (0, "dropped")
    assert ben.tokens == 0


def test_what_forks_share_is_counted_for_each_and_once_in_all(llm: LLM):
    ada = llm.session("ada")
    ada("My name is Ada.", max_tokens=8)
    branch = ada.fork("branch")
    assert branch(" And", max_tokens=8)  # the engine has made the fork
    stats, all_of_it = found(llm), llm.stats
    assert stats["ada"].shared_cells == stats["branch"].shared_cells == all_of_it.kv_cells_shared > 0
    assert sum(each.cells for each in stats.values()) + all_of_it.kv_cells_shared == all_of_it.kv_cells_used
    assert sum(each.cell_share for each in stats.values()) == all_of_it.kv_cells_used


def test_a_fork_that_has_not_gone_on_shares_all_of_its_cells(llm: LLM):
    ada = llm.session("ada")
    ada("My name is Ada.", max_tokens=8)
    ada.fork("branch")
    llm("Hello", max_tokens=1, session="other")  # the engine has made the fork
    stats = found(llm)
    assert (stats["ada"].cells, stats["branch"].cells) == (0, 0)
    assert stats["ada"].shared_cells == stats["branch"].shared_cells == ada.tokens - 1


def test_a_session_that_moved_to_host_memory_has_no_cells():
    with LLM(temperature=0, n_ctx=256, kv_cells=256, n_parallel=1) as llm:
        for name in ("ada", "ben"):
            llm("word " * 60, session=name, max_tokens=100, ignore_eos=True)
        stats = found(llm)
    assert (stats["ada"].place, stats["ada"].cells) == ("swapped", 0)
    assert (stats["ben"].place, stats["ben"].cells > 0) == ("resident", True)


@pytest.mark.usefixtures("long_quanta", "lockstep")
def test_running_and_waiting_generations_are_those_of_their_session():
    with LLM(temperature=0, n_parallel=1) as llm:
        ada, ben = llm.session("ada"), llm.session("ben")
        running = ada("Once upon a time", stream=True, max_tokens=400, ignore_eos=True)
        next(iter(running))
        waiting = ben("Once upon a time", stream=True, max_tokens=1)
        stats = found(llm)
        assert (stats["ada"].running, stats["ada"].waiting) == (1, 0)
        assert (stats["ben"].running, stats["ben"].waiting) == (0, 1)
        assert stats["ada"].tokens > 0
        running.close()
        waiting.read()
        assert {(each.running, each.waiting) for each in llm.stats.sessions} == {(0, 0)}


def test_reading_them_changes_nothing(llm: LLM):
    """Nor which session is forgotten first, which is the one that was used longest ago."""
    with LLM(temperature=0, max_sessions=2) as llm:
        for name in ("old", "new"):
            llm("Hello", session=name, max_tokens=1)
        assert [each.name for each in llm.stats.sessions] == ["old", "new"]
        llm("Hello", session="newest", max_tokens=1)
        assert llm.sessions == ["new", "newest"]


def test_they_can_be_read_while_everything_changes(llm: LLM):
    done = threading.Event()

    def change() -> None:
        try:
            for i in itertools.count():
                if i >= 40 and (seen > 5 or i == 4000):
                    break
                session = llm.session(f"s{i % 5}")
                session("Hello", max_tokens=2)
                session.fork(f"fork {i}")("Bye", max_tokens=2)
                llm.reset_context(session=f"fork {i - 2}")
        finally:
            done.set()

    thread, seen = threading.Thread(target=change), 0
    thread.start()
    while not done.is_set():
        stats = llm.stats
        assert all(each.cells >= 0 and each.cell_share >= 0 for each in stats.sessions)
        seen = max(seen, len(stats.sessions))
    thread.join()
    assert seen > 5
