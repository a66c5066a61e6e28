"""The walks of the page about the design are those that calls take: each module is entered once, in that order."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

import pytest

import cyllama
from cyllama import LLM
from cyllama.engine import Engine
from cyllama.engine.admission import Admission

from ..support.pages import DOCS

PACKAGE = Path(cyllama.__file__).parent
SECTION = (DOCS / "design.md").read_text(encoding="utf-8").split("## Three walks\n")[1].split("\n## ")[0]
NO_LINE = re.findall(r"`([\w/]+(?:\.py|/))`", SECTION.split("**`LLM.__call__`")[0])
#: Modules of the objects that are handed along, and of the parts of a module that has a line.
HANDED_ALONG = {
    *("config.py", "response.py", "errors.py", "call_types.py", "control_text.py", "options.py", "declaration.py"),
    *("engine/request.py", "engine/reservation.py", "engine/answer.py", "engine/conversation.py", "engine/sequence.py"),
    *("engine/adapters.py", "engine/messages.py", "engine/stats.py", "engine/log.py", "engine/worker.py"),
    *("engine/waiting.py", "engine/fair_queue.py", "engine/sequence_store.py", "engine/prefixes.py"),
    *(
        "engine/residency.py",
        "engine/cells.py",
        "engine/memory.py",
        "engine/detokenizer.py",
        "engine/pace.py",
        "engine/integrity.py",
        "engine/hardware.py",
    ),
}


def walk(title: str) -> list[str]:
    """Return the modules that a walk names, in order."""
    block = re.search(rf"^\*\*{re.escape(title)}.*?^```\n(.*?)^```", SECTION, re.MULTILINE | re.DOTALL)
    assert block is not None
    return re.findall(r"^ *([\w/]+\.py)\b", block[1], re.MULTILINE)


@cache
def getters() -> set[CodeType]:
    """Return the code of all properties: they are read, not called."""
    modules = [
        module for name, module in sys.modules.items() if name.startswith("cyllama") and type(module) is ModuleType
    ]
    classes = {each for module in modules for each in vars(module).values() if isinstance(each, type)}
    found: set[CodeType] = set()
    for member in (member for each in classes for member in vars(each).values()):
        function = member.fget if isinstance(member, property) else getattr(member, "func", None)
        if isinstance(member, (property, cached_property)) and isinstance(function, FunctionType):
            found.add(function.__code__)
    return found


def module_of(frame: FrameType) -> str | None:
    """Return the path of the module whose function this is, if it is one of ours."""
    path = Path(frame.f_code.co_filename)
    return path.relative_to(PACKAGE).as_posix() if path.is_relative_to(PACKAGE) else None


class Follower:
    """Follows the calls of a thread.

    Attributes:
        entered: The modules that were entered, in order, and the functions that were called there.
    """

    def __init__(self) -> None:
        self.entered: list[tuple[str, str]] = []
        self._seen: set[FrameType] = set()  # a generator is called whenever it goes on

    def __call__(self, frame: FrameType, event: str, _: object) -> Any:
        code = frame.f_code
        module = module_of(frame) if event == "call" else None
        if module is None or frame in self._seen or code in getters():
            return
        self._seen.add(frame)
        if re.fullmatch(r"<.*>|__(?!call__)\w+__", code.co_name):  # lambdas, constructors and operators
            return
        caller = frame.f_back
        while caller is not None:
            if module_of(caller) == module:  # it waits for what it called
                return
            caller = caller.f_back
        self.entered.append((module, code.co_name))


def followed(call: Callable[[], object]) -> list[tuple[str, str]]:
    """Return what a call enters on this thread."""
    follower = Follower()
    getters()
    before = sys.getprofile()
    sys.setprofile(follower)
    try:
        call()
    finally:
        sys.setprofile(before)
    return follower.entered


def check(entered: list[tuple[str, str]], title: str) -> None:
    """Compare what was entered with a walk of the page."""
    listed = walk(title)
    assert [module for module, _ in entered if module in listed] == listed, entered
    known = (*listed, *HANDED_ALONG, *NO_LINE)
    assert [each for each in entered if not each[0].startswith(known)] == []


def test_a_call_enters_each_module_once(llm: LLM):
    check(followed(lambda: llm("Once upon a time", max_tokens=2)), "`LLM.__call__`")
    check(followed(lambda: llm("Once upon a time", max_tokens=2)), "`LLM.__call__`")  # the engine runs already


def test_a_turn_of_a_session_enters_each_module_once(llm: LLM):
    ada = llm.session("ada")
    check(followed(lambda: ada("My name is Ada.", max_tokens=2)), "`Session.__call__`")
    check(followed(lambda: ada(" What is my name?", max_tokens=2)), "`Session.__call__`")


@pytest.fixture
def admissions(monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[str, str]]]:
    """What was entered whenever the engine's thread looked for requests that may start, and one was there."""
    found: list[list[tuple[str, str]]] = []
    admit = Engine._admit
    getters()  # before the engine's thread needs them

    def followed_admit(self: Engine) -> None:
        entered = followed(lambda: admit(self))
        if any(name == Admission.admit.__name__ for module, name in entered if module == "engine/admission.py"):
            found.append(entered)

    monkeypatch.setattr(Engine, "_admit", followed_admit)
    return found


@pytest.mark.parametrize("cells", [None, 1024])
def test_admission_enters_each_module_once(cells: int | None, admissions: list[list[tuple[str, str]]]):
    with LLM(kv_cells=cells) as llm:
        llm("Once upon a time", max_tokens=2)
        ada = llm.session("ada")
        ada("My name is Ada.", max_tokens=2)
        ada(" What is my name?", max_tokens=2)
        assert threading.active_count() > 1
    assert len(admissions) == 3
    for entered in admissions:
        check([("engine/engine.py", "_admit"), *entered], "Admission")
