"""Train a released model further on requests to create customers, holding it to what it says otherwise.

What holds it is a second term of the loss: the divergence of its predictions from those of the model it was, on
ordinary dialogues of the corpus.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import gguf
import numpy as np
import torch  # pyright: ignore[reportMissingImports] - see requirements.txt
from tokenizers import Tokenizer
from torch import Tensor, nn  # pyright: ignore[reportMissingImports] - see requirements.txt

from .customers import customer_dialogues
from .evaluate import RELEASED_MODEL
from .model import Config, TinyChat
from .tokenizer import Renderer, read_tokenizer
from .train import Batch, Schedule, Stage, collate, encode, group_batches, make_examples, save, update

ORDINARY = Stage(3000, 16, 1536, 1.0)
"""The dialogues on which the model is to stay as it was."""

_CUSTOMERS = 3000
_CUSTOMER_TOKENS = 400
_WARMUP = 0.05
_LOG_EVERY = 10


def load(path: Path) -> TinyChat:
    """Return the network of a GGUF file that export.py wrote, with its weights as they were rounded for the file."""
    model = TinyChat(Config())
    tensors = gguf.GGUFReader(path).tensors
    weights = {tensor.name: gguf.dequantize(tensor.data, tensor.tensor_type) for tensor in tensors}
    model.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in weights.items()})
    return model


def customer_batches(tokenizer: Tokenizer, seed: int, tokens: int) -> list[Batch]:
    """Generate the batches of requests to create customers, of at most so many tokens."""
    render = Renderer()
    texts = [render(dialogue) for dialogue in customer_dialogues(seed, _CUSTOMERS)]
    return group_batches(encode(tokenizer, texts, _CUSTOMER_TOKENS), tokens, seed)


def ordinary_batches(tokenizer_path: Path, seed: int, tokens: int) -> list[Batch]:
    """Generate the batches of ordinary dialogues, of at most so many tokens."""
    return group_batches(make_examples(str(tokenizer_path), seed, ORDINARY, ORDINARY.dialogues), tokens, seed)


def divergence(model: TinyChat, teacher: TinyChat, ids: Tensor, picked: Tensor) -> Tensor:
    """Return the mean Kullback-Leibler divergence of a model from its teacher at the picked positions."""
    with torch.no_grad():
        expected = teacher(ids, picked).log_softmax(-1)
    actual = model(ids, picked).log_softmax(-1)
    return nn.functional.kl_div(actual, expected, log_target=True, reduction="batchmean")


def finetune(
    model: TinyChat, batches: Iterator[tuple[Batch, Batch]], steps: int, peak: float, hold: float, seed: int
) -> None:
    """Train a model for so many steps, printing both terms of the loss.

    Args:
        model: Is changed in place.
        batches: Pairs of a batch to learn and a batch on which to stay as it was.
        steps: Number of updates.
        peak: The highest learning rate.
        hold: Weight of the divergence.
        seed: Chooses which tokens of the prompts are trained on.
    """
    teacher = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.0)
    schedule = Schedule(math.inf, math.inf, 0.0, peak, _WARMUP)
    rng = np.random.default_rng(seed)
    started = time.monotonic()
    for step in range(1, steps + 1):
        new, ordinary = next(batches)
        ids, picked, targets = collate(new, rng)
        learned = nn.functional.cross_entropy(model(ids, picked), targets)
        ids, picked, _ = collate(ordinary, rng)
        moved = divergence(model, teacher, ids, picked)
        update(model, [optimizer], learned + hold * moved, schedule.learning_rate(step / steps))
        if step % _LOG_EVERY == 0:
            minutes = (time.monotonic() - started) / 60
            print(f"step {step} loss {learned:.4f} divergence {moved:.5f} minutes {minutes:.1f}", flush=True)


def parse_arguments() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=RELEASED_MODEL, help="GGUF file to begin with")
    parser.add_argument("--out", type=Path, default=Path("build"), help="folder for the tokenizer and the checkpoint")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=160, help="number of updates")
    parser.add_argument("--peak", type=float, default=3e-4, help="peak learning rate")
    parser.add_argument("--hold", type=float, default=16.0, help="weight of the divergence from the model as it was")
    parser.add_argument("--batch-tokens", type=int, default=1024, help="the most tokens of a batch to learn")
    parser.add_argument("--hold-tokens", type=int, default=2048, help="the most tokens of a batch to hold")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def main() -> None:
    """Train further from the command line."""
    args = parse_arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)

    tokenizer_path = args.out / "tokenizer.json"
    tokenizer = read_tokenizer(args.model)
    tokenizer.save(str(tokenizer_path))
    model = load(args.model)
    new = customer_batches(tokenizer, args.seed, args.batch_tokens)
    ordinary = ordinary_batches(tokenizer_path, args.seed, args.hold_tokens)
    finetune(model, zip(cycle(new), cycle(ordinary), strict=False), args.steps, args.peak, args.hold, args.seed)
    save(model, args.out / "checkpoint.pt")


if __name__ == "__main__":
    main()
