"""llama.cpp's log as records of the logger "cyllama.llama"."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cyllama.llama.llama_cpp import LlamaBatch, LlamaContext, LlamaModel, refresh_log_level


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("cyllama.llama")
    yield logger
    logger.setLevel(logging.NOTSET)
    refresh_log_level()


def test_a_load_is_silent_by_default(tiny_chat: Path, caplog: pytest.LogCaptureFixture, logger: logging.Logger):
    LlamaModel(tiny_chat).close()
    assert caplog.records == []


def test_the_level_is_read_at_the_next_load(tiny_chat: Path, caplog: pytest.LogCaptureFixture, logger: logging.Logger):
    logger.setLevel(logging.INFO)
    with LlamaModel(tiny_chat) as model:
        assert {record.levelno for record in caplog.records} >= {logging.INFO}
        assert {record.levelno for record in caplog.records}.isdisjoint({logging.DEBUG})
        assert any("general.architecture" in record.getMessage() for record in caplog.records)
        assert all(record.name == "cyllama.llama" and "\n" not in record.getMessage() for record in caplog.records)
        logger.setLevel(logging.ERROR)
        caplog.clear()
        LlamaContext(model).close()
    assert caplog.records == []


def test_nothing_is_ever_written_to_stderr(in_process: Callable[..., str]):
    code = """
logging.getLogger("cyllama.llama").setLevel(logging.DEBUG)
logging.getLogger("cyllama.llama").addHandler(logging.NullHandler())
model = load()
context = LlamaContext(model, params())
context.decode(batch_of())
raised(context.decode, batch_of())
print("fine")
"""
    assert in_process(code) == "fine\n"


def test_errors_are_records_and_part_of_the_exception(
    new_context: Callable[..., LlamaContext],
    batch_of: Callable[..., LlamaBatch],
    caplog: pytest.LogCaptureFixture,
):
    context = new_context()
    context.decode(batch_of())
    caplog.clear()
    with pytest.raises(ValueError, match=r"remain consecutive.*Last position by sequence: \{0: 2\}"):
        context.decode(batch_of([1], 7))
    assert any(record.levelno == logging.ERROR and "consecutive" in record.getMessage() for record in caplog.records)


def test_percent_signs_are_text(caplog: pytest.LogCaptureFixture, tmp_path: Path):
    path = tmp_path / "%s%d%n.gguf"
    path.write_bytes(b"GGUF" + bytes(20))
    with pytest.raises(RuntimeError, match="%s%d%n"):
        LlamaModel(path)
    assert any("%s%d%n" in record.getMessage() for record in caplog.records)


def test_a_handler_may_use_what_logs(
    model: LlamaModel, new_context: Callable[..., LlamaContext], batch_of: Callable, logger: logging.Logger
):
    context = new_context()
    seen: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if len(seen) < 50:
                seen.append(record.getMessage())
                context.kv_cache_clear()
                context.decode(batch_of())
                LlamaContext(model).close()

    handler = Handler()
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        new_context().close()
    finally:
        logger.removeHandler(handler)
    assert len(seen) == 50
    assert context.seq_pos_max(0) == 2


def test_what_a_handler_raises_does_not_disturb(in_process: Callable[..., str]):
    code = """
class Handler(logging.Handler):
    def emit(self, record):
        raise KeyError("handler")
logger, unraisable = logging.getLogger("cyllama.llama"), []
sys.unraisablehook = lambda what: unraisable.append(type(what.exc_value).__name__)
logger.addHandler(Handler())
logger.setLevel(logging.DEBUG)
context = LlamaContext(load(), params())
print(context.decode(batch_of()), raised(context.decode, batch_of([-5])), set(unraisable))
"""
    assert (
        in_process(code) == "0 ValueError: token id -5 is out of range: the vocabulary has ids 0 to 1279 {'KeyError'}\n"
    )


def test_a_handler_may_wait_for_a_thread_that_waits_for_the_context(in_process: Callable[..., str]):
    """As handlers do that lock, while another thread within the same lock uses the context that is logging."""
    code = """
import logging
lock, locked, inside = threading.RLock(), threading.Event(), threading.Event()
context = LlamaContext(load(), params())
class Handler(logging.Handler):
    def emit(self, record):
        inside.set()
        with lock:
            pass
logging.getLogger("cyllama.llama").addHandler(Handler())
logging.getLogger("cyllama.llama").setLevel(logging.DEBUG)
refresh_log_level()
def other():
    with lock:
        locked.set()
        inside.wait()
        for i in range(100):
            context.n_ctx
thread = threading.Thread(target=other)
thread.start()
locked.wait()
for i in range(100):
    raised(context.decode, batch_of([1], 7))
thread.join()
print("fine")
"""
    assert in_process(code) == "fine\n"
