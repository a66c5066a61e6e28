"""Which session a server's calls get: by the names of their conversations, or by what their messages repeat."""

from __future__ import annotations

import asyncio
import doctest
import gc
import random
import weakref
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyllama import (
    LLM,
    ChatResponse,
    ConfigError,
    ConfigTypeError,
    ContextSizeError,
    MessageError,
    SessionError,
    SessionPool,
    session_pool,
)
from cyllama.engine import Request
from cyllama.session_choice import ConversationKey

from ..support.harness import ENDLESS, Reference, in_threads, settled
from ..support.pools import ADA, CAPITAL, NAME, Messages, ask, system, user

TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture(scope="module")
def reference(_loaded: LLM) -> Reference:
    return Reference(_loaded.model, flash_attn=True)


@pytest.fixture
def pool(llm: LLM, requests: list[Request], reference: Reference) -> Iterator[SessionPool]:
    """A pool whose answers are compared with those of a model that has seen nothing but one conversation."""
    yield SessionPool(llm)
    settled(llm)
    for request in requests:
        if request.config.temperature == 0 and request.prompt != [0]:
            reference.check(request)


def cached(answer: ChatResponse) -> int:
    return answer.usage.cached_tokens


def n_new(answer: ChatResponse) -> int:
    """Return how many tokens of a prompt were evaluated."""
    return answer.usage.prompt_tokens - answer.usage.cached_tokens


# -------------------- conversations with a name


def test_two_conversations_take_turns_and_each_continues(pool: SessionPool) -> None:
    histories: dict[str, Messages] = {name: [user(f"My name is {name}.")] for name in ("Ada", "Ben")}
    for name, history in histories.items():
        choice, answer = ask(pool, history, name)
        assert choice == "new"
        history += [answer.message, NAME]
    for name, history in histories.items():
        choice, answer = ask(pool, history, name)
        assert (choice, answer.text) == ("continue", f"Your name is {name}.")
        assert n_new(answer) < 20 < cached(answer)
    assert pool.llm.sessions == ["Ada", "Ben"]


def test_an_answer_that_is_generated_again_replaces_the_one_before(pool: SessionPool) -> None:
    _, first = ask(pool, [ADA], "ada")
    choice, again = ask(pool, [ADA], "ada", options={"seed": 7})
    assert (choice, again.text) == ("rewrite", first.text)
    assert n_new(again) == 1
    choice, answer = ask(pool, [ADA, again.message, NAME], "ada")
    assert (choice, answer.text) == ("continue", "Your name is Ada.")
    assert pool.llm.sessions == ["ada"]


def test_an_edit_of_the_last_message_rewrites_it(pool: SessionPool) -> None:
    _, first = ask(pool, [ADA], "ada")
    ask(pool, [ADA, first.message, CAPITAL], "ada")
    choice, answer = ask(pool, [ADA, first.message, NAME], "ada")
    assert (choice, answer.text) == ("rewrite", "Your name is Ada.")
    assert cached(answer) > 20
    assert pool.llm.sessions == ["ada"]


def test_an_edit_of_the_first_message_begins_another_history_and_leaves_the_old_one(pool: SessionPool) -> None:
    rules = system("Always answer in one short sentence.")
    _, first = ask(pool, [rules, ADA], "ada")
    choice, other = ask(pool, [rules, user("My name is Zoe.")], "ada")
    assert choice == "new"
    for message, answer, name in ((ADA, first, "Ada"), (user("My name is Zoe."), other, "Zoe")):
        choice, second = ask(pool, [rules, message, answer.message, NAME], "ada")
        assert (choice, second.text) == ("continue", f"Your name is {name}.")
    assert pool.llm.sessions == ["ada", "ada\x1f2"]


def test_parallel_calls_of_one_conversation_get_sessions_of_their_own(pool: SessionPool) -> None:
    llm = pool.llm
    _, first = ask(pool, [ADA], "ada")
    start: Messages = [ADA, first.message]
    with ExitStack() as stack:
        questions = [[*start, NAME], [*start, CAPITAL], [*start, NAME]]
        leases = [stack.enter_context(pool.lease(question, "ada")) for question in questions]
        assert [lease.choice for lease in leases] == ["continue", "fork", "fork"]
        assert len({lease.name for lease in leases}) == 3
        pairs = zip(questions, leases, strict=True)
        streams = [llm.chat(question, session=lease.name, stream=True, max_tokens=24) for question, lease in pairs]
        answers = [stream.read() for stream in streams]
    assert [answer.text for answer in answers] == [
        "Your name is Ada.",
        "The capital of France is Paris.",
        "Your name is Ada.",
    ]
    assert all(n_new(answer) < 25 for answer in answers)


