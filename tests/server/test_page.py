"""The live page in a real browser: what a person does with it, with the engine behind it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cyllama.models import TINY_CHAT

from ..support.browser import NEEDS_BROWSER, SECONDS, running_browser, send, slow_network, wait_for_answer, wait_until
from ..support.server import ServerProcess
from ..support.vision import N_TOKENS, data_url, png, write_projector

pytestmark = NEEDS_BROWSER

EVIL = "<img src=x onerror=window.pwned=1><script>window.pwned=1</script>"
OpenPage = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with running_browser() as browser:
        yield browser


@pytest.fixture
def open_page(browser: Any, server: ServerProcess) -> Iterator[OpenPage]:
    """Return a function that opens the page as a new visitor; what the browser complains of fails the test."""
    complaints: list[str] = []
    contexts: list[Any] = []

    def open_page(url: str = server.url, *, connected: bool = True, **how: Any) -> Any:
        contexts.append(browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **how}))
        contexts[-1].set_default_timeout(1000 * SECONDS)
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.goto(url)
        if connected:
            page.locator("#connection[data-state=ok]").wait_for()
            page.locator("#send:enabled").wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [text for text in complaints if "Failed to load resource" not in text] == []


@pytest.fixture
def page(open_page: OpenPage) -> Any:
    return open_page()


def change_requests(page: Any, **fields: Any) -> list[dict[str, Any]]:
    """Add fields to the requests of a page that have no control there; return the requests, as they come."""
    bodies: list[dict[str, Any]] = []

    def change(route: Any) -> None:
        bodies.append(route.request.post_data_json | fields)
        route.continue_(post_data=json.dumps(bodies[-1]))

    page.route("**/v1/chat/completions", change)
    return bodies


def session_of(server: ServerProcess, page: Any) -> dict[str, Any]:
    """Return what the server knows of the session of the chat that is shown."""
    name = page.url.partition("#")[2]
    [model] = server.http.get("/live/state").json()["models"]
    return next(each for each in model["sessions"] if each["conversation"] == name)


#: The browser has kept a part of an answer.
KEPT = r"""Object.values(localStorage).some((text) => /"content":"([^"\\]|\\.){20,}","busy"/.test(text))"""


def figures(page: Any) -> str:
    return page.locator(".message footer").last.inner_text()


# --- a chat


def test_an_answer_is_streamed_and_the_next_message_continues_its_session(page: Any, server: ServerProcess):
    send(page, "My name is Ada.")
    first = wait_for_answer(page)
    send(page, "What is my name?")
    second = wait_for_answer(page, 2)
    assert first
    assert second
    session = session_of(server, page)
    assert (session["requests"], session["running"]) == (2, 0)
    cached, prompt = map(int, re.findall(r"(\d+) of (\d+) prompt tokens cached", figures(page))[0])
    assert 0 < cached < prompt < session["tokens"]
    assert page.locator("#chat-title").inner_text() == "My name is Ada."


def test_pieces_of_an_answer_are_seen_before_its_end_and_it_can_be_stopped(page: Any, server: ServerProcess):
    change_requests(page, ignore_eos=True)
    with slow_network(page):
        send(page, "Tell me a story.")
        page.locator(".message[data-busy] .body", has_text=re.compile(".{20}")).wait_for()
        assert page.locator("#messages").get_attribute("aria-busy") == "true"
        page.locator("#stop").click()
    text = wait_for_answer(page)
    assert re.search("Stopped|The connection ended", figures(page))
    server.wait_for("cyllama_running", 0)
    page.unroute_all()
    send(page, "And then?")
    wait_for_answer(page, 2)
    assert page.locator(".message[data-role=assistant] .body").first.inner_text() == text


