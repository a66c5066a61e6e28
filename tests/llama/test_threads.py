"""Many threads in one context, closing in the middle, processes that fork, and interpreters that exit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cyllama.llama.llama_cpp import LlamaContext, LlamaModel, LlamaSampler

from ..support.contexts import BatchOf, NewContext


def test_threads_in_one_context_take_turns(new_context: NewContext, batch_of: BatchOf, story: list[int]):
    context = new_context(n_seq_max=4, n_ctx=1024)
    alone = new_context()
    alone.decode(batch_of(story))
    expected = np.asarray(alone.get_logits_ith())

    def work(seq_id: int) -> int:
        token = -1
        for _ in range(10):
            context.seq_rm(seq_id)
            status, (token,), _ = context.decode_and_sample(
                batch_of(story, 0, seq_id), [(len(story) - 1, LlamaSampler.greedy())]
            )
            assert status == 0
        return token

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(work, range(4))) == {int(expected.argmax())}


def test_others_run_while_a_thread_computes(new_context: NewContext, batch_of: BatchOf):
    inside, go_on = threading.Event(), threading.Event()

    def wait() -> bool:
        inside.set()
        return not go_on.wait(60)

    context = new_context(abort_callback=wait)
    with ThreadPoolExecutor(2) as pool:
        decode = pool.submit(context.decode, batch_of())
        assert inside.wait(60)
        waiting = pool.submit(lambda: context.n_ctx)  # waits for the context, with the GIL released
        assert new_context().decode(batch_of()) == 0
        assert not waiting.done()
        go_on.set()
        assert decode.result() == 0
        assert waiting.result() == 256


def test_close_waits_for_a_decode(tiny_chat: Path, new_context: NewContext, batch_of: BatchOf):
    for closes_model in (True, False):
        model = LlamaModel(tiny_chat)
        inside, go_on = threading.Event(), threading.Event()

        def wait() -> bool:
            inside.set()  # noqa: B023
            return not go_on.wait(60)  # noqa: B023

        context = new_context(model, abort_callback=wait)
        with ThreadPoolExecutor(3) as pool:
            decode = pool.submit(context.decode, batch_of())
            assert inside.wait(60)
            closes = [pool.submit(model.close if closes_model else context.close) for _ in range(2)]
            assert not closes[0].done()
            go_on.set()
            assert decode.result() == 0
            for close in closes:
                close.result()
        assert context.closed
        assert model.closed == closes_model


def test_abort_from_another_thread(new_context: NewContext, batch_of: BatchOf):
    context = new_context(n_ctx=2048, n_batch=2048)
    started = threading.Event()

    def work() -> int:
        while True:
            context.kv_cache_clear(False)
            started.set()
            if (status := context.decode(batch_of([1] * 1500))) != 0:
                return status

    with ThreadPoolExecutor(1) as pool:
        decode = pool.submit(work)
        assert started.wait(60)
        context.abort()
        assert decode.result() == 2


def test_callbacks_that_use_each_others_contexts_do_not_wait_forever(new_context: NewContext, batch_of: BatchOf):
    contexts: list[LlamaContext] = []
    both, errors = threading.Barrier(2), []

    def callback_of(other: int) -> Callable[[], bool]:
        asked: list[bool] = []

        def callback() -> bool:
            if not asked:
                asked.append(True)
                both.wait(60)
                try:
                    contexts[other].kv_cache_clear()
                except RuntimeError as error:
                    errors.append(str(error))
                both.wait(60)
            return False

        return callback

    contexts += [new_context(abort_callback=callback_of(1)), new_context(abort_callback=callback_of(0))]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda context: context.decode(batch_of()), contexts)) == [0, 0]
    assert len(errors) == 2
    assert all("a callback cannot wait for it" in error for error in errors)


def test_chains_added_to_each_other_do_not_wait_forever(in_process: Callable[..., str]):
    code = """
context = LlamaContext(load(), params())
context.decode(batch_of())
a, b, done = LlamaSampler.chain(), LlamaSampler.chain(), threading.Event()
def repeat(function, *args):
    while not done.is_set():
        raised(function, *args)
threads = [threading.Thread(target=repeat, args=args)
           for args in ((a.add, b), (b.add, a), (a.sample, context), (b.sample, context))]
for thread in threads:
    thread.start()
time.sleep(0.5)
done.set()
for thread in threads:
    thread.join()
print("fine")
"""
    assert in_process(code) == "fine\n"


def test_python_code_in_the_parameters_cannot_lock_the_creation(in_process: Callable[..., str]):
    code = """
model = load()
class Evil:
    def __iter__(self):
        model.close()
        return iter([])
print(raised(LlamaContext, model, params(samplers=Evil())))
"""
    assert in_process(code) == "RuntimeError: the model is closed\n"


def test_finalizers_in_the_middle_of_a_call_neither_wait_nor_crash(in_process: Callable[..., str]):
    code = """
class Finalizer:
    def __init__(self, function):
        self.function, self.cycle = function, self
    def __del__(self):
        raised(self.function)
first, second = load(), load()
contexts = [LlamaContext(model, params()) for model in (first, second)]
for context in contexts:
    context.decode(batch_of())
gc.set_threshold(1)
for _ in range(100):
    for function in (contexts[0].kv_cache_clear, second.close, contexts[1].close, lambda: first.vocab.bos, first.close):
        Finalizer(function)
    for function in (lambda: first.metadata, contexts[1].get_logits_ith, contexts[0].state_get_data):
        raised(function)
gc.set_threshold(700)
print("fine")
"""
    assert in_process(code) == "fine\n"


def test_closing_while_every_method_is_in_use(in_process: Callable[..., str]):
    code = """