def test_agents_of_one_conversation_keep_a_session_each(pool: SessionPool) -> None:
    histories: dict[str, Messages] = {
        name: [system(f"You are {name}."), ADA] for name in ("a pirate", "a robot", "a poet")
    }
    for turn in range(3):
        for name, history in histories.items():
            choice, answer = ask(pool, history, "team", namespace=name)
            assert choice == ("continue" if turn else "new")
            history += [answer.message, NAME]
    assert len(pool.llm.sessions) == 3


def test_an_agent_forks_what_another_one_said_and_does_not_rewrite_it(pool: SessionPool) -> None:
    _, first = ask(pool, [ADA], "team", namespace="planner")
    ask(pool, [ADA, first.message, CAPITAL], "team", namespace="planner")
    choice, answer = ask(pool, [ADA, first.message, NAME], "team", namespace="critic")
    assert (choice, answer.text) == ("fork", "Your name is Ada.")
    assert cached(answer) > 20
    choice, _ = ask(pool, [ADA, first.message, CAPITAL], "team", namespace="planner")
    assert choice == "rewrite"


def test_other_tools_are_another_history(pool: SessionPool) -> None:
    ask(pool, [ADA], "ada")
    choice, answer = ask(pool, [ADA], "ada", options={"tools": [TOOL], "tool_choice": "none"})
    assert choice == "new"
    assert answer.usage.prompt_tokens > 50


def test_ids_of_tool_calls_make_no_difference(pool: SessionPool) -> None:
    def history(call_id: str) -> Messages:
        call = {"id": call_id, "type": "function", "function": {"name": "add", "arguments": "{}"}}
        result = {"role": "tool", "tool_call_id": call_id, "content": "7"}
        return [user("Add 3 and 4."), {"role": "assistant", "content": None, "tool_calls": [call]}, result]

    options = {"tools": [TOOL], "tool_choice": "none"}
    assert ask(pool, history("one"), "ada", options=options)[0] == "new"
    assert ask(pool, history("two"), "ada", options=options)[0] == "rewrite"


def test_a_prompt_continues_the_text_that_it_repeats(pool: SessionPool) -> None:
    llm, text = pool.llm, "Ada: Hello!\nBob:"
    for choice in ("new", "continue", "continue"):
        with pool.lease(text, "ada") as lease:
            answer = llm(text, session=lease.name, max_tokens=8, stop_sequences=["\n"])
        assert lease.choice == choice
        assert choice == "new" or answer.usage.cached_tokens > answer.usage.prompt_tokens / 2
        text += f"{answer}\nAda: How are you?\nBob:"


# -------------------- conversations without a name


def test_a_conversation_is_found_by_the_messages_that_it_repeats(pool: SessionPool) -> None:
    histories: list[Messages] = [[system("Be brief."), user(f"My name is {name}.")] for name in ("Ada", "Ben", "Cleo")]
    for turn in range(3):
        for history in histories:
            choice, answer = ask(pool, history)
            assert choice == ("continue" if turn else "new")
            assert n_new(answer) < 20 or not turn
            history += [answer.message, NAME]
    assert len(pool.llm.sessions) == 3


def test_two_users_who_begin_alike_do_not_overwrite_each_other(pool: SessionPool) -> None:
    _, hello = ask(pool, [user("Hello!")])
    assert ask(pool, [user("Hello!")])[0] == "rewrite", "the answer is the same until their messages differ"
    one: Messages = [user("Hello!"), hello.message, ADA]
    other: Messages = [user("Hello!"), hello.message, user("My name is Ben.")]
    assert ask(pool, one)[0] == "continue"
    choice, answer = ask(pool, other)
    assert choice == "fork"
    assert cached(answer) >= hello.usage.prompt_tokens
    for history, name in ((one, "Ada"), (other, "Ben")):
        history += [{"role": "assistant", "content": f"Nice to meet you, {name}."}, NAME]
        choice, answer = ask(pool, history)
        assert (choice, answer.text) == ("continue", f"Your name is {name}.")


