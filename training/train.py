"""Train the tokenizer and the network on the synthetic corpus."""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import chain, cycle
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch  # pyright: ignore[reportMissingImports] - see requirements.txt
from tokenizers import Tokenizer
from torch import Tensor, nn  # pyright: ignore[reportMissingImports] - see requirements.txt

from .corpus import dialogues
from .model import Config, TinyChat
from .tokenizer import END_OF_TURN, START_OF_TURN, Renderer, train_tokenizer

PROMPT_SHARE = 0.1
"""Share of the tokens not written by the assistant that are trained on nevertheless."""

_SHARDS = 8
_WORKERS = 2
_LOG_EVERY = 50
_SAVE_EVERY = 200


class Example(NamedTuple):
    """A tokenized dialogue: its ids, and which of them the assistant writes."""

    ids: np.ndarray
    written: np.ndarray


Batch = list[Example]


@dataclass(frozen=True)
class Stage:
    """A part of the curriculum.

    Attributes:
        dialogues: Number of dialogues to generate.
        parts: The most parts that one of them has.
        tokens: The most tokens that one of them has; longer ones are left out.
        until: The progress at which the stage ends.
    """

    dialogues: int
    parts: int
    tokens: int
    until: float


CURRICULUM = (Stage(40_000, 1, 256, 0.15), Stage(64_000, 4, 512, 0.85), Stage(4_000, 24, 2048, 1.0))


@dataclass(frozen=True)
class Schedule:
    """How far training has come, from 0 to 1, and the learning rate there.

    Attributes:
        tokens: Length of the schedule in tokens.
        minutes: Length of the schedule by the clock; whichever is ahead counts.
        start: Progress at which to begin.
        peak: The highest learning rate.
        warmup: Progress at which it is reached.
    """

    tokens: float
    minutes: float
    start: float
    peak: float
    warmup: float = 0.02

    def progress(self, tokens: int, minutes: float) -> float:
        """Return the progress after so many tokens and minutes."""
        return self.start + (1 - self.start) * max(tokens / self.tokens, minutes / self.minutes)

    def learning_rate(self, progress: float) -> float:
        """Return the learning rate: a linear warm-up, then a cosine down to 2 % of the peak."""
        if progress < self.warmup:
            return self.peak * progress / self.warmup
        return self.peak * (0.02 + 0.49 * (1 + math.cos(math.pi * (progress - self.warmup) / (1 - self.warmup))))


def written_by_assistant(ids: list[int], opening: list[int], end: int) -> np.ndarray:
    """Mark the tokens that the assistant writes, its end of turn included.

    Args:
        ids: A tokenized dialogue.
        opening: What precedes a turn of the assistant.
        end: The token that ends a turn.

    Returns:
        A boolean for every token.
    """
    written = np.zeros(len(ids), bool)
    for start in range(len(ids)):
        first = start + len(opening)
        if ids[start:first] == opening:
            written[first : ids.index(end, first) + 1] = True
    return written


def encode(tokenizer: Tokenizer, texts: list[str], limit: int) -> list[Example]:
    """Encode rendered dialogues, leaving out those of more than ``limit`` tokens."""
    opening = tokenizer.encode(f"{START_OF_TURN}assistant\n").ids
    [end] = tokenizer.encode(END_OF_TURN).ids
    return [
        Example(np.array(encoding.ids, np.int16), written_by_assistant(encoding.ids, opening, end))
        for encoding in tokenizer.encode_batch(texts)
        if len(encoding.ids) <= limit
    ]


def make_examples(tokenizer_path: str, seed: int, stage: Stage, count: int) -> list[Example]:
    """Generate so many dialogues of a stage as examples; runs in a process of its own."""
    render = Renderer()
    texts = [render(dialogue) for dialogue in dialogues(seed, count, stage.parts)]
    return encode(Tokenizer.from_file(tokenizer_path), texts, stage.tokens)


def group_batches(examples: list[Example], tokens: int, seed: int) -> list[Batch]:
    """Group examples of similar length, so that little is padded.

    Args:
        examples: What to group.
        tokens: The most tokens that a batch has, padding included.
        seed: Seed of the order.

    Returns:
        The batches in random order, without those of a single example.
    """
    rng = random.Random(seed)
    ordered = sorted(examples, key=lambda example: (len(example.ids), rng.random()))
    batches: list[Batch] = [[]]
    for example in ordered:
        if (len(batches[-1]) + 1) * len(example.ids) > tokens:
            batches.append([])
        batches[-1].append(example)
    batches = [batch for batch in batches if len(batch) > 1]
    rng.shuffle(batches)
    return batches


def prepare(tokenizer_path: Path, seed: int, batch_tokens: int, start: float) -> list[list[Batch]]:
    """Generate the training data.

    Args:
        tokenizer_path: The ``tokenizer.json`` to encode with.
        seed: Determines all of the data.
        batch_tokens: The most tokens that a batch has.
        start: Progress at which training begins.

    Returns:
        The shuffled batches of every stage, none for those that end before the start.
    """
    prepared: list[list[Batch]] = []
    with ProcessPoolExecutor(_WORKERS) as pool:
        for number, stage in enumerate(CURRICULUM, 1):
            if stage.until <= start:
                prepared.append([])
                continue
            count = stage.dialogues // _SHARDS
            jobs = [
                pool.submit(make_examples, str(tokenizer_path), seed + 1000 * number + shard, stage, count)
                for shard in range(_SHARDS)
            ]
            examples = list(chain.from_iterable(job.result() for job in jobs))
            prepared.append(group_batches(examples, batch_tokens, seed))
    return prepared


