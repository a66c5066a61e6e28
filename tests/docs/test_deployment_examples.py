"""The examples of the guide to deployment: a web server under load, gunicorn, Docker, processes, a notebook."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import httpx
import pytest
import uvicorn

from ..support.harness import held
from ..support.notebooks import code_cells, run_cells
from ..support.pages import DOCS
from ..support.programs import EXAMPLES, one_core, run
from ..support.source_tree import ROOT

FOLDER = EXAMPLES / "deployment"
GUNICORN = ["--preload", "-w", "2", "-k", "uvicorn_worker.UvicornWorker", "web:app"]
FRANCE = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0}
STORY = {"messages": [{"role": "user", "content": "Tell me a story about a fox."}], "max_tokens": 200}


def test_every_example_is_tested():
    assert {path.name for path in FOLDER.iterdir() if path.is_file()} == {
        "Dockerfile",
        "Dockerfile.dockerignore",
        "notebook.ipynb",
        "processes.py",
        "web.py",
    }


# -------------------- FastAPI


@contextmanager
def serving(app: Any) -> Iterator[httpx.Client]:
    """Serve an app on a free port; yield a client of it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none"))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
        thread.start()
        try:
            while not server.started and thread.is_alive():
                threading.Event().wait(0.005)
            with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=None) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.delenv("MODEL", raising=False)
    monkeypatch.setenv("MAX_WAITING", "2")
    spec = importlib.util.spec_from_file_location("web", FOLDER / "web.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "web", module)
    spec.loader.exec_module(module)
    return module


def events_of(response: httpx.Response) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("data: ")) for line in response.text.split("\n\n") if line]


def test_a_web_server_answers_at_once_and_in_pieces(web: ModuleType):
    with serving(web.app) as client:
        answer = client.post("/chat", json=FRANCE)
        assert answer.json() == {
            "message": {"role": "assistant", "content": "The capital of France is Paris."},
            "finish_reason": "stop",
        }
        stream = client.post("/chat/stream", json=FRANCE)
        assert stream.headers["content-type"].startswith("text/event-stream")
        *deltas, last = events_of(stream)
        assert "".join(delta["content"] for delta in deltas) == "The capital of France is Paris."
        assert len(deltas) > 3
        assert last == {"finish_reason": "stop"}
        assert client.get("/health").json() == {"running": 0, "waiting": 0}


def test_what_a_client_does_wrong_is_told_with_400(web: ModuleType):
    with serving(web.app) as client:
        for path in ("/chat", "/chat/stream"):
            answer = client.post(path, json={"messages": [{"role": "robot", "content": "Hello"}]})
            assert answer.status_code == 400
            assert "unknown role 'robot'" in answer.json()["error"]


def test_more_clients_than_have_a_place_are_refused_at_once_and_the_others_are_answered(web: ModuleType):
    with serving(web.app) as client, ThreadPoolExecutor(10) as pool:
        llm = web.app.state.llm
        with held(llm):  # nothing ends meanwhile
            answers = [pool.submit(client.post, "/chat", json=FRANCE) for _ in range(10)]
            while llm.stats.waiting < 10:
                threading.Event().wait(0.005)
            for path in ("/chat", "/chat/stream"):
                refused = client.post(path, json=FRANCE)
                assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
                assert "max_waiting=2" in refused.json()["error"]
        assert [answer.result().status_code for answer in answers] == [200] * 10
        assert client.post("/chat", json=FRANCE).status_code == 200


def test_a_generation_ends_when_its_client_leaves(web: ModuleType):
    with serving(web.app) as client:
        llm = web.app.state.llm
        with held(llm):  # what was asked for is not answered before the clients leave
            body, address = json.dumps(STORY).encode(), (client.base_url.host, client.base_url.port)
            head = f"HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            with socket.create_connection(address) as one, socket.create_connection(address) as other:
                one.sendall(f"POST /chat {head}".encode() + body)
                other.sendall(f"POST /chat/stream {head}".encode() + body)
                while llm.stats.waiting < 2:
                    threading.Event().wait(0.005)
            while llm._runtime.engine.n_unfinished:
                threading.Event().wait(0.005)
        assert client.post("/chat", json=FRANCE).status_code == 200
        assert llm.stats.tokens_generated < 20, "of the last answer alone"


