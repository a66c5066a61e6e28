"""Patterns, formats and lengths of strings, and the types of pydantic that write them."""

from __future__ import annotations

import json
import re
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Network
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import UUID4, AnyUrl, Base64Bytes, BaseModel, Field, HttpUrl, create_model

from cyllama import OutputError
from cyllama.grammar import GrammarSpec, check_response_format, convert, schema_grammar
from cyllama.grammar.algebra import matches as found
from cyllama.grammar.formats import PATTERNS
from cyllama.grammar.gbnf import Rules
from cyllama.grammar.regex import Strings, json_string

from ..support.matching import Matcher
from ..support.writing import Writer

CASES: list[tuple[str, list[str], list[str]]] = [
    (r"^(?=.*\d)(?=.*[a-z]).{4,6}$", ["abc1", "1bcdef"], ["abcd", "1234", "ab1", "abcdef1"]),
    (r"^(?!admin$)[a-z]+$", ["adm", "admins"], ["admin", "A"]),
    (r"^(?!.*(ab|cd))[a-d]*$", ["acbd", ""], ["ab", "bcda"]),
    ("^(?i:yes|No)$", ["YES", "no", "nO"], ["yess", "n"]),
    ("(?i)^é$", ["é", "É"], ["e"]),
    (r"^\bcat\b$", ["cat"], ["cats"]),
    (r"\bcat\b", ["cat", "a cat!", "cat-cat"], ["cats", "concat"]),
    (r"^(?<year>\d{4})-(?P<month>\d\d)$", ["2024-01"], ["24-01"]),
    (r"^\u{1F600}$", ["😀"], ["x"]),
    (r"^a|z$", ["a", "xz", "ab"], ["bza"]),
    (r"(^|,)x(,|$)", ["x", "a,x,b", "x,y"], ["ax", "xa"]),
    (r"^[\s\S]$", ["\n", "x", "é"], ["", "xx"]),
    (r"^\S+$", ["é", "x"], [" ", "\u2003", ""]),
    (r"^\D\W$", ["é!", "a "], ["1!", "ab"]),
    (r"^[^\d]$", ["é", "x"], ["5"]),
    (r"^\/api\/[\w\-]+$", ["/api/a-b"], ["/api/"]),
    (r"^(?:x|)*$", ["", "xx"], ["y"]),
    (r"^(?:a*b?)+$", ["", "aab", "bba"], ["c"]),
    (r"^(?:a{2,3}){1,2}$", ["aa", "aaaaaa"], ["a", "aaaaaaa"]),
]


@pytest.mark.parametrize(("pattern", "valid", "invalid"), CASES, ids=range(len(CASES)))
def test_patterns_are_exact(pattern: str, valid: list[str], invalid: list[str], matches: Matcher):
    translated = json_string(Strings((pattern,)), Rules("x-"))
    assert not translated.patterns_left_out
    grammar = schema_grammar({"type": "string", "pattern": pattern})
    for text in valid:
        assert found(pattern, text), text
        assert matches(grammar, json.dumps(text, ensure_ascii=False)), text
    for text in invalid:
        assert not found(pattern, text), text
        assert not matches(grammar, json.dumps(text, ensure_ascii=False)), text


@settings(deadline=None, max_examples=150, derandomize=True)
@given(
    patterns=st.lists(
        st.sampled_from(("^a", "b$", "^[a-c]*$", "(?!.*cc)^", "^(ab|c)+$", "a.*b", r"\bb", "^.{3,5}$", "(?=..b)")),
        min_size=1, max_size=2, unique=True,
    ),
    least=st.integers(0, 3), width=st.none() | st.integers(0, 3), text=st.text("abc -", max_size=6),
)  # fmt: skip
def test_patterns_and_lengths_together_are_exact(
    patterns: list[str], least: int, width: int | None, text: str, matches: Matcher
):
    most = None if width is None else least + width
    schema: dict[str, Any] = {
        "type": "string",
        "minLength": least,
        "allOf": [{"pattern": pattern} for pattern in patterns],
    }
    schema |= {} if most is None else {"maxLength": most}
    expected = all(re.search(pattern, text) for pattern in patterns) and least <= len(text) <= (
        most or (6 if most is None else 0)
    )
    try:
        grammar = schema_grammar(schema)
    except ValueError:  # no text matches all of them
        assert not expected
        return
    assert matches(grammar, json.dumps(text)) == expected


BACK_REFERENCE, LOOK_BEHIND, IN_REPETITION = r"^(a|b)\1$", r"(?<=a)b", r"^(?:(?!ab).)*$"
TOO_OFTEN, TOO_DEEP, SCRIPT, LETTERS = "a{9999999}", "(a" * 200 + ")" * 200, r"^\p{Han}$", r"^\p{L}{2,3}$"
MORE = (BACK_REFERENCE, LOOK_BEHIND, IN_REPETITION, TOO_OFTEN, TOO_DEEP, SCRIPT, LETTERS)


@pytest.mark.parametrize("pattern", MORE, ids=range(len(MORE)))
def test_what_no_grammar_can_say_of_a_pattern_allows_more(pattern: str, matches: Matcher):
    schema = {"type": "string", "pattern": pattern}
    assert convert(schema).left_out == (("#", "pattern"),)
    for text in ("aa", "ab", "xay", "жя", "a" * 99):
        if found(pattern, text):
            assert matches(schema_grammar(schema), f'"{text}"')