def test_an_edit_of_an_earlier_message_is_a_fork_and_both_branches_go_on(pool: SessionPool) -> None:
    _, first = ask(pool, [ADA])
    _, second = ask(pool, [ADA, first.message, CAPITAL])
    choice, edited = ask(pool, [ADA, first.message, user("What is the capital of Italy?")])
    assert choice == "fork"
    assert cached(edited) > 20
    for question, answer in ((CAPITAL, second), (user("What is the capital of Italy?"), edited)):
        assert ask(pool, [ADA, first.message, question, answer.message, NAME])[0] == "continue"


def test_a_system_message_alone_is_not_a_conversation(pool: SessionPool) -> None:
    rules = system("Always answer in one short sentence.")
    ask(pool, [rules])
    assert ask(pool, [rules, ADA])[0] == "new"
    assert ask(pool, [rules, user("My name is Ben.")])[0] == "new"


def test_prompts_without_a_complete_line_have_nothing_in_common(pool: SessionPool) -> None:
    for _ in range(2):
        with pool.lease("Once upon a time") as lease:
            pool.llm("Once upon a time", session=lease.name, max_tokens=2)
        assert lease.choice == "new"


def test_the_limit_of_conversations_without_a_name_is_for_each_tenant(llm: LLM) -> None:
    pool = SessionPool(llm, max_unnamed=2)
    for tenant in ("acme", "globex"):
        for i in range(4):
            ask(pool, [user(f"Say {i}.")], tenant=tenant)
    assert len(llm.sessions) == 4
    assert ask(pool, [user("Say 3.")], tenant="acme")[0] == "rewrite"
    assert ask(pool, [user("Say 0.")], tenant="acme")[0] == "new"


def test_many_users_at_once_keep_their_conversations_apart(pool: SessionPool) -> None:
    names = ["Ada", "Ben", "Cleo", "Dan", "Eve", "Finn"]

    def talk(name: str) -> list[str]:
        history: Messages = [system("Be brief."), user(f"My name is {name}.")]
        choices = []
        for turn in range(3):
            choice, answer = ask(pool, history)
            assert turn == 0 or answer.text == f"Your name is {name}."
            choices.append(choice)
            history += [answer.message, NAME]
        return choices

    talks = in_threads([partial(talk, name) for name in names])
    assert talks == [["new", "continue", "continue"]] * len(names)
    assert len(pool.llm.sessions) == len(names)


# -------------------- tenants


def test_what_one_tenant_said_is_not_found_by_another(pool: SessionPool) -> None:
    _, answer = ask(pool, [ADA], tenant="acme")
    history: Messages = [ADA, answer.message, NAME]
    assert ask(pool, history, tenant="globex")[0] == "new"
    assert ask(pool, history)[0] == "new"
    assert ask(pool, history, tenant="acme")[0] == "continue"


def test_tenants_share_no_prefix(pool: SessionPool) -> None:
    rules: Messages = [{"role": "system", "content": "Answer in one short sentence. Never invent anything. Be kind."}]

    def cached(text: str, tenant: str) -> int:
        return ask(pool, [*rules, {"role": "user", "content": text}], tenant=tenant)[1].usage.cached_tokens

    assert cached("Say one.", "acme") == 0
    assert cached("Say one.", "globex") == 0
    assert cached("Say one.", "") == 0
    assert cached("Say two.", "acme") > 8
    assert cached("Say two.", "globex") > 8


def test_tenants_that_ask_at_once_share_no_prefix_either(pool: SessionPool) -> None:
    asked: Messages = [{"role": "user", "content": "Tell me a long story about a fox, a bear, and a river."}]
    answers = in_threads([partial(ask, pool, asked, tenant=tenant) for tenant in ("acme", "globex", "initech")])
    assert [answer.usage.cached_tokens for _, answer in answers] == [0, 0, 0]


def test_a_saved_session_is_of_the_tenant_that_loads_it(pool: SessionPool, tmp_path: Path) -> None:
    _, answer = ask(pool, [ADA], "ada", tenant="acme")
    [name] = pool.llm.sessions
    pool.llm.session(name).save(tmp_path / "ada.session")
    pool.reset("ada", tenant="acme")
    pool.llm.load_session(tmp_path / "ada.session")
    history: Messages = [ADA, answer.message, NAME]
    assert ask(pool, history, tenant="globex")[1].usage.cached_tokens == 0
    assert ask(pool, history, tenant="acme")[1].usage.cached_tokens > 8