logging.disable()
S = LlamaSampler
for round in range(2):
    model, done = load(), threading.Event()
    context = LlamaContext(model, params())
    chain, grammar = S.chain([S.penalties(1280, 64, 1.1), S.top_k(5), S.dist(1)]), S.grammar(model.vocab, "root ::= .*")
    batch, templates = LlamaBatch(64), LlamaChatTemplates(model)
    uses = [
        lambda: (context.kv_cache_clear(), context.decode(batch_of([1] * 50))), lambda: chain.sample(context),
        lambda: grammar.sample(context), lambda: context.state_set_data(context.state_get_data()),
        lambda: model.vocab.tokenize("abc " * 1000), lambda: context.set_n_threads(1, 2), lambda: model.metadata,
        lambda: LlamaContext(model, params()).decode(batch_of()), lambda: chain.clone().sample(context), chain.reset,
        lambda: (batch.clear(), batch.add_sequence([1, 2]), context.decode_and_sample(batch, [(1, chain)])),
        lambda: repr(context) + repr(model) + repr(chain),
        lambda: templates.apply('[{"role": "user", "content": "x"}]'),
    ]
    def repeat(use):
        while not done.is_set():
            raised(use)
    threads = [threading.Thread(target=repeat, args=(use,)) for use in uses]
    closes = (model.close, context.close, model.close, context.close)[round % 2:]
    closers = [threading.Thread(target=close) for close in closes]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    for thread in closers:
        thread.start()
    for thread in closers:
        thread.join()
    done.set()
    for thread in threads:
        thread.join()
    assert model.closed and context.closed
print("fine")
"""
    assert in_process(code) == "fine\n"


def test_a_forked_child_gets_clear_errors_and_can_start_again(in_process: Callable[..., str]):
    code = """
import warnings
warnings.simplefilter("ignore")  # Python 3.12 and newer warn of what is tested here
import signal
model = load()
context, batch, sampler = LlamaContext(model, params()), batch_of(), LlamaSampler.greedy()
templates, done = LlamaChatTemplates(model), threading.Event()
def work():
    while not done.is_set():
        context.kv_cache_clear(False)
        context.decode(batch_of([1] * 200))
        sampler.sample(context)
        model.vocab.tokenize("hello " * 2000)
thread = threading.Thread(target=work, daemon=True)  # else a failure below would wait for it forever
thread.start()
for i in range(5):
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        if i == 0:
            for use in (lambda: context.decode(batch), lambda: sampler.sample(context), lambda: context.n_ctx):
                print(raised(use)[:70])
            context.close()
        chat = '[{"role": "user", "content": "x"}]'
        assert "before os.fork()" in raised(templates.apply, chat)
        assert model.vocab.tokenize("hello") and model.desc and LlamaChatTemplates(model).apply(chat).prompt
        assert LlamaContext(model, params()).decode(batch_of()) == 0
        assert LlamaContext(load(), params()).decode(batch_of()) == 0
        model.close()
        assert "closed" in raised(lambda: model.vocab.bos)
        sys.stdout.flush()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
done.set()
thread.join()
print(context.decode(batch_of([1], 200)), model.closed)
"""
    out = in_process(code).splitlines()
    assert out[:3] == [
        "RuntimeError: this context was created before os.fork(): its worker th",
        "RuntimeError: this context was created before os.fork(): its worker th",
        "RuntimeError: this context was created before os.fork(): its worker th",
    ]
    assert out[3:] == ["0 False"]


def test_exit_with_everything_alive(in_process: Callable[..., str]):
    code = """
model = load()
chain = LlamaSampler.chain([LlamaSampler.top_k(5), LlamaSampler.dist(1)])
context = LlamaContext(model, params(samplers=[(0, chain)], abort_callback=lambda: False))
batch = batch_of()
context.decode(batch)
grammar = LlamaSampler.grammar(model.vocab, "root ::= .*")
sys.keep = [model, chain, context, batch, model.vocab, grammar, LlamaChatTemplates(model)]
other = LlamaContext(model, params())
other.decode(batch)
logging.keep = other.get_logits_ith()
"""
    assert in_process(code) == ""


@pytest.mark.parametrize(
    "work",
    [
        "context.kv_cache_clear(); raised(context.decode, batch_of([1] * 200))",
        "model.vocab.tokenize('hello world ' * 20_000)",
        "load(progress_callback=lambda progress: True).close()",
        "LlamaContext(model, params(abort_callback=lambda: sum(range(500)) < 0)).decode(batch_of([1] * 200))",
        "LlamaContext(model, params(abort_callback=lambda: time.sleep(60))).decode(batch_of())",
    ],
)
def test_exit_while_daemon_threads_work(work: str, in_process: Callable[..., str]):
    code = f"""
model = load()
context = LlamaContext(model, params())
def repeat():
    while True:
        {work}
for _ in range(2):
    threading.Thread(target=repeat, daemon=True).start()
time.sleep(0.2)
"""
    for _ in range(2):
        assert in_process(code) == ""


def test_paused_threads_compute_again(new_context: NewContext, batch_of: BatchOf, story: list[int]):
    context = new_context(n_threads=2, n_threads_batch=3)
    context.pause_threads()
    assert context.decode(batch_of(story)) == 0
    expected = np.asarray(context.get_logits_ith())
    for _ in range(20):
        context.pause_threads()
        context.pause_threads()
        context.kv_cache_clear()
        assert context.decode(batch_of(story)) == 0
        assert (np.asarray(context.get_logits_ith()) == expected).all()
    context.pause_threads()
    context.close()
    with pytest.raises(RuntimeError, match="closed"):
        context.pause_threads()
