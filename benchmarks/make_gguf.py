#!/usr/bin/env python3
"""Write a random-weight llama-architecture GGUF of any size, for speed and memory measurements.

The text it generates is noise; its speed and memory are those of a trained model of the same shape. The tokenizer and
the chat template are copied from another GGUF and padded with filler tokens to the size of the vocabulary.

    python benchmarks/make_gguf.py bench-0.5b.gguf --preset 0.5b --type Q4_0
"""

from __future__ import annotations

import argparse
from pathlib import Path

from kit.random_gguf import FILE_TYPES, PRESETS, TINY_CHAT, write_model


def main() -> None:
    """Write one from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument(
        "--tokenizer", type=Path, default=TINY_CHAT, help="GGUF whose tokenizer and template are copied"
    )
    parser.add_argument("--preset", choices=PRESETS, default="0.5b")
    parser.add_argument("--type", choices=FILE_TYPES, default="Q4_0")
    parser.add_argument("--ctx", type=int, default=32768, help="context length written to the metadata")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    write_model(
        args.output,
        PRESETS[args.preset],
        args.type,
        tokenizer=args.tokenizer,
        n_ctx=args.ctx,
        seed=args.seed,
        name=f"random-{args.preset}",
    )


if __name__ == "__main__":
    main()