def test_tenants_may_use_the_same_name(pool: SessionPool) -> None:
    for tenant in ("acme", "globex", ""):
        assert ask(pool, [ADA], "ada", tenant=tenant)[0] == "new"
    assert len(pool.llm.sessions) == 3
    pool.reset("ada", tenant="acme")
    assert len(pool.llm.sessions) == 2
    pool.reset_all(tenant="globex")
    assert pool.llm.sessions == ["ada"]
    assert ask(pool, [ADA], "ada")[0] == "rewrite"


@given(st.tuples(st.text("ab\x1f"), st.text("ab\x1e\x1f")), st.tuples(st.text("ab\x1f"), st.text("ab\x1e\x1f")))
def test_sessions_of_different_tenants_have_different_names(one: tuple[str, str], other: tuple[str, str]) -> None:
    names = [
        {ConversationKey(tenant, conversation).session_name(n) for conversation in (name, None) for n in (1, 2)}
        for tenant, name in (one, other)
    ]
    assert one[0] == other[0] or names[0].isdisjoint(names[1])


# -------------------- the end of a call


def test_a_cancelled_call_gives_its_session_back(pool: SessionPool) -> None:
    llm, story = pool.llm, [user("Tell me a story about a fox.")]
    with pool.lease(story, "ada") as lease:
        stream = llm.chat(story, session=lease.name, stream=True, **ENDLESS)
        next(stream)
        stream.close()
    assert stream.response.finish_reason == "cancelled"
    choice, answer = ask(pool, story, "ada")
    assert (choice, n_new(answer)) == ("rewrite", 1)
    assert llm.sessions == ["ada"]


def test_a_cancelled_task_gives_its_session_back(pool: SessionPool) -> None:
    llm, story = pool.llm, [user("Tell me a story about a fox.")]

    async def answer(began: asyncio.Event) -> None:
        async with pool.lease(story, "ada") as lease:
            async for _ in llm.astream_chat(story, session=lease.name, **ENDLESS):
                began.set()

    async def main() -> None:
        began = asyncio.Event()
        task = asyncio.create_task(answer(began))
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    choice, again = ask(pool, story, "ada")
    assert (choice, n_new(again)) == ("rewrite", 1)
    assert llm.sessions == ["ada"]


@pytest.mark.parametrize(
    ("messages", "options", "error"),
    [
        ([ADA, {"role": "poet", "content": "Roses are red."}], {}, MessageError),
        ([ADA, {"role": "assistant", "content": "", "tool_calls": 7}], {}, MessageError),
        ([ADA, "What is my name?"], {}, MessageError),
        ([ADA, user("Tell me more. " * 400)], {"n_ctx": 256}, ContextSizeError),
    ],
    ids=["role", "calls", "text", "length"],
)
def test_a_call_that_fails_gives_its_session_back(
    pool: SessionPool, messages: Messages, options: dict[str, Any], error: type[Exception]
) -> None:
    _, first = ask(pool, [ADA], "ada")
    with pytest.raises(error):
        ask(pool, messages, "ada", options=options)
    choice, answer = ask(pool, [ADA, first.message, NAME], "ada")
    assert (choice, answer.text) == ("rewrite", "Your name is Ada.")
    assert pool.llm.sessions == ["ada"]


def test_a_conversation_is_reset_while_it_generates(pool: SessionPool) -> None:
    llm, story = pool.llm, [user("Tell me a story about a fox.")]
    with pool.lease(story, "ada") as lease:
        stream = llm.chat(story, session=lease.name, stream=True, **ENDLESS)
        next(stream)
        pool.reset("ada")
        assert stream.read().finish_reason == "cancelled"
    assert llm.sessions == []
    assert ask(pool, story, "ada")[0] == "new"


def test_a_lease_is_used_once(pool: SessionPool) -> None:
    lease = pool.lease([ADA], "ada")
    assert (lease.name, repr(lease)) == (None, "<SessionLease None, none>")
    with lease:
        assert repr(lease) == "<SessionLease 'ada', new>"
    with pytest.raises(SessionError, match="used before"), lease:
        pass
    assert ask(pool, [ADA], "ada")[0] == "new", "the first lease made no call"


# -------------------- limits


def test_the_idle_histories_of_a_conversation_are_limited(llm: LLM) -> None:
    pool = SessionPool(llm, max_idle=3)
    kept: Messages = [system("You are a pirate."), ADA]
    for _ in range(2):
        _, answer = ask(pool, kept, "ada")
        kept += [answer.message, NAME]
    for hour in range(6):
        ask(pool, [system(f"It is {hour} o'clock."), ADA], "ada")
    assert len(llm.sessions) == 3
    assert ask(pool, kept, "ada")[0] == "continue", "a history that was continued is kept longest"


