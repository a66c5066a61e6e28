"""Text as soon as it is certain: multi-byte characters and stop strings over token boundaries."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyllama.engine.detokenizer import Detokenizer

ALPHABET = "ab\néß日🦊"


def run(pieces: list[bytes], stops: tuple[str, ...] = ()) -> tuple[list[str], bool]:
    detokenizer = Detokenizer(stops)
    chunks = []
    for piece in pieces:
        chunks.append(detokenizer.push(piece))
        if detokenizer.stopped:
            break
    chunks.append(detokenizer.finish())
    return chunks, detokenizer.stopped


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(c % (len(data) + 1) for c in cuts)})
    return [data[a:b] for a, b in pairwise(places)]


def test_a_character_over_two_tokens_comes_when_it_is_complete():
    assert run([b"caf\xc3", b"\xa9!"]) == (["caf", "é!", ""], False)


def test_an_incomplete_character_at_the_end_is_replaced_and_not_dropped():
    assert run([b"caf\xc3"]) == (["caf", "\ufffd"], False)


def test_text_that_cannot_be_a_stop_string_is_not_held_back():
    assert run([b"Hello", b" world"], ("END",)) == (["Hello", " world", ""], False)


def test_text_that_may_be_a_stop_string_is_held_back_until_it_is_not():
    assert run([b"a E", b"N", b"x"], ("END",)) == (["a ", "", "ENx", ""], False)


def test_a_stop_string_over_several_tokens_is_cut_exactly():
    assert run([b"one E", b"N", b"D two"], ("END",)) == (["one ", "", "", ""], True)


def test_what_was_held_back_is_text_after_all_when_the_generation_ends():
    assert run([b"EN"], ("END",)) == (["", "EN"], False)


def test_the_stop_string_that_is_complete_first_wins_however_the_text_is_cut():
    stops = ("abcd", "bc")
    assert "".join(run([b"xabcd"], stops)[0]) == "".join(run([b"x", b"a", b"b", b"c", b"d"], stops)[0]) == "xa"


def test_nothing_comes_after_a_stop_string():
    detokenizer = Detokenizer(("x",))
    assert detokenizer.push(b"axb") == "a"
    assert detokenizer.push(b"more") == ""
    assert detokenizer.finish() == ""


@given(st.binary(), st.lists(st.integers(0, 1000)))
def test_any_bytes_in_any_pieces_decode_as_a_whole(data: bytes, cuts: list[int]):
    chunks, _ = run(cut(data, cuts))
    assert "".join(chunks) == data.decode("utf-8", errors="replace")


@given(
    st.text(ALPHABET),
    st.lists(st.integers(0, 1000)),
    st.lists(st.text(ALPHABET, min_size=1, max_size=4), min_size=1, max_size=3).map(tuple),
)
def test_stop_strings_are_cut_wherever_tokens_begin_and_end(text: str, cuts: list[int], stops: tuple[str, ...]):
    chunks, stopped = run(cut(text.encode(), cuts), stops)
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    assert stopped == bool(ends)
    assert "".join(chunks) == (text[: min(ends)[1]] if ends else text)


@given(st.text(ALPHABET), st.lists(st.text(ALPHABET, min_size=1, max_size=4), max_size=3).map(tuple))
def test_no_more_is_held_back_than_may_become_a_stop_string(text: str, stops: tuple[str, ...]):
    detokenizer = Detokenizer(stops)
    shown = "".join(detokenizer.push(character.encode()) for character in text)
    if not detokenizer.stopped:
        held = text[len(shown) :]
        assert held == "" or any(stop.startswith(held) for stop in stops)


@pytest.mark.parametrize("stops", [(), ("\n",), ("🦊",)])
def test_emoji_survive_byte_by_byte(stops: tuple[str, ...]):
    text = "👩‍👩‍👧‍👦 é 日本"
    assert "".join(run([bytes([b]) for b in text.encode()], stops)[0]) == text