def test_gunicorn_with_preload_loads_a_model_in_each_worker(tmp_path: Any):
    with socket.create_server(("127.0.0.1", 0)) as listener, one_core():
        os.set_inheritable(listener.fileno(), True)
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "--bind", f"fd://{listener.fileno()}", "--no-control-socket", *GUNICORN],
            cwd=FOLDER,
            env={name: value for name, value in os.environ.items() if name != "MODEL"} | {"HOME": str(tmp_path)},
            pass_fds=[listener.fileno()],
            stderr=subprocess.PIPE,
            text=True,
        )
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:  # if it does not start, the connection ends, since only it has the socket now
        statuses = [httpx.post(f"{url}/chat", json=FRANCE, timeout=None).status_code for _ in range(4)]
    except httpx.HTTPError as error:
        statuses = [repr(error)]
    finally:
        process.terminate()
        _, log = process.communicate()
    assert (statuses, process.returncode) == ([200] * 4, 0), log


def test_the_guide_shows_the_commands_that_are_tested():
    guide = (DOCS / "guides/deployment.md").read_text()
    commands = [line for block in re.findall(r"```sh\n(.*?)```", guide, re.DOTALL) for line in block.splitlines()]
    assert f"MODEL=model.gguf gunicorn {' '.join(GUNICORN)}" in commands
    head = " ".join((FOLDER / "Dockerfile").read_text().replace("#", " ").replace("\\", " ").split())
    docker = [" ".join(command.split()) for command in commands if command.startswith("docker")]
    assert len(docker) == 2
    assert all(command in head for command in docker)


# -------------------- Docker


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile, in order."""
    text = (FOLDER / "Dockerfile").read_text()
    lines = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines if line)]


def test_the_image_is_made_of_what_the_repository_has():
    found = instructions()
    known = {"FROM", "RUN", "COPY", "WORKDIR", "ENV", "EXPOSE", "HEALTHCHECK", "USER", "CMD"}
    assert {name for name, _ in found} <= known
    stages = [rest.split() for name, rest in found if name == "FROM"]
    assert stages[0][1:] == ["AS", "build"]
    assert len({stage[0] for stage in stages}) == 1, "a wheel runs where it was built"
    for source in (rest.split()[0] for name, rest in found if name == "COPY"):
        assert (ROOT / source).exists()


def test_the_container_runs_the_example_without_rights_of_root():
    last = dict(instructions())  # of each kind
    command = json.loads(last["CMD"])
    assert command[:2] == ["uvicorn", "web:app"]
    assert command[-1] == last["EXPOSE"] in last["HEALTHCHECK"]
    assert last["USER"] != "root"
    assert "/health" in last["HEALTHCHECK"]
    json.loads(last["HEALTHCHECK"].partition(" CMD ")[2])
    config = uvicorn.Config(command[1], host=command[3], port=int(command[5]))
    assert (config.host, config.port) == ("0.0.0.0", 8000)


# -------------------- processes and notebooks


def test_processes(tmp_path: Any):
    first, second, last = run("deployment/processes.py", tmp_path)
    assert (first, second) == ("The capital of France is Paris.", "3, 4, 5, 6, 7.")
    assert last.startswith("in a fork: this LLM was loaded before os.fork()")


async def test_notebook(capsys: pytest.CaptureFixture[str]):
    values = await run_cells(code_cells(FOLDER / "notebook.ipynb"))
    assert values == ["The capital of France is Paris.", None, ["length"] * 3, None, 0]
    assert capsys.readouterr().out == "3, 4, 5, 6, 7.Your name is Ada. 24\n"


def test_the_notebook_has_no_outputs_of_another_run():
    cells = json.loads((FOLDER / "notebook.ipynb").read_text())["cells"]
    assert all(cell["outputs"] == [] for cell in cells if cell["cell_type"] == "code")
