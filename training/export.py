"""Write a trained checkpoint and its tokenizer as a GGUF file."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import gguf
import numpy as np
import torch  # pyright: ignore[reportMissingImports] - see requirements.txt
from gguf import GGMLQuantizationType as Quantization

from .model import Config
from .tokenizer import CONTROL_TOKENS, END_OF_TEXT, END_OF_TURN, TEMPLATE, USER_TOKENS

DESCRIPTION = (
    "A very small chat model for tests and demonstrations, trained from scratch on a synthetic English corpus: "
    "it recalls what it was told, repeats, counts, tells stories, answers in JSON and calls tools."
)


def write_tokenizer(writer: gguf.GGUFWriter, path: Path) -> None:
    """Add the vocabulary, the merges, the special tokens and the chat template.

    Args:
        writer: Receives the metadata.
        path: The ``tokenizer.json`` to read.
    """
    spec = json.loads(path.read_text(encoding="utf-8"))
    ids: dict[str, int] = spec["model"]["vocab"] | {token["content"]: token["id"] for token in spec["added_tokens"]}
    types = dict.fromkeys(ids, gguf.TokenType.NORMAL)
    types |= dict.fromkeys(CONTROL_TOKENS, gguf.TokenType.CONTROL)
    types |= dict.fromkeys(USER_TOKENS, gguf.TokenType.USER_DEFINED)
    tokens = sorted(ids, key=ids.__getitem__)
    merges = [" ".join(pair) for pair in spec["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([types[token] for token in tokens])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(ids[END_OF_TEXT])
    writer.add_pad_token_id(ids[END_OF_TEXT])
    writer.add_eos_token_id(ids[END_OF_TURN])
    writer.add_eot_token_id(ids[END_OF_TURN])
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)


def write_metadata(writer: gguf.GGUFWriter, config: Config, parameters: int) -> None:
    """Add what describes the model, and its hyperparameters.

    Args:
        writer: Receives the metadata.
        config: The hyperparameters.
        parameters: Number of weights, for the size label.
    """
    writer.add_name("tiny-chat")
    writer.add_description(DESCRIPTION)
    writer.add_license("Apache-2.0")
    writer.add_size_label(f"{parameters / 1e6:.1f}M")
    writer.add_languages(["en"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(config.vocab)
    writer.add_context_length(config.context)
    writer.add_embedding_length(config.width)
    writer.add_block_count(config.layers)
    writer.add_feed_forward_length(config.hidden)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_rope_dimension_count(config.head_width)
    writer.add_rope_freq_base(config.rope_base)
    writer.add_layer_norm_rms_eps(config.eps)


def export(checkpoint: Path, tokenizer: Path, out: Path) -> None:
    """Write the GGUF file, matrices as Q8_0 and norms as F32.

    Args:
        checkpoint: The configuration and the weights that train.py wrote.
        tokenizer: The tokenizer that train.py wrote.
        out: The GGUF file to write.
    """
    state = torch.load(checkpoint, weights_only=True)
    weights: dict[str, np.ndarray] = {name: tensor.float().numpy() for name, tensor in state["weights"].items()}
    writer = gguf.GGUFWriter(out, "llama")
    write_metadata(writer, Config(**state["config"]), sum(array.size for array in weights.values()))
    write_tokenizer(writer, tokenizer)
    for name, array in weights.items():
        kind = Quantization.Q8_0 if array.ndim == 2 else Quantization.F32
        writer.add_tensor(name, gguf.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    """Export from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path, default=Path("build"), help="folder that train.py wrote")
    parser.add_argument("--out", type=Path, default=Path("tiny-chat.gguf"), help="file to write")
    args = parser.parse_args()
    export(args.build / "checkpoint.pt", args.build / "tokenizer.json", args.out)


if __name__ == "__main__":
    main()
