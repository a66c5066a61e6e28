"""Chains of samplers, in a context's graph and outside of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import product
from typing import Any

from cyllama.llama.llama_cpp import LlamaBatch, LlamaContext, LlamaSampler

from ..registry import Case
from ._models import open_model
from .contexts import make_params

VALUES = (0.0, 1.0, 0.5, 0.95, -1.0, 2.0, 1e-30, 1e30, float("nan"), float("inf"))
COUNTS = (0, 1, 2, 5, 40, 1279, 1280, 2**31 - 1, -1)
GRAMMARS = ("root ::= [a-z ]+", 'root ::= "a" | "b"', "root ::= [^a]*", 'root ::= ""')

S = LlamaSampler
_MAKERS: dict[str, tuple[Callable[..., LlamaSampler], str]] = {  # and kinds of arguments: a value, a count, a seed
    "greedy": (S.greedy, ""),
    "dist": (S.dist, "s"),
    "top_k": (S.top_k, "c"),
    "top_p": (S.top_p, "vc"),
    "min_p": (S.min_p, "vc"),
    "typical": (S.typical, "vc"),
    "temp": (S.temp, "v"),
    "temp_ext": (S.temp_ext, "vvv"),
    "xtc": (S.xtc, "vvcs"),
    "top_n_sigma": (S.top_n_sigma, "v"),
    "mirostat": (S.mirostat, "nsvvc"),
    "mirostat_v2": (S.mirostat_v2, "svv"),
    "penalties": (S.penalties, "ncvvv"),
    "dry": (S.dry, "Vvvcc"),
    "adaptive_p": (S.adaptive_p, "vvs"),
    "logit_bias": (S.logit_bias, "nb"),
    "infill": (S.infill, "V"),
    "grammar": (S.grammar, "Vg"),
}

SEEDS: list[Case] = [
    {"chain": [[name, [20 if name == "top_k" else 0.9]] for name in names] + [["dist", [1]]], "graph": True}
    for n in (2, 3, 4)
    for names in product(("top_k", "top_p"), repeat=n)
]


def generate(rng: random.Random) -> Case:
    """Draw a chain, mostly one that selects at its end."""
    chain = [_sampler(rng, rng.choice(list(_MAKERS))) for _ in range(rng.randint(0, 5))]
    if rng.random() < 0.9:
        chain.append(_sampler(rng, rng.choice(["greedy", "dist", "mirostat_v2", "adaptive_p"])))
    return {"chain": chain, "graph": rng.random() < 0.5}


def _sampler(rng: random.Random, name: str) -> list[Any]:
    draw: dict[str, Callable[[], Any]] = {
        "v": lambda: rng.choice(VALUES) if rng.random() < 0.4 else rng.random(),
        "c": lambda: rng.choice(COUNTS),
        "s": lambda: rng.choice([0, 1, 2**32 - 1]),
        "n": lambda: 1280 if rng.random() < 0.95 else rng.choice([0, 1, 1281]),
        "b": lambda: [[rng.randrange(1280), rng.choice(VALUES)] for _ in range(rng.choice([0, 1, 3, 100]))],
        "V": lambda: None,
        "g": lambda: rng.choice(GRAMMARS),
    }
    return [name, [draw[kind]() for kind in _MAKERS[name][1]]]


def run(case: Case) -> None:
    """Sample some tokens with the chain, and from a copy of it."""
    model = open_model("tiny-chat")
    try:
        samplers = []
        for name, args in case["chain"]:
            make, kinds = _MAKERS[name]
            given = [model.vocab if kind == "V" else arg for kind, arg in zip(kinds, args, strict=False)]
            samplers.append(make(*given))
        chain = LlamaSampler.chain(samplers)
        context = LlamaContext(model, make_params({"samplers": [(0, chain)]} if case["graph"] else {}))
    except (ValueError, RuntimeError, TypeError, OverflowError):
        return
    with context:
        token = 5
        for i in range(8):
            batch = LlamaBatch(4)
            batch.add(token, i, logits=True)
            try:
                if context.decode(batch) != 0:
                    return
                token = chain.sample(context)
                copy = chain.clone()
                copy.accept([token])
                copy.reset()
            except (ValueError, RuntimeError):
                return