def test_a_fork_goes_on_by_itself_from_the_same_cells(page: Any, server: ServerProcess):
    for n, text in enumerate(("My name is Ada.", "What is my name?"), 1):
        send(page, text)
        wait_for_answer(page, n)
    source = page.url
    page.get_by_role("button", name="Fork from here").first.click()
    page.wait_for_url(lambda url: url != source)
    assert page.locator(".message").count() == 2
    send(page, "Who am I?")
    wait_for_answer(page, 2)
    assert session_of(server, page)["shared_cells"] > 0
    titles = page.locator("#chat-list .title").all_inner_texts()
    assert titles == ["Fork: My name is Ada.", "My name is Ada."]
    page.locator("#chat-list button").last.click()
    assert page.url == source
    assert page.locator(".message").count() == 4


def test_chats_survive_a_reload_also_an_answer_that_was_not_complete(page: Any, server: ServerProcess):
    send(page, "What is the capital of France?")
    answer = wait_for_answer(page)
    page.reload()
    page.locator("#send:enabled").wait_for()
    assert wait_for_answer(page) == answer
    change_requests(page, ignore_eos=True)
    with slow_network(page):
        send(page, "Tell me a story.")
        wait_until(page, KEPT)
        page.reload()
    page.locator("#send:enabled").wait_for()
    assert page.locator(".message").count() == 4
    assert re.search("Stopped|The connection ended", figures(page))
    server.wait_for("cyllama_running", 0)


def test_a_chat_can_be_deleted_here_and_on_the_server(page: Any, server: ServerProcess):
    send(page, "Hello")
    wait_for_answer(page)
    name = page.url.partition("#")[2]
    page.locator("#delete-chat").click()
    page.get_by_role("button", name="Keep it").click()
    assert page.locator(".message").count() == 2
    page.locator("#delete-chat").click()
    with page.expect_response(lambda response: response.request.method == "DELETE"):
        page.locator("#confirm-dialog").get_by_role("button", name="Delete").click()
    assert page.locator(".message").count() == page.locator("#chat-list button").count() == 0
    assert server.http.get(f"/v1/sessions/{name}").status_code == 404


def test_an_error_is_shown_and_tried_again(page: Any):
    page.route("**/v1/chat/completions", lambda route: route.abort())
    send(page, "Hello")
    page.get_by_role("alert").wait_for()
    assert "does not answer" in page.get_by_role("alert").inner_text()
    page.unroute_all()
    page.get_by_role("button", name="Try again").click()
    assert wait_for_answer(page)
    assert page.get_by_role("alert").count() == 0


# --- settings


def test_an_answer_can_be_json_by_a_schema(page: Any):
    page.locator(".views").get_by_role("button", name="Settings").click()
    page.locator("[name=format]").select_option("schema")
    page.locator("[name=schema]").fill("{")
    assert page.locator("#send").is_disabled()
    assert page.locator("[name=schema]").get_attribute("aria-invalid") == "true"
    assert "Not valid JSON" in page.locator("#schema-error").inner_text()
    page.locator("[name=schema]").fill('{"enum": ["yes", "no"]}')
    page.get_by_label("Seed").fill("1")
    send(page, "Is Paris in France?")
    assert json.loads(wait_for_answer(page)) in ("yes", "no")
    page.reload()
    assert page.locator("[name=schema]").input_value() == '{"enum": ["yes", "no"]}'


def test_a_tool_is_called_and_a_person_says_its_result(page: Any):
    parameters = {"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"]}
    tool = {"type": "function", "function": {"name": "weather", "description": "The weather", "parameters": parameters}}
    page.locator(".views").get_by_role("button", name="Settings").click()
    page.locator("[name=tools]").fill(json.dumps([tool]))
    bodies = change_requests(page, tool_choice="required")
    send(page, "How is the weather in Rome?")
    wait_for_answer(page)
    call = page.locator(".call").first
    assert call.locator("h4").inner_text() == "weather"
    assert json.loads(call.locator("pre").inner_text())["city"] in ("Rome", "Oslo")
    page.unroute_all()
    bodies = change_requests(page, tool_choice="none")
    for field in page.get_by_label("Result of weather").all():
        field.fill("sunny")
    page.get_by_role("button", name="Send the results").click()
    wait_for_answer(page, 2)
    sent = [message["role"] for message in bodies[0]["messages"]]
    assert sent == ["user", "assistant", *["tool"] * page.locator(".message[data-role=tool]").count()]
    assert bodies[0]["messages"][2]["content"] == "sunny"
    assert bodies[0]["messages"][2]["tool_call_id"] == bodies[0]["messages"][1]["tool_calls"][0]["id"]