def test_a_history_that_the_model_has_forgotten_begins_again() -> None:
    with LLM(temperature=0, n_threads=1, max_sessions=3) as llm:
        pool = SessionPool(llm)
        for i in range(20):
            ask(pool, [ADA], f"visitor {i}")
        assert len(llm.sessions) == 3
        assert ask(pool, [ADA], "visitor 19")[0] == "rewrite"
        assert ask(pool, [ADA], "visitor 0")[0] == "new"
        assert repr(pool) == "<SessionPool of 'tiny-chat', 9 conversations>"


def test_where_all_sessions_are_in_use_a_call_is_answered_without_one() -> None:
    with LLM(temperature=0, n_threads=1, max_sessions=1) as llm:
        held = llm.session("mine")
        assert ask(SessionPool(llm), [CAPITAL], "ada")[1].text == "The capital of France is Paris."
        assert llm.sessions == [held.name]
        with SessionPool(llm).stateless() as lease, pytest.raises(SessionError):
            lease.hand_over(lambda session: llm.session("another"))


def test_all_pools_of_a_model_know_the_same_conversations(pool: SessionPool) -> None:
    _, answer = ask(pool, [ADA], "ada")
    other = SessionPool(pool.llm)
    assert ask(other, [ADA, answer.message, NAME], "ada")[0] == "continue"
    own = pool.llm.session("own")
    own("Once upon a time", max_tokens=2)
    other.reset_all()
    assert pool.llm.sessions == ["own"]


def test_a_pool_keeps_no_model_alive_by_what_it_remembers() -> None:
    llm = LLM(temperature=0, n_threads=1)
    ask(SessionPool(llm), [ADA], "ada")
    llm.close()
    gone = weakref.ref(llm)
    del llm
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        ({"conversation": 7}, ConfigTypeError, "conversation is a str, not int: 7"),
        ({"tenant": None}, ConfigTypeError, "tenant is a str, not NoneType"),
        ({"namespace": b"agent"}, ConfigTypeError, "namespace is a str, not bytes"),
        ({"conversation": ""}, ConfigError, "pass a name, or None"),
        ({"tenant": "a\x1eb"}, ConfigError, "U\\+001E"),
    ],
)
def test_wrong_names_are_refused(llm: LLM, arguments: dict[str, Any], error: type[Exception], hint: str) -> None:
    with pytest.raises(error, match=hint):
        SessionPool(llm).lease([ADA], **arguments)


@pytest.mark.parametrize("name", ["max_idle", "max_unnamed"])
def test_a_negative_limit_is_refused(llm: LLM, name: str) -> None:
    limits: dict[str, Any] = {name: -1}
    with pytest.raises(ConfigError, match=f"{name} is 0 or more sessions, not -1"):
        SessionPool(llm, **limits)


# -------------------- anything in any order


@pytest.mark.parametrize("named", [True, False], ids=["named", "unnamed"])
def test_whatever_was_chosen_the_answers_are_those_of_a_cold_model(pool: SessionPool, named: bool) -> None:
    """The fixture compares every answer."""
    rng, choices = random.Random(11), []
    histories: list[Messages] = [[user(f"My name is {name}.")] for name in ("Ada", "Ben", "Cleo")]
    questions = [NAME, CAPITAL, user("Say the word owl three times."), user("Hello!")]
    for _ in range(40):
        i = rng.randrange(len(histories))
        history, tenant = histories[i], ("acme", "globex")[i % 2]
        if len(history) > 2 and rng.random() < 0.4:  # go back, and ask something else
            del history[rng.randrange(1, len(history), 2) :]
            history += [{"role": "assistant", "content": "I see."}] if len(history) % 2 else []
            history.append(rng.choice(questions))
        choice, answer = ask(
            pool, history, f"chat {i}" if named else None, tenant=tenant, options={"max_tokens": rng.choice([3, 12])}
        )
        choices.append(choice)
        if rng.random() < 0.8:
            history += [answer.message, rng.choice(questions)]
    assert {"new", "continue", "rewrite"} | (set() if named else {"fork"}) <= set(choices)


@pytest.mark.parametrize("module", [session_pool], ids=["session_pool"])
def test_its_examples_print_what_they_show(module: ModuleType) -> None:
    failed, attempted = doctest.testmod(module)
    assert (failed, attempted > 20) == (0, True)
