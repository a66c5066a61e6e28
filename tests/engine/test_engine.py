"""The engine from inside: what it records agrees with llama.cpp, and a failure costs one generation only."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from cyllama import LLM, DecodeError
from cyllama.engine import Engine
from cyllama.engine.kv_cache import KVCache
from cyllama.engine.scheduler import Scheduler
from cyllama.llama.llama_cpp import LlamaContext, LlamaContextParams

from ..support.harness import ENDLESS, engine_of, in_threads, settled, together

STORY = "<|im_start|>user\nTell me a story about a fox.<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Check what is recorded after every step; return how many cells are used."""
    cells: list[int] = []
    step = Engine._step

    def checked_step(self: Engine) -> None:
        step(self)
        self._kv_cache.check_integrity()
        cells.append(self._kv_cache.used_cells)

    monkeypatch.setattr(Engine, "_step", checked_step)
    return cells


def test_what_is_recorded_agrees_with_llama_cpp_after_every_step(llm: LLM, checked: list[int]):
    response = llm(STORY, n_batch=5, max_tokens=20)
    n_prompt = response.usage.prompt_tokens
    chunks = [min(5 * (i + 1), n_prompt) for i in range(-(-n_prompt // 5))]
    settled(llm)  # the last step hands over the answer before it ends
    assert checked == [*chunks, *range(n_prompt + 1, n_prompt + 19), 0]


def test_a_reused_context_starts_empty(llm: LLM, checked: list[int]):
    for _ in range(2):
        llm(STORY, max_tokens=5)
        settled(llm)
    half = len(checked) // 2
    assert checked[:half] == checked[half:]


def test_a_wrong_record_is_noticed(llm: LLM):
    params = LlamaContextParams()
    params.n_ctx, params.n_seq_max, params.kv_unified = 256, 2, True
    with LlamaContext(llm.model, params) as context:
        kv_cache = KVCache(llm.model, host_bytes_max=0, idle_cells_max=512)
        kv_cache.attach(context)
        kv_cache.check_integrity()
        lease = kv_cache.open([1, 2, 3], None, scope=None)
        kv_cache.append(lease.sequence, [1, 2])
        with pytest.raises(AssertionError, match="2 tokens are recorded, but the last position is -1"):
            kv_cache.check_integrity()


@pytest.mark.parametrize("session", [None, "ada"])
def test_a_failure_before_a_request_has_started_gives_its_sequence_back(
    llm: LLM, monkeypatch: pytest.MonkeyPatch, session: str | None
):
    llm(STORY, session=session, max_tokens=5)

    def fail(*_: object) -> None:
        raise RuntimeError("it cannot start")

    with monkeypatch.context() as patch:
        patch.setattr(Scheduler, "start", fail)
        with pytest.raises(DecodeError, match="it cannot start"):
            llm(STORY, session=session, max_tokens=5)
    engine_of(llm).check_integrity()
    assert llm(STORY, session=session, max_tokens=5).finish_reason == "length"


def test_a_failure_while_decoding_keeps_the_text_so_far_and_ends_one_generation_only(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
):
    """The failure is a real one: the context is closed under the engine, as no caller should."""
    expected = llm(STORY, max_tokens=30)
    step = Engine._step

    def sabotaged_step(self: Engine) -> None:
        [request] = self._scheduler.running
        if len(request.tokens) == 10:
            assert self._context.context is not None
            self._context.context.close()
        step(self)

    monkeypatch.setattr(Engine, "_step", sabotaged_step)
    with pytest.raises(DecodeError, match="failed after 10 tokens: the context is closed") as caught:
        llm(STORY, max_tokens=30)
    assert 0 < len(caught.value.partial_text) < len(expected)
    assert expected.startswith(caught.value.partial_text)
    stream = llm(STORY, max_tokens=30, stream=True)
    with pytest.raises(DecodeError):
        list(stream)
    assert stream.response == caught.value.partial_text
    monkeypatch.undo()
    assert llm(STORY, max_tokens=30) == expected


def test_a_cancelled_generation_logs_no_error(llm: LLM, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.WARNING)
    for _ in range(20):
        with llm(STORY, stream=True, **ENDLESS) as stream:
            next(stream)
    assert caplog.messages == []


class FailingHandler(logging.Handler):
    """A log server is down, and the handler overrides ``emit`` without ``handleError``."""

    def emit(self, record: logging.LogRecord) -> None:
        raise ConnectionError(record.getMessage())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # how the binding reports it
def test_a_logging_handler_that_raises_ends_no_generation(tiny_chat: Path, capfd: pytest.CaptureFixture[str]):
    logger, handler = logging.getLogger("cyllama"), FailingHandler()
    before = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    try:
        with LLM(tiny_chat, n_threads=1, max_tokens=5, ignore_eos=True) as llm:
            for session in (None, "ada", None, "bob"):
                assert llm(STORY, session=session).finish_reason == "length"
            assert llm(STORY * 10, session="ada").finish_reason == "length", "in a larger context"
            assert len(llm.embed("Hello")) > 0
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
    assert "ConnectionError: created a context of" in capfd.readouterr().err


def test_llama_cpps_log_goes_to_pythons(tiny_chat: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "cyllama.llama")
    with LLM(tiny_chat) as llm:
        llm("Hi", max_tokens=1)
    text = "\n".join(caplog.messages)
    assert "general.name" in text
    assert "n_ctx" in text


def test_nothing_is_printed_unless_asked_for(capfd: pytest.CaptureFixture[str], tiny_chat: Path):
    with LLM(tiny_chat) as llm:
        llm("Hi", max_tokens=1, n_ctx=100)
    assert capfd.readouterr() == ("", "")


def test_verbose_shows_the_log_on_stderr(tiny_chat: Path):
    import subprocess
    import sys

    code = "from cyllama import LLM; LLM(verbose=True)('Hi', max_tokens=1)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert "cyllama.llama: " in result.stderr
    assert result.stdout == ""


def test_the_load_reports_its_progress(tiny_chat: Path):
    seen: list[float] = []
    LLM(tiny_chat, progress_callback=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_the_load_can_be_stopped(tiny_chat: Path):
    from cyllama import ModelLoadError

    def stop(_: float) -> Any:
        return False

    with pytest.raises(ModelLoadError, match="stopped by progress_callback"):
        LLM(tiny_chat, progress_callback=stop)


def test_conversations_that_share_a_context_are_no_reason_to_warn(llm: LLM, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.WARNING)
    together(llm, 4, lambda: in_threads([lambda: llm(STORY, n_ctx=1024, max_tokens=900)] * 4))
    assert llm.stats.n_ctx > llm.n_ctx_train
    assert caplog.messages == []