def test_lengths_that_no_grammar_can_say_are_left_out_and_known():
    schema = {"type": "string", "pattern": "^[^@]{1,64}@[^@]{1,190}$", "minLength": 3, "maxLength": 60}
    assert convert(schema).left_out == (("#", "minLength"), ("#", "maxLength"))
    expected = check_response_format(schema)
    assert expected is not None
    assert expected.parse('"a@b"') == "a@b"
    with pytest.raises(OutputError, match="too long"):
        expected.parse(json.dumps("a@" + "b" * 59))


FORMATS: list[tuple[str, list[str], list[str]]] = [
    (
        "date",
        ["2024-02-29", "2000-02-29", "0999-12-31"],
        ["2023-02-29", "1900-02-29", "2024-04-31", "2024-13-01", "0000-01-01"],
    ),
    ("time", ["12:00:00Z", "23:59:59.123456+01:00"], ["24:00:00Z", "12:00Z"]),
    ("duration", ["P1D", "PT0.5S", "P1Y2M3DT4H5M6S", "P2W", "-P1D"], ["P", "PT", "1D", "P1H"]),
    ("ipv4", ["0.0.0.0", "255.10.1.99"], ["256.0.0.1", "1.2.3", "01.2.3.4"]),
    ("ipv6", ["::", "::1", "1:2:3:4:5:6:7:8", "fe80::1.2.3.4", "1::8"], [":", "1::2::3", "1:2:3:4:5:6:7", "12345::"]),
    ("ipv4network", ["10.0.0.0/8", "1.2.3.4", "1.2.3.4/32", "192.168.128.0/17"], ["10.0.0.1/8", "1.2.3.4/33"]),
    ("uri", ["https://example.com/a?b=c#d", "mailto:a@b.c", "urn:x:y", "http://[::1]:80/"], ["x", "http//a", "a b:c"]),
    ("email", ["a@b.c", "é@x.org"], ["a", "@b", "a b@c"]),
    ("base64", ["", "aGk=", "aGkx"], ["a", "aGk"]),
    ("uuid4", ["123e4567-e89b-42d3-a456-426614174000"], ["123e4567-e89b-12d3-a456-426614174000", "x"]),
]


@pytest.mark.parametrize(("form", "valid", "invalid"), FORMATS, ids=[form for form, _, _ in FORMATS])
def test_formats_are_enforced(form: str, valid: list[str], invalid: list[str], matches: Matcher):
    grammar = schema_grammar({"type": "string", "format": form})
    for text in valid:
        assert matches(grammar, json.dumps(text, ensure_ascii=False)), text
    for text in invalid:
        assert not matches(grammar, json.dumps(text, ensure_ascii=False)), text


TYPES: dict[str, Any] = {
    **{
        "decimal": Decimal,
        "positive": Annotated[Decimal, Field(gt=0)],
        "price": Annotated[Decimal, Field(decimal_places=2)],
    },
    **{
        "digits": Annotated[Decimal, Field(max_digits=5, decimal_places=2)],
        "span": timedelta,
        "day": date,
        "at": datetime,
    },
    **{"clock": time, "v4": IPv4Address, "v6": IPv6Address, "network": IPv4Network, "network6": IPv6Network},
    **{"interface": IPv4Interface, "url": AnyUrl, "http": HttpUrl, "uuid": UUID, "uuid4": UUID4, "data": Base64Bytes},
    **{"by_int": dict[int, bool], "by_uuid": dict[UUID, int], "by_name": dict[Literal["a", "b"], int]},
    **{
        "by_date": dict[date, int],
        "numbers": set[int],
        "letters": frozenset[Literal["a", "b", "c"]],
        "pair": tuple[int, str],
    },
    **{
        "code": Annotated[str, Field(pattern="^[a-z]+-[0-9]+$", max_length=8)],
        "steps": Annotated[int, Field(multiple_of=7)],
    },
    **{
        "half": Annotated[float, Field(multiple_of=0.5)],
        "short": Annotated[list[int], Field(min_length=1, max_length=2)],
    },
    **{
        "union": int | bool | str | None,
        "nested": dict[str, list[dict[int, date | None]]],
        "by_float": dict[float, int],
    },
}


@pytest.mark.parametrize("name", TYPES)
def test_what_a_random_model_writes_is_an_instance(name: str, write_randomly: Writer):
    model: type[BaseModel] = create_model("Model", value=(TYPES[name], ...))
    expected = check_response_format(model)
    assert expected is not None
    finished = 0
    for seed in range(4):
        text, whole = write_randomly(GrammarSpec(expected.grammar), max_tokens=150, seed=seed)
        if whole:
            finished += 1
            assert isinstance(expected.parse(text), model)
    assert finished or name in ("nested", "http", "url", "by_uuid", "numbers")


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    name=st.sampled_from(("span", "day", "v4", "v6", "network", "uuid", "decimal", "by_int", "numbers", "union")),
    data=st.data(),
)
def test_what_pydantic_writes_is_allowed(name: str, data: st.DataObject, matches: Matcher):
    model: type[BaseModel] = create_model("Model", value=(TYPES[name], ...))
    values: dict[str, st.SearchStrategy[Any]] = {
        "decimal": st.decimals(-(10**6), 10**6, places=3),
        "span": st.timedeltas(timedelta(days=-900), timedelta(days=900)),
        "union": st.integers(-(2**63), 2**63) | st.booleans() | st.text() | st.none(),
    }
    value = data.draw(values.get(name, st.from_type(TYPES[name])))
    text = model(value=value).model_dump_json()
    expected = check_response_format(model)
    assert expected is not None
    assert matches(expected.grammar, text) or re.search(r"\d{21}", text), text


def test_each_format_has_a_grammar_without_anything_left_out():
    for pattern in PATTERNS.values():
        assert not json_string(Strings((pattern,)), Rules("x-")).patterns_left_out