def collate(batch: Batch, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Pad a batch on the right and choose what to train on: the assistant's tokens and a share of the others.

    Args:
        batch: The examples.
        rng: Chooses among the tokens that the assistant does not write.

    Returns:
        The inputs, the positions to train on in the flattened batch, and their targets.
    """
    length = max(len(example.ids) for example in batch)
    ids = np.zeros((len(batch), length), np.int64)
    picked = np.zeros((len(batch), length), bool)
    for row, example in enumerate(batch):
        count = len(example.ids)
        ids[row, :count] = example.ids
        picked[row, :count] = example.written | (rng.random(count) < PROMPT_SHARE)
    positions = np.flatnonzero(picked[:, 1:])
    return (
        torch.from_numpy(ids[:, :-1].copy()),
        torch.from_numpy(positions),
        torch.from_numpy(ids[:, 1:].ravel()[positions]),
    )


def loss_of(model: TinyChat, ids: Tensor, picked: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy of a model at the picked positions."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(ids, picked)
    return nn.functional.cross_entropy(logits.float(), targets)


def make_optimizers(model: TinyChat) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices of the blocks and AdamW for the embedding and the norms."""
    matrices = [parameter for parameter in model.blk.parameters() if parameter.ndim == 2]
    norms = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    return [
        torch.optim.Muon(matrices, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW([model.token_embd.weight, *norms], betas=(0.9, 0.98), weight_decay=0.0),
    ]


def update(model: TinyChat, optimizers: list[torch.optim.Optimizer], loss: Tensor, learning_rate: float) -> None:
    """Take one step of all optimizers down the gradient of a loss."""
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def save(model: TinyChat, path: Path) -> None:
    """Write the configuration and the weights of a model to a file."""
    torch.save({"config": asdict(model.config), "weights": model.state_dict()}, path)


def train(model: TinyChat, stages: list[list[Batch]], schedule: Schedule, seed: int, checkpoint: Path) -> None:
    """Train a model until the schedule ends, printing the loss and saving checkpoints meanwhile.

    Args:
        model: Is changed in place.
        stages: The batches of every stage of the curriculum, repeated as often as the stage lasts.
        schedule: Length and learning rate.
        seed: Chooses which tokens of the prompts are trained on.
        checkpoint: File to write.
    """
    batches = [cycle(stage) for stage in stages]
    optimizers = make_optimizers(model)
    compiled_loss: Callable[..., Tensor] = torch.compile(loss_of, dynamic=True)
    rng = np.random.default_rng(seed)
    started, step, seen, progress, smooth = time.monotonic(), 0, 0, schedule.start, math.nan
    while progress < 1:
        number = next(index for index, stage in enumerate(CURRICULUM) if progress < stage.until)
        batch = next(batches[number])
        loss = compiled_loss(model, *collate(batch, rng))
        update(model, optimizers, loss, schedule.learning_rate(progress))
        step += 1
        seen += sum(len(example.ids) for example in batch)
        minutes = (time.monotonic() - started) / 60
        progress = schedule.progress(seen, minutes)
        smooth = loss.item() if step == 1 else 0.98 * smooth + 0.02 * loss.item()
        if step % _LOG_EVERY == 0:
            print(f"step {step} stage {number} tokens {seen} loss {smooth:.4f} minutes {minutes:.1f}", flush=True)
        if step % _SAVE_EVERY == 0 or progress >= 1:
            save(model, checkpoint)


def parse_arguments() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build"), help="folder for the tokenizer and the checkpoint")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tokens", type=float, default=13e6, help="length of the schedule in tokens")
    parser.add_argument("--minutes", type=float, default=math.inf, help="length of the schedule by the clock")
    parser.add_argument("--start", type=float, default=0.0, help="share of the schedule to leave out at its beginning")
    parser.add_argument("--resume", type=Path, help="checkpoint to continue from, with fresh optimizers")
    parser.add_argument("--batch-tokens", type=int, default=4096, help="the most tokens that a batch has")
    parser.add_argument("--peak", type=float, default=4e-3, help="peak learning rate")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def main() -> None:
    """Train from the command line."""
    args = parse_arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)

    tokenizer_path = args.out / "tokenizer.json"
    if not tokenizer_path.exists():
        train_tokenizer(Config.vocab, args.seed).save(str(tokenizer_path))
    model = TinyChat(Config())
    if args.resume:
        model.load_state_dict(torch.load(args.resume, weights_only=True)["weights"])
    print(f"{sum(parameter.numel() for parameter in model.parameters())} parameters", flush=True)
    schedule = Schedule(args.tokens, args.minutes, args.start, args.peak)
    batches = prepare(tokenizer_path, args.seed, args.batch_tokens, args.start)
    train(model, batches, schedule, args.seed, args.out / "checkpoint.pt")


if __name__ == "__main__":
    main()