@pytest.fixture
def seeing(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server whose model reads images."""
    projector = write_projector(tmp_path / "mmproj.gguf")
    with ServerProcess("--model", f"eyes={TINY_CHAT}", "--option", f"projector={projector}") as server:
        yield server


def test_images_are_offered_only_where_the_model_reads_them(open_page: OpenPage, seeing: ServerProcess):
    assert open_page().locator("#image-label").is_hidden()
    page = open_page(seeing.url)
    page.locator("#image-label").wait_for()
    bodies = change_requests(page, max_tokens=8, temperature=0)
    for name, color in (("red.png", "red"), ("blue.png", "blue")):
        page.locator("#image").set_input_files({"name": name, "mimeType": "image/png", "buffer": png(color)})
    page.locator("#images img").nth(1).wait_for()
    send(page, "What is this?")
    wait_for_answer(page)
    assert page.locator(".message[data-role=user] img").count() == 2
    assert page.get_by_role("alert").count() == 0
    text, *images = bodies[0]["messages"][0]["content"]
    assert text == {"type": "text", "text": "What is this?"}
    assert {image["image_url"]["url"] for image in images} == {data_url("red"), data_url("blue")}
    send(page, "And why?")
    wait_for_answer(page, 2)
    assert seeing.metric("cyllama_cached_tokens_total") > 2 * N_TOKENS


# --- the engine


def test_the_engine_shows_sessions_cells_and_rates(page: Any, server: ServerProcess):
    send(page, "Hello from the page")
    wait_for_answer(page)
    row = page.locator(".sessions tbody tr", has_text="Hello from the page")
    row.locator(".idle").wait_for()
    session = session_of(server, page)
    assert row.locator(".number").inner_text().replace(",", "") == str(session["tokens"])
    assert "context" in row.inner_text()
    colour = row.locator(".dot path").get_attribute("class")
    assert page.locator(f".map path.{colour}").get_attribute("d")
    assert re.match(r"[\d,]+ of [\d,]+ cells are in use", page.locator(".map").get_attribute("aria-label"))
    labels = [plot.get_attribute("aria-label") for plot in page.locator(".plot svg").all()]
    assert [label.partition(" over")[0] for label in labels] == [
        "Tokens per second",
        "Requests",
        "Prompts cached",
        "Memory",
    ]
    n_points = "(document.querySelector('.plot .line0')?.getAttribute('d') ?? '').split('L').length"
    wait_until(page, f"{n_points} > 2")
    before = page.evaluate(n_points)
    page.reload()  # the minutes before are not lost
    wait_until(page, f"{n_points} > {before}")


def test_a_lost_server_is_said_and_found_again(page: Any):
    page.route("**/live/state", lambda route: route.abort())
    page.locator("#connection", has_text="No connection").wait_for()
    page.unroute_all()
    page.locator("#connection", has_text="Connected").wait_for()


# --- keys


@pytest.fixture(scope="module")
def locked() -> Iterator[ServerProcess]:
    with ServerProcess("--api-key", "key-of-ada", "--api-key", "key-of-ben", "--admin-key", "key-of-admin") as server:
        yield server


def enter(page: Any, key: str) -> None:
    page.locator("#key-dialog").wait_for()
    page.locator("#key").fill(key)
    page.keyboard.press("Enter")


def test_a_key_is_asked_for_and_kept_in_the_tab_alone(open_page: OpenPage, locked: ServerProcess):
    page = open_page(locked.url, connected=False)
    enter(page, "key-of-nobody")
    page.locator("#key-text", has_text="does not know that key").wait_for()
    enter(page, "key-of-ada")
    page.locator("#send:enabled").wait_for()
    send(page, "Hello")
    wait_for_answer(page)
    page.locator("#scope", has_text="of this key").wait_for()
    page.locator(".sessions tbody tr").wait_for()  # a single one
    assert page.locator(".plot").last.is_hidden()  # the memory of all
    stored = page.evaluate("[JSON.stringify(localStorage), document.cookie, sessionStorage.getItem('cyllama.key')]")
    assert ("key-of-ada" in stored[0], stored[1], stored[2]) == (False, "", "key-of-ada")
    page.reload()
    page.locator("#send:enabled").wait_for()
    assert page.locator("#key-dialog").is_hidden()


def test_the_key_of_the_operator_sees_all_and_does_not_chat(open_page: OpenPage, locked: ServerProcess):
    asked = {"messages": [{"role": "user", "content": "Hello"}], "session_id": "private name", "max_tokens": 4}
    locked.http.post("/v1/chat/completions", json=asked, headers={"x-api-key": "key-of-ben"}).raise_for_status()
    page = open_page(locked.url, connected=False)
    enter(page, "key-of-admin")
    page.locator(".sessions tbody tr").first.wait_for()
    assert "private name" not in page.locator("#engine").inner_text()
    page.locator("#prompt-help", has_text="This key cannot chat").wait_for()
    assert page.locator("#send").is_disabled()


def test_a_person_without_a_key_is_asked_once(open_page: OpenPage, locked: ServerProcess):
    page = open_page(locked.url, connected=False)
    page.locator("#key-dialog").wait_for()
    page.keyboard.press("Escape")
    page.locator("#connection", has_text="A key is needed").wait_for()
    with page.expect_response("**/live/state"):
        pass
    assert page.locator("#key-dialog").is_hidden()


# --- texts that would be markup


def test_markup_of_models_messages_and_names_stays_text(open_page: OpenPage):
    name = "<script>alert(1)</script>"
    with ServerProcess("--model", f"{name}={TINY_CHAT}") as server:
        asked = {"messages": [{"role": "user", "content": "Hello"}], "session_id": EVIL, "max_tokens": 4}
        server.http.post("/v1/chat/completions", json=asked).raise_for_status()
        page = open_page(server.url)
        page.locator(".views").get_by_role("button", name="Settings").click()
        page.locator("[name=format]").select_option("schema")
        page.locator("[name=schema]").fill(json.dumps({"const": f"{EVIL}\n```\n{EVIL}\n```\n* **{EVIL}**"}))
        send(page, EVIL)
        assert EVIL in json.loads(wait_for_answer(page))
        page.locator(".views").get_by_role("button", name="Engine").click()
        page.locator(".sessions tbody tr").nth(1).wait_for()
        shown = page.locator("body").inner_text()
        assert shown.count(EVIL) >= 4  # title, message, answer, session
        assert name in shown
        found = "[window.pwned, document.querySelectorAll('script:not([src]), img[src=x], [onerror]').length]"
        assert page.evaluate(found) == [None, 0]
        assert page.evaluate("document.querySelectorAll('.message h3')[1].textContent") == name


def test_the_policy_stops_a_script_that_got_in(open_page: OpenPage, browser: Any, server: ServerProcess):
    page = browser.new_context().new_page()
    page.goto(server.url)
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.pwned=1\">')")
    wait_until(page, "[...document.images].every((image) => image.complete)")
    assert page.evaluate("window.pwned") is None
    page.context.close()


# --- people and screens


def test_all_of_it_works_with_the_keyboard(page: Any):
    page.locator("body").press("Tab")
    page.reload()
    page.locator("#send:enabled").wait_for()
    assert page.evaluate("document.activeElement.id") == "prompt"
    page.keyboard.type("One")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("Two")
    assert page.locator("#prompt").input_value() == "One\nTwo"
    page.keyboard.press("Enter")
    wait_for_answer(page)
    change_requests(page, ignore_eos=True)
    with slow_network(page):
        page.keyboard.type("Tell me a story.")
        page.keyboard.press("Enter")
        page.locator(".message[data-busy]").wait_for()
        page.keyboard.press("Escape")
    page.locator("#send").wait_for()
    page.locator(".skip").focus()
    order = []
    for _ in range(40):
        page.keyboard.press("Tab")
        order.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
    wanted = ["Engine", "new-chat", "fork-chat", "messages", "Fork from here", "prompt", "model", "send"]
    places = [order.index(name) for name in wanted]
    assert places == sorted(places), order
    page.locator("#chat-list button").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "prompt"


def test_every_control_has_a_name_and_focus_is_seen(page: Any):
    send(page, "Hello")
    wait_for_answer(page)
    nameless = page.evaluate("""() => [...document.querySelectorAll('button, input, select, textarea')].filter((each) =>
        !(each.labels?.length || each.ariaLabel || each.textContent.trim())).map((each) => each.outerHTML)""")
    assert nameless == []
    for name in ("#prompt", "#send", "#new-chat", "#messages"):
        page.keyboard.press("Tab")
        page.locator(name).focus()
        style = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert style == "solid", name
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map((each) => Number(each.tagName[1]))")
    assert levels[0] == 1
    assert page.locator("#messages").get_attribute("aria-busy") == "false"
    assert page.locator("#announce").inner_text() == "The answer is complete."


#: The controls that are cut, or too low for a finger.
CUT = """() => [...document.querySelectorAll('button, select, textarea, input:not([type=file])')]
    .filter((each) => each.checkVisibility())
    .map((each) => [each.id || each.textContent, each.getBoundingClientRect()])
    .filter(([, box]) => box.left < 0 || box.right > innerWidth || box.height < 24)
    .map(([name]) => name)"""


@pytest.mark.parametrize("width", [360, *(pytest.param(n, marks=pytest.mark.slow) for n in (700, 900, 1180, 1600))])
def test_nothing_is_cut_at_any_width(open_page: OpenPage, width: int):
    page = open_page(viewport={"width": width, "height": 640})
    send(page, "A " + "longword" * 30)
    wait_for_answer(page)
    for view in page.locator(".views button:visible").all():
        view.click()
        assert view.get_attribute("aria-pressed") == "true"
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(CUT) == []
    assert page.locator(".views button[aria-pressed=true]:visible").count() == 1


def luminance(colour: str) -> float:
    parts = [int(each) / 255 for each in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


#: Of each element with a text: itself, the colour of the text, and the one behind it.
COLOURS = """() => [...document.querySelectorAll('body *')]
    .filter((each) => each.checkVisibility() && !each.disabled)
    .filter((each) => [...each.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))
    .map((each) => {
      let back = each;
      while (getComputedStyle(back).backgroundColor === 'rgba(0, 0, 0, 0)') back = back.parentElement;
      return [each.outerHTML.slice(0, 80), getComputedStyle(each).color, getComputedStyle(back).backgroundColor];
    })"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read_in_the_light_and_in_the_dark(open_page: OpenPage, scheme: str):
    page = open_page(color_scheme=scheme)
    send(page, "Hello `code`")
    wait_for_answer(page)
    page.locator(".sessions td").first.wait_for()
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (luminance(back) < 0.1) == (scheme == "dark")
    pairs = page.evaluate(COLOURS)
    assert len(pairs) > 20
    low = []
    for text, *colours in pairs:
        dark, light = sorted(map(luminance, colours))
        if (light + 0.05) / (dark + 0.05) < 4.5:
            low.append((text, *colours))
    assert low == []


def test_nothing_moves_for_those_who_ask_for_that(open_page: OpenPage):
    page = open_page(reduced_motion="reduce")
    change_requests(page, ignore_eos=True)
    with slow_network(page):
        send(page, "Tell me a story.")
        page.locator(".message[data-busy]").wait_for()
        moving = page.evaluate("document.getAnimations().length")
        page.keyboard.press("Escape")
    assert moving == 0
