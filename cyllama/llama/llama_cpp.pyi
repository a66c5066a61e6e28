"""
llama.cpp, bound thin, exact and memory-safe: names and meanings are those of llama.h.
"""

from collections.abc import Callable, Mapping, Sequence
import enum
import os
from typing import overload


def refresh_log_level() -> None:
    """
    Read the level of logger "cyllama.llama" anew; records below it are dropped before they reach Python.

    Loading a model and creating a context do this by themselves: call it after changing the level in between.
    """

class LlamaDevice:
    """Something that computes."""

    @property
    def name(self) -> str:
        """As LlamaModelParams.devices takes it."""

    @property
    def description(self) -> str:
        """The hardware's name."""

    @property
    def type(self) -> str:
        """"cpu", "gpu", "igpu", "accel" or "other"."""

    @property
    def backend(self) -> str:
        """The ggml backend that drives it."""

    @property
    def memory_free(self) -> int:
        """Free memory in bytes."""

    @property
    def memory_total(self) -> int:
        """Memory in bytes."""

def devices() -> list[LlamaDevice]:
    """The devices that models can run on."""

def backends() -> list[str]:
    """Names of the ggml backends in this build."""

def system_info() -> str:
    """The CPU features and options of this build (llama_print_system_info)."""

def build_info() -> str:
    """The llama.cpp build, such as "b10605-b10605"."""

def build_number() -> int:
    """The number of the llama.cpp build."""

def compiler() -> str:
    """The compiler that built llama.cpp."""

def supports_gpu_offload() -> bool:
    """Whether layers can be kept on a GPU."""

def supports_mmap() -> bool:
    """Whether model files can be memory-mapped."""

def supports_mlock() -> bool:
    """Whether models can be locked into memory."""

def supports_rpc() -> bool:
    """Whether models can run on remote machines."""

def max_devices() -> int:
    """Most devices that a model can use."""

def max_parallel_sequences() -> int:
    """Largest n_seq_max of a context."""

LLAMA_STATE_SEQ_FLAGS_NONE: int = 0

LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY: int = 1

class LlamaSplitMode(enum.IntEnum):
    """How a model is split over several GPUs."""

    NONE = 0
    """One GPU."""

    LAYER = 1
    """Layers and KV cache over all GPUs."""

    ROW = 2
    """Layers and KV cache over all GPUs, tensor parallelism where supported."""

    TENSOR = 3
    """Tensor parallelism."""

class LlamaLoadMode(enum.IntEnum):
    """How a model file is read."""

    AUTO = -1

    NONE = 0

    MMAP = 1

    MLOCK = 2

    MMAP_MLOCK = 3

    DIRECT_IO = 4

class LlamaContextType(enum.IntEnum):
    """What a context is for."""

    DEFAULT = 0

    MTP = 1
    """Multi-token prediction."""

class LlamaRopeScalingType(enum.IntEnum):
    """How RoPE is scaled."""

    UNSPECIFIED = -1
    """As the model says."""

    NONE = 0

    LINEAR = 1

    YARN = 2

    LONGROPE = 3

class LlamaPoolingType(enum.IntEnum):
    """How token embeddings become one."""

    UNSPECIFIED = -1
    """As the model says."""

    NONE = 0

    MEAN = 1

    CLS = 2

    LAST = 3

    RANK = 4

class LlamaAttentionType(enum.IntEnum):
    """What a token attends to."""

    UNSPECIFIED = -1
    """As the model says."""

    CAUSAL = 0

    NON_CAUSAL = 1

class LlamaFlashAttnType(enum.IntEnum):
    """When to use flash attention."""

    AUTO = -1

    DISABLED = 0

    ENABLED = 1

class GGMLType(enum.IntEnum):
    """Data types that a KV cache can have."""

    F32 = 0

    F16 = 1

    BF16 = 30

    Q8_0 = 8

    Q4_0 = 2

    Q4_1 = 3

    IQ4_NL = 20

    Q5_0 = 6

    Q5_1 = 7

class LlamaModelParams:
    """
    How to load a model: the fields of llama_model_params, with llama.cpp's defaults.

    >>> params = LlamaModelParams()
    >>> params.n_gpu_layers = 0
    """

    def __init__(self) -> None:
        """llama_model_default_params()."""

    @property
    def devices(self) -> list[str]:
        """Names of the devices to use (see `devices()`); empty for all of them."""

    @devices.setter
    def devices(self, arg: Sequence[str], /) -> None: ...

    @property
    def tensor_buft_overrides(self) -> list[tuple[str, str]]:
        """
        Pairs of a tensor name pattern and the buffer type (such as "CPU") to keep these tensors in.
        """

    @tensor_buft_overrides.setter
    def tensor_buft_overrides(self, arg: Sequence[tuple[str, str]], /) -> None: ...

    @property
    def n_gpu_layers(self) -> int:
        """Layers to keep in GPU memory; negative for all."""

    @n_gpu_layers.setter
    def n_gpu_layers(self, arg: int, /) -> None: ...

    @property
    def split_mode(self) -> LlamaSplitMode:
        """How to split the model over several GPUs."""

    @split_mode.setter
    def split_mode(self, arg: LlamaSplitMode, /) -> None: ...

    @property
    def load_mode(self) -> LlamaLoadMode:
        """How to read the file."""

    @load_mode.setter
    def load_mode(self, arg: LlamaLoadMode, /) -> None: ...

    @property
    def main_gpu(self) -> int:
        """The GPU for everything when split_mode is NONE."""

    @main_gpu.setter
    def main_gpu(self, arg: int, /) -> None: ...

    @property
    def tensor_split(self) -> list[float]:
        """Proportion of the model for each GPU; empty to decide by free memory."""

    @tensor_split.setter
    def tensor_split(self, arg: Sequence[float], /) -> None: ...

    @property
    def progress_callback(self) -> Callable[[float], bool | None] | None:
        """
        Called with the progress from 0.0 to 1.0; returning False stops the load.
        """

    @progress_callback.setter
    def progress_callback(self, value: Callable[[float], bool | None] | None) -> None: ...

    @property
    def kv_overrides(self) -> dict[str, bool | int | float | str]:
        """Metadata values to use instead of the file's."""

    @kv_overrides.setter
    def kv_overrides(self, arg: Mapping[str, bool | int | float | str], /) -> None: ...

    @property
    def vocab_only(self) -> bool:
        """Load the vocabulary and no weights."""

    @vocab_only.setter
    def vocab_only(self, arg: bool, /) -> None: ...

    @property
    def check_tensors(self) -> bool:
        """Validate the tensors' data."""

    @check_tensors.setter
    def check_tensors(self, arg: bool, /) -> None: ...

    @property
    def use_extra_bufts(self) -> bool:
        """Use extra buffer types, for weight repacking."""

    @use_extra_bufts.setter
    def use_extra_bufts(self, arg: bool, /) -> None: ...

    @property
    def no_host(self) -> bool:
        """Bypass the host buffer."""

    @no_host.setter
    def no_host(self, arg: bool, /) -> None: ...

    @property
    def no_alloc(self) -> bool:
        """Load metadata only and simulate allocations."""

    @no_alloc.setter
    def no_alloc(self, arg: bool, /) -> None: ...

    @property
    def load_mtp(self) -> bool:
        """Load the layers for multi-token prediction."""

    @load_mtp.setter
    def load_mtp(self, arg: bool, /) -> None: ...

class LlamaContextParams:
    """
    How to create a context: the fields of llama_context_params, with llama.cpp's defaults.

    >>> params = LlamaContextParams()
    >>> params.n_ctx = 4096
    """

    def __init__(self) -> None:
        """llama_context_default_params()."""

    @property
    def n_ctx(self) -> int:
        """
        Tokens that fit (llama.cpp pads this to 256); 0 for the training length.
        """

    @n_ctx.setter
    def n_ctx(self, arg: int, /) -> None: ...

    @property
    def n_batch(self) -> int:
        """Most tokens of one decode."""

    @n_batch.setter
    def n_batch(self, arg: int, /) -> None: ...

    @property
    def n_ubatch(self) -> int:
        """Most tokens computed at once."""

    @n_ubatch.setter
    def n_ubatch(self, arg: int, /) -> None: ...

    @property
    def n_seq_max(self) -> int:
        """Number of sequences."""

    @n_seq_max.setter
    def n_seq_max(self, arg: int, /) -> None: ...

    @property
    def n_rs_seq(self) -> int:
        """Snapshots of the recurrent state per sequence, for rollback."""

    @n_rs_seq.setter
    def n_rs_seq(self, arg: int, /) -> None: ...

    @property
    def n_outputs_max(self) -> int:
        """Most outputs of one decode; 0 for n_batch."""

    @n_outputs_max.setter
    def n_outputs_max(self, arg: int, /) -> None: ...

    @property
    def n_outputs_max_per_seq(self) -> int:
        """Most outputs of a sequence; 0 for n_outputs_max."""

    @n_outputs_max_per_seq.setter
    def n_outputs_max_per_seq(self, arg: int, /) -> None: ...

    @property
    def n_threads(self) -> int:
        """Threads for single tokens."""

    @n_threads.setter
    def n_threads(self, arg: int, /) -> None: ...

    @property
    def n_threads_batch(self) -> int:
        """Threads for batches."""

    @n_threads_batch.setter
    def n_threads_batch(self, arg: int, /) -> None: ...

    @property
    def ctx_type(self) -> LlamaContextType:
        """What the context is for."""

    @ctx_type.setter
    def ctx_type(self, arg: LlamaContextType, /) -> None: ...

    @property
    def rope_scaling_type(self) -> LlamaRopeScalingType:
        """How RoPE is scaled."""

    @rope_scaling_type.setter
    def rope_scaling_type(self, arg: LlamaRopeScalingType, /) -> None: ...

    @property
    def pooling_type(self) -> LlamaPoolingType:
        """How embeddings are pooled."""

    @pooling_type.setter
    def pooling_type(self, arg: LlamaPoolingType, /) -> None: ...

    @property
    def attention_type(self) -> LlamaAttentionType:
        """What a token attends to."""

    @attention_type.setter
    def attention_type(self, arg: LlamaAttentionType, /) -> None: ...

    @property
    def flash_attn_type(self) -> LlamaFlashAttnType:
        """When to use flash attention."""

    @flash_attn_type.setter
    def flash_attn_type(self, arg: LlamaFlashAttnType, /) -> None: ...

    @property
    def rope_freq_base(self) -> float:
        """RoPE base frequency; 0 as in the model."""

    @rope_freq_base.setter
    def rope_freq_base(self, arg: float, /) -> None: ...

    @property
    def rope_freq_scale(self) -> float:
        """RoPE frequency scale; 0 as in the model."""

    @rope_freq_scale.setter
    def rope_freq_scale(self, arg: float, /) -> None: ...

    @property
    def yarn_ext_factor(self) -> float:
        """YaRN extrapolation mix; negative as in the model."""

    @yarn_ext_factor.setter
    def yarn_ext_factor(self, arg: float, /) -> None: ...

    @property
    def yarn_attn_factor(self) -> float:
        """YaRN magnitude scale."""

    @yarn_attn_factor.setter
    def yarn_attn_factor(self, arg: float, /) -> None: ...

    @property
    def yarn_beta_fast(self) -> float:
        """YaRN low correction dimension."""

    @yarn_beta_fast.setter
    def yarn_beta_fast(self, arg: float, /) -> None: ...

    @property
    def yarn_beta_slow(self) -> float:
        """YaRN high correction dimension."""

    @yarn_beta_slow.setter
    def yarn_beta_slow(self, arg: float, /) -> None: ...

    @property
    def yarn_orig_ctx(self) -> int:
        """YaRN original context size."""

    @yarn_orig_ctx.setter
    def yarn_orig_ctx(self, arg: int, /) -> None: ...

    @property
    def defrag_thold(self) -> float:
        """Deprecated by llama.cpp and without effect."""

    @defrag_thold.setter
    def defrag_thold(self, arg: float, /) -> None: ...

    @property
    def cb_eval(self) -> Callable[[str, bool], bool] | None:
        """
        Called with a tensor's name while the graph is computed: with True to ask whether it is of interest, then, if
        so, with False when it is computed; returning False then stops the computation. Slow: for debugging.
        """

    @cb_eval.setter
    def cb_eval(self, value: Callable[[str, bool], bool] | None) -> None: ...

    @property
    def type_k(self) -> GGMLType:
        """Data type of the K cache."""

    @type_k.setter
    def type_k(self, arg: GGMLType, /) -> None: ...

    @property
    def type_v(self) -> GGMLType:
        """Data type of the V cache."""

    @type_v.setter
    def type_v(self, arg: GGMLType, /) -> None: ...

    @property
    def abort_callback(self) -> Callable[[], bool] | None:
        """
        Called between operations of a decode, on the CPU; returning True aborts it. LlamaContext.abort() does the
        same from another thread and costs nothing.
        """

    @abort_callback.setter
    def abort_callback(self, value: Callable[[], bool] | None) -> None: ...

    @property
    def embeddings(self) -> bool:
        """Compute embeddings, together with logits."""

    @embeddings.setter
    def embeddings(self, arg: bool, /) -> None: ...

    @property
    def offload_kqv(self) -> bool:
        """Keep the KV cache, and compute attention, on the GPU."""

    @offload_kqv.setter
    def offload_kqv(self, arg: bool, /) -> None: ...

    @property
    def no_perf(self) -> bool:
        """Do not measure performance."""

    @no_perf.setter
    def no_perf(self, arg: bool, /) -> None: ...

    @property
    def op_offload(self) -> bool:
        """Offload operations on host tensors to a device."""

    @op_offload.setter
    def op_offload(self, arg: bool, /) -> None: ...

    @property
    def swa_full(self) -> bool:
        """Full-size cache for sliding-window layers."""

    @swa_full.setter
    def swa_full(self, arg: bool, /) -> None: ...

    @property
    def kv_unified(self) -> bool:
        """One buffer of cells for all sequences."""

    @kv_unified.setter
    def kv_unified(self, arg: bool, /) -> None: ...

    @property
    def samplers(self) -> list[tuple[int, LlamaSampler]] | None:
        """
        Pairs of a sequence id and a sampler chain to run in the graph [experimental in llama.cpp].
        """

    @samplers.setter
    def samplers(self, value: list[tuple[int, LlamaSampler]] | None) -> None: ...

    @property
    def ctx_other(self) -> LlamaContext | None:
        """A context to share results with."""

    @ctx_other.setter
    def ctx_other(self, value: LlamaContext | None) -> None: ...

    @property
    def threadpool_poll(self) -> int:
        """
        How long the context's threads spin before they sleep, 0 to 100 (ggml_threadpool_params.poll).
        """

    @threadpool_poll.setter
    def threadpool_poll(self, arg: int, /) -> None: ...

    @property
    def threadpool_prio(self) -> int:
        """
        Priority of the context's threads, -1 (low) to 3 (real time) (ggml_threadpool_params.prio).
        """

    @threadpool_prio.setter
    def threadpool_prio(self, arg: int, /) -> None: ...

class LlamaVocabType(enum.IntEnum):
    """The kind of tokenizer."""

    NONE = 0

    SPM = 1

    BPE = 2

    WPM = 3

    UGM = 4

    RWKV = 5

    PLAMO2 = 6

class LlamaVocab:
    """
    A model's vocabulary (llama_vocab): text to token ids and back. Usable from any thread.

    Special token ids are -1 where the vocabulary has none.
    """

    def tokenize(self, text: str, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """
        Token ids of `text` (llama_tokenize).

        `add_special` adds BOS and EOS if the model is configured so; `parse_special` reads the text of control
        tokens as such. Raises UnicodeEncodeError for lone surrogates.
        """

    def token_to_piece(self, token: int, lstrip: int = 0, special: bool = False) -> bytes:
        """
        The bytes of one token, possibly a part of a character; control tokens are empty unless `special`.
        """

    def detokenize(self, tokens: Sequence[int], remove_special: bool = False, unparse_special: bool = False) -> bytes:
        """
        The bytes of many tokens (llama_detokenize).

        `remove_special` leaves out the BOS and EOS that tokenize adds; `unparse_special` renders control tokens.
        """

    @property
    def type(self) -> LlamaVocabType:
        """The kind of tokenizer."""

    @property
    def n_tokens(self) -> int:
        """Number of tokens."""

    def __len__(self) -> int: ...

    def get_text(self, token: int) -> str:
        """The token as the file spells it."""

    def get_score(self, token: int) -> float:
        """The token's score."""

    def get_attr(self, token: int) -> int:
        """The token's attributes, bits of llama_token_attr."""

    def is_eog(self, token: int) -> bool:
        """Whether it ends a generation."""

    def is_control(self, token: int) -> bool:
        """Whether it is a control token."""

    def eog_tokens(self) -> list[int]:
        """All tokens that end a generation."""

    def control_tokens(self) -> list[tuple[int, str]]:
        """
        The tokens that `tokenize` reads with `parse_special` only, control and unknown ones, with their texts.
        """

    def suppress_tokens(self) -> list[int]:
        """Tokens that the model says are never to be sampled."""

    @property
    def bos(self) -> int:
        """Beginning of sequence."""

    @property
    def eos(self) -> int:
        """End of sequence."""

    @property
    def eot(self) -> int:
        """End of turn."""

    @property
    def sep(self) -> int:
        """Separator."""

    @property
    def nl(self) -> int:
        """Newline."""

    @property
    def pad(self) -> int:
        """Padding."""

    @property
    def mask(self) -> int:
        """Mask."""

    @property
    def fim_pre(self) -> int:
        """Prefix of fill-in-the-middle."""

    @property
    def fim_suf(self) -> int:
        """Suffix of fill-in-the-middle."""

    @property
    def fim_mid(self) -> int:
        """Middle of fill-in-the-middle."""

    @property
    def fim_pad(self) -> int:
        """Padding of fill-in-the-middle."""

    @property
    def fim_rep(self) -> int:
        """Repository of fill-in-the-middle."""

    @property
    def fim_sep(self) -> int:
        """File separator of fill-in-the-middle."""

    @property
    def add_bos(self) -> bool:
        """Whether prompts begin with BOS."""

    @property
    def add_eos(self) -> bool:
        """Whether prompts end with EOS."""

    @property
    def add_sep(self) -> bool:
        """Whether prompts have a separator added."""

class LlamaModel:
    """
    A loaded GGUF model (llama_model). Contexts created from it keep it in memory.

    Usable from any number of threads, and as a context manager that closes it.

    >>> with LlamaModel("model.gguf") as model:
    ...     print(model.desc, model.n_params)
    """

    def __init__(self, path: str | os.PathLike[str], params: LlamaModelParams | None = None) -> None:
        """
        Load the GGUF file at `path`. The GIL is released meanwhile, and Ctrl-C stops the load.

        Raises FileNotFoundError, IsADirectoryError or PermissionError as open() does, ValueError if it is no GGUF
        file or a parameter is out of range, RuntimeError with llama.cpp's reason if it cannot be loaded.
        """

    def close(self) -> None:
        """
        Free the model and every context created from it, at once. Waits for computations in other threads. Closing a
        closed model does nothing; every other use raises RuntimeError.
        """

    @property
    def closed(self) -> bool:
        """Whether close() was called."""

    def __enter__(self) -> LlamaModel: ...

    def __exit__(self, *args: object) -> None: ...

    @property
    def path(self) -> str:
        """The file it was loaded from."""

    @property
    def vocab(self) -> LlamaVocab:
        """The vocabulary."""

    @property
    def metadata(self) -> dict[str, str]:
        """The file's metadata, arrays left out."""

    def chat_template(self, name: str | None = None) -> str | None:
        """
        The chat template of that name (None for the default one) as Jinja source, or None.
        """

    @property
    def desc(self) -> str:
        """Architecture, size and quantization, such as "llama 1B Q4_0"."""

    @property
    def ftype(self) -> str:
        """Quantization, such as "Q4_0"."""

    def kv_cache_bytes(self, n_ctx: int, type_k: GGMLType = GGMLType.F16, type_v: GGMLType = GGMLType.F16) -> int | None:
        """
        Bytes of a KV cache for `n_ctx` tokens, or None where it is not simply keys and values of every layer for every
        token: models with a sliding window or a recurrent state, and encoders. At most 2**63 - 1.
        """

    @property
    def size(self) -> int:
        """Size of all tensors in bytes."""

    @property
    def n_params(self) -> int:
        """Number of parameters."""

    @property
    def n_ctx_train(self) -> int:
        """Context length of the training, in tokens."""

    @property
    def n_positions(self) -> int:
        """
        Positions that it has learned embeddings of: the most tokens of a sequence. 0 where positions are
        computed (RoPE, ALiBi, a recurrent state), and a sequence may become longer.
        """

    @property
    def n_embd(self) -> int:
        """Width of the embeddings."""

    @property
    def n_embd_inp(self) -> int:
        """Width of the input embeddings."""

    @property
    def n_embd_out(self) -> int:
        """Width of the output embeddings."""

    @property
    def n_layer(self) -> int:
        """Number of layers."""

    @property
    def n_layer_nextn(self) -> int:
        """Number of multi-token prediction layers."""

    @property
    def n_head(self) -> int:
        """Number of attention heads."""

    @property
    def n_head_kv(self) -> int:
        """Number of key-value heads."""

    @property
    def n_swa(self) -> int:
        """Sliding window in tokens, 0 for none."""

    @property
    def rope_freq_scale_train(self) -> float:
        """RoPE frequency scale."""

    @property
    def has_encoder(self) -> bool:
        """Whether it needs LlamaContext.encode."""

    @property
    def has_decoder(self) -> bool:
        """Whether it can generate."""

    @property
    def decoder_start_token(self) -> int:
        """What an encoder-decoder model's output starts with, or -1."""

    @property
    def is_recurrent(self) -> bool:
        """Whether it is recurrent (Mamba, RWKV, ...)."""

    @property
    def is_hybrid(self) -> bool:
        """Whether it mixes attention and recurrence."""

    @property
    def is_causal(self) -> bool:
        """Whether a token attends to earlier ones only, which generating needs."""

    @property
    def is_diffusion(self) -> bool:
        """Whether it is a diffusion model."""

    def __repr__(self) -> str: ...

class LlamaAdapterLora:
    """
    A LoRA adapter of a model (llama_adapter_lora), which it keeps in memory.

    It changes nothing until LlamaContext.set_adapters_lora().

    >>> with LlamaAdapterLora(model, "adapter.gguf") as adapter:
    ...     context.set_adapters_lora([(adapter, 1.0)])
    """

    def __init__(self, model: LlamaModel, path: str | os.PathLike[str]) -> None:
        """
        Load the GGUF file at `path`, between two decodes of the model's contexts. The GIL is released meanwhile.

        Raises FileNotFoundError, IsADirectoryError or PermissionError as open() does, ValueError if it is no GGUF
        file, RuntimeError if it is no adapter, is damaged, or was made for another model.
        """

    def close(self) -> None:
        """
        Free the adapter, as soon as it is set in no context any more. Closing a closed one does nothing; every other
        use raises RuntimeError.
        """

    @property
    def closed(self) -> bool:
        """Whether it, or its model, was closed."""

    def __enter__(self) -> LlamaAdapterLora: ...

    def __exit__(self, *args: object) -> None: ...

    @property
    def path(self) -> str:
        """The file it was loaded from."""

    @property
    def metadata(self) -> dict[str, str]:
        """The file's metadata, arrays left out."""

    @property
    def alora_invocation_tokens(self) -> list[int]:
        """
        The tokens from which on an activated LoRA (aLoRA) is to be used; empty for any other.
        """

    def __repr__(self) -> str: ...

class LlamaBatch:
    """
    Tokens of one or many sequences, to be evaluated by one LlamaContext.decode (llama_batch).

    >>> batch = LlamaBatch(8)
    >>> batch.add_sequence([1, 2, 3])
    >>> len(batch)
    3
    """

    def __init__(self, n_tokens: int, n_seq_max: int = 1) -> None:
        """
        An empty batch for up to `n_tokens` tokens, each in up to `n_seq_max` sequences.
        """

    def add(self, token: int, pos: int, seq_ids: Sequence[int] = [0], logits: bool = False) -> None:
        """
        Append `token` at position `pos` of every sequence of `seq_ids`; with `logits`, its logits are computed.

        Raises ValueError if the batch is full.
        """

    def add_sequence(self, tokens: Sequence[int], pos: int = 0, seq_id: int = 0, logits_last: bool = True, logits_all: bool = False) -> None:
        """
        Append `tokens` at positions `pos`, `pos + 1`, ... of one sequence, with logits for the last one, or with
        `logits_all` for all of them, as embeddings want it.

        Raises ValueError, and appends nothing, if they do not fit.
        """

    def clear(self) -> None:
        """Remove all tokens."""

    def __len__(self) -> int: ...

    @property
    def capacity(self) -> int:
        """How many tokens fit."""

    @property
    def n_seq_max(self) -> int:
        """How many sequences a token can belong to."""

class LlamaContext:
    """
    A KV cache and the threads that compute with it (llama_context).

    Any number of threads may use one: they wait for each other. The GIL is released while anything is computed.
    A context keeps its model alive. It is a context manager that closes itself.

    >>> context = LlamaContext(model)
    >>> batch = LlamaBatch(512)
    >>> batch.add_sequence(model.vocab.tokenize("Hello"))
    >>> context.decode(batch)
    0
    >>> token = LlamaSampler.greedy().sample(context)
    """

    def __init__(self, model: LlamaModel, params: LlamaContextParams | None = None) -> None:
        """
        Create a context (llama_init_from_model) with a persistent pool of `n_threads` threads of its own.

        Raises ValueError for a parameter out of range, MemoryError for a KV cache larger than the machine's memory,
        RuntimeError with llama.cpp's reason if it cannot be created.
        """

    def close(self) -> None:
        """
        Free the KV cache, the buffers and the threads at once; waits for a decode in another thread. Closing a
        closed context does nothing; every other use raises RuntimeError.
        """

    @property
    def closed(self) -> bool:
        """Whether it, or its model, was closed."""

    def __enter__(self) -> LlamaContext: ...

    def __exit__(self, *args: object) -> None: ...

    def decode(self, batch: LlamaBatch) -> int:
        """
        Evaluate a batch (llama_decode).

        Returns 0, or 1 if the KV cache has no space for it (nothing changed), or 2 if it was aborted (the sequences
        may have lost positions: see seq_pos_max). Raises ValueError for a batch that cannot be evaluated, such as one
        with a token id out of range or with positions that do not follow the sequence's last one.
        """

    def decode_and_sample(self, batch: LlamaBatch, samplers: Sequence[tuple[int, LlamaSampler]]) -> tuple[int, list[int], dict[int, Exception]]:
        """
        Evaluate a batch and sample from it, without taking the GIL in between.

        `samplers` pairs the index of a token in the batch, which must have logits, with the sampler to use; several
        samplers may use the same token. Returns the status of decode(), one token for each sampler, none if the status
        is not 0, and why samplers failed, by their index in the list: their token is -1. That is a ValueError where a
        grammar takes too much work, and a RuntimeError else.
        """

    def encode(self, batch: LlamaBatch) -> None:
        """
        Evaluate a batch with the encoder of an encoder-decoder model (llama_encode).
        """

    def abort(self) -> None:
        """
        Make the decode that runs in another thread, and every later one, return 2 as soon as possible (on the CPU),
        until clear_abort(). Never waits.
        """

    def clear_abort(self) -> None:
        """Undo abort()."""

    def get_logits_ith(self, i: int = -1) -> memoryview:
        """
        Logits of token `i` of the last batch, or of the -i-th last output: a copy, float32 of shape (n_vocab,).

        Raises IndexError if that token has none.
        """

    def get_logprobs_ith(self, i: int, token: int, n_top: int = 0) -> tuple[float, list[tuple[int, float]]]:
        """
        Natural logarithms of probabilities by the model's own logits, before any sampler: that of `token` after token
        `i` of the last batch, and pairs of the `n_top` likeliest tokens and theirs, most likely first.

        One pass over the vocabulary, without the GIL. Indices and errors are those of get_logits_ith().
        """

    def get_embeddings_ith(self, i: int = -1) -> memoryview:
        """
        Embedding of one token, without pooling: a copy, float32 of shape (n_embd_out,).
        """

    def get_embeddings_seq(self, seq_id: int = 0) -> memoryview:
        """
        Pooled embedding of a sequence of the last batch, or the scores of a rank model: a copy, float32.
        """

    @property
    def n_ctx(self) -> int:
        """Tokens that fit, padded by llama.cpp."""

    @property
    def n_ctx_seq(self) -> int:
        """Tokens that fit in one sequence."""

    @property
    def n_batch(self) -> int:
        """Most tokens of one decode."""

    @property
    def n_ubatch(self) -> int:
        """Most tokens computed at once."""

    @property
    def n_seq_max(self) -> int:
        """Number of sequences."""

    @property
    def n_rs_seq(self) -> int:
        """Snapshots of the recurrent state per sequence."""

    @property
    def n_threads(self) -> int:
        """Threads for single tokens."""

    @property
    def n_threads_batch(self) -> int:
        """Threads for batches."""

    @property
    def pooling_type(self) -> LlamaPoolingType:
        """How embeddings are pooled."""

    @property
    def has_memory(self) -> bool:
        """
        Whether it remembers what was decoded; models that only make embeddings do not.
        """

    def set_n_threads(self, n_threads: int, n_threads_batch: int) -> None:
        """Replace the thread pools."""

    def set_embeddings(self, embeddings: bool) -> None:
        """Whether decode() computes embeddings."""

    def set_causal_attn(self, causal_attn: bool) -> None:
        """Whether tokens attend to earlier ones only."""

    def synchronize(self) -> None:
        """
        Wait until all computations are finished; reading outputs does this by itself.
        """

    def __repr__(self) -> str: ...

    def kv_cache_clear(self, clear_data: bool = True) -> None:
        """
        Clear the KV cache (llama_memory_clear).

        `clear_data` also zeroes the buffers, which takes time proportional to n_ctx; without it only the metadata is
        cleared, in microseconds, which is all that a new generation needs.
        """

    def kv_cache_rewind(self) -> bool:
        """
        Let the next tokens take the first cells that are free, and not those behind the ones that were taken last.

        Returns False where llama.cpp cannot do that.
        """

    def seq_rm(self, seq_id: int, p0: int = -1, p1: int = -1) -> bool:
        """
        Remove positions [p0, p1) of a sequence, or of all with seq_id=-1; a negative bound is open.

        Returns False if this memory cannot drop a part of a sequence.
        """

    def seq_cp(self, seq_id_src: int, seq_id_dst: int, p0: int = -1, p1: int = -1) -> None:
        """
        Copy positions [p0, p1) of a sequence to another one; a negative bound is open.

        Raises ValueError for a part of a sequence in a context without kv_unified.
        """

    def seq_keep(self, seq_id: int) -> None:
        """Remove everything that does not belong to this sequence."""

    def seq_add(self, seq_id: int, p0: int, p1: int, delta: int) -> None:
        """
        Add `delta` to the positions [p0, p1) of a sequence. Raises RuntimeError where can_shift is False.
        """

    def seq_div(self, seq_id: int, p0: int, p1: int, d: int) -> None:
        """
        Divide the positions [p0, p1) of a sequence by `d`. Raises RuntimeError where can_shift is False.
        """

    def seq_pos_min(self, seq_id: int) -> int:
        """Smallest position of a sequence in the memory, -1 if it is empty."""

    def seq_pos_max(self, seq_id: int) -> int:
        """Largest position of a sequence in the memory, -1 if it is empty."""

    @property
    def can_shift(self) -> bool:
        """
        Whether seq_add and seq_div work: not with every model, and only if type_k is F16 or F32.
        """

    def set_adapters_lora(self, adapters: Sequence[tuple[LlamaAdapterLora, float]]) -> None:
        """
        Compute with these adapters, each multiplied by its scale, from the next decode on, and with no other.

        An adapter of scale 0 is left out. If that changes anything, the next decode reserves its memory anew. What the
        KV cache holds stays as it was computed. Raises ValueError for an adapter of another model, a scale that is not
        finite, and more adapters than llama.cpp has room for.
        """

    def state_get_data(self) -> bytes:
        """The state of all sequences, as bytes for state_set_data."""

    def state_set_data(self, data: bytes) -> None:
        """
        Restore what state_get_data returned.

        Raises ValueError for what is damaged or was saved with another model, RuntimeError for what does not fit this context; what it was to replace is gone then.
        """

    def state_save_file(self, path: str | os.PathLike[str], tokens: Sequence[int] = []) -> None:
        """
        Save the state of all sequences, and token ids of your choice beside it. The file is complete or absent.
        """

    def state_load_file(self, path: str | os.PathLike[str]) -> list[int]:
        """
        Restore what state_save_file saved. Returns the token ids.

        Raises ValueError for what is damaged or was saved with another model, RuntimeError for what does not fit this context; what it was to replace is gone then.
        """

    def state_seq_get_data(self, seq_id: int, flags: int = 0) -> bytes:
        """
        The state of one sequence, as bytes for state_seq_set_data.

        `flags` may be LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY: only what cannot be rolled back (recurrent states,
        sliding windows).
        """

    def state_seq_copy(self, seq_id: int, flags: int = 0) -> LlamaState:
        """
        The state of one sequence, for state_seq_set_data in this process: faster than as bytes.
        """

    @overload
    def state_seq_set_data(self, data: LlamaState, seq_id: int, flags: int = 0) -> None: ...

    @overload
    def state_seq_set_data(self, data: bytes, seq_id: int, flags: int = 0) -> None:
        """
        Replace a sequence by what state_seq_get_data returned, with the same flags.

        Raises ValueError for what is damaged or was saved with another model, RuntimeError for what does not fit this context; what it was to replace is gone then.
        """

    def state_seq_save_file(self, path: str | os.PathLike[str], seq_id: int, tokens: Sequence[int] = []) -> None:
        """
        Save one sequence, and its token ids beside it. The file is complete or absent.
        """

    def state_seq_load_file(self, path: str | os.PathLike[str], seq_id: int) -> list[int]:
        """
        Replace a sequence by what state_seq_save_file saved. Returns the token ids.

        Raises ValueError for what is damaged or was saved with another model, RuntimeError for what does not fit this context; what it was to replace is gone then.
        """

class LlamaState:
    """
    The state of one sequence, in memory of its own that is given back at once.

    >>> state = context.state_seq_copy(0)
    >>> context.state_seq_set_data(state, 1)
    >>> context.state_seq_set_data(bytes(state), 2)
    """

    def __len__(self) -> int:
        """Bytes that it takes."""

    def __bytes__(self) -> bytes:
        """The same as LlamaContext.state_seq_get_data."""

LLAMA_DEFAULT_SEED: int = 4294967295

class LlamaSampler:
    """
    Chooses the next token (llama_sampler): one method, or a chain of them that ends with
    one that selects (greedy, dist, mirostat, mirostat_v2, adaptive_p).

    >>> sampler = LlamaSampler.chain([
    ...     LlamaSampler.top_k(40), LlamaSampler.temp(0.8), LlamaSampler.dist(seed=1)
    ... ])
    >>> token = sampler.sample(context)
    """

    @staticmethod
    def greedy() -> LlamaSampler:
        """Select the most likely token."""

    @staticmethod
    def dist(seed: int = 4294967295) -> LlamaSampler:
        """
        Select a token at random, by probability. `seed` makes the choice reproducible; 0xFFFFFFFF draws a random one.
        """

    @staticmethod
    def top_k(k: int) -> LlamaSampler:
        """
        Keep the k most likely tokens; k <= 0 keeps all (https://arxiv.org/abs/1904.09751).
        """

    @staticmethod
    def top_p(p: float, min_keep: int = 0) -> LlamaSampler:
        """
        Keep the most likely tokens whose probabilities add up to p (https://arxiv.org/abs/1904.09751).
        """

    @staticmethod
    def min_p(p: float, min_keep: int = 0) -> LlamaSampler:
        """
        Keep tokens at least p times as likely as the most likely one (llama.cpp #3841).
        """

    @staticmethod
    def typical(p: float, min_keep: int = 0) -> LlamaSampler:
        """Locally typical sampling (https://arxiv.org/abs/2202.00666)."""

    @staticmethod
    def temp(t: float) -> LlamaSampler:
        """Divide the logits by t; t <= 0 keeps the largest only."""

    @staticmethod
    def temp_ext(t: float, delta: float, exponent: float) -> LlamaSampler:
        """Dynamic temperature, by entropy (https://arxiv.org/abs/2309.02772)."""

    @staticmethod
    def xtc(p: float, t: float, min_keep: int = 0, seed: int = 4294967295) -> LlamaSampler:
        """
        With probability p, exclude all but the least likely token above t. `seed` makes the choice reproducible; 0xFFFFFFFF draws a random one.
        """

    @staticmethod
    def top_n_sigma(n: float) -> LlamaSampler:
        """
        Keep tokens within n standard deviations of the largest logit (https://arxiv.org/abs/2411.07641).
        """

    @staticmethod
    def mirostat(n_vocab: int, seed: int, tau: float, eta: float, m: int = 100) -> LlamaSampler:
        """
        Mirostat 1.0: select with a target surprise of tau (https://arxiv.org/abs/2007.14966).
        """

    @staticmethod
    def mirostat_v2(seed: int, tau: float, eta: float) -> LlamaSampler:
        """Mirostat 2.0 (https://arxiv.org/abs/2007.14966)."""

    @staticmethod
    def grammar(vocab: LlamaVocab, grammar: str, root: str = 'root') -> LlamaSampler:
        """
        Keep tokens that continue a text of a GBNF grammar. Raises ValueError if it cannot be parsed.
        """

    @staticmethod
    def grammar_lazy(vocab: LlamaVocab, grammar: str, root: str, trigger_patterns: Sequence[str], trigger_tokens: Sequence[int]) -> LlamaSampler:
        """
        A grammar that begins where a regular expression matches or a token appears (llama.cpp #9639).
        """

    @staticmethod
    def reasoning_budget(vocab: LlamaVocab, start: str, ends: Sequence[str], forced: Sequence[int], budget: int, inside: bool = False, anywhere: bool = False) -> LlamaSampler:
        """
        Let nothing but the tokens `forced` follow after `budget` tokens of reasoning, which begins with the
        text `start` and ends with one of `ends`.

        `inside` if the prompt ends within reasoning; `anywhere` if it may begin behind other text as well. In a
        chain with a grammar, only what that allows is forced.
        """

    @staticmethod
    def penalties(n_vocab: int, penalty_last_n: int, penalty_repeat: float = 1.0, penalty_freq: float = 0.0, penalty_present: float = 0.0) -> LlamaSampler:
        """
        Make tokens less likely that are among the last `penalty_last_n` accepted ones.
        """

    @staticmethod
    def dry(vocab: LlamaVocab, dry_multiplier: float, dry_base: float = 1.75, dry_allowed_length: int = 2, dry_penalty_last_n: int = 64, seq_breakers: Sequence[str] = ['\n', ':', '"', '*']) -> LlamaSampler:
        """
        Make tokens less likely that would extend a repetition (text-generation-webui #5677).
        """

    @staticmethod
    def adaptive_p(target: float, decay: float = 0.8999999761581421, seed: int = 4294967295) -> LlamaSampler:
        """Select tokens near a target probability over time (llama.cpp #17927)."""

    @staticmethod
    def logit_bias(n_vocab: int, logit_bias: Sequence[tuple[int, float]]) -> LlamaSampler:
        """Add a bias to the logits of the tokens in pairs of (token id, bias)."""

    @staticmethod
    def infill(vocab: LlamaVocab) -> LlamaSampler:
        """For fill-in-the-middle, after top_k and top_p."""

    @staticmethod
    def chain(samplers: Sequence[LlamaSampler] = [], no_perf: bool = True) -> LlamaSampler:
        """
        Samplers applied one after the other. The chain takes them over: they cannot be used alone any more.
        """

    def sample(self, context: LlamaContext, i: int = -1) -> int:
        """
        Select a token from output `i` of the context's last decode, and accept it.

        Raises IndexError if there is no such output, RuntimeError if the sampler selects none.
        """

    def accept(self, tokens: Sequence[int]) -> None:
        """Tell the sampler of tokens that it did not sample, such as a prompt."""

    def add(self, sampler: LlamaSampler) -> None:
        """Append a sampler to a chain, which takes it over."""

    def reset(self) -> None:
        """Forget what was accepted."""

    def clone(self) -> LlamaSampler:
        """An independent copy in the same state."""

    @property
    def seed(self) -> int:
        """The seed in use, 0xFFFFFFFF where none applies."""

    @property
    def names(self) -> list[str]:
        """What it consists of."""

    def __len__(self) -> int: ...

    def __repr__(self) -> str: ...

def json_schema_to_grammar(schema: str) -> str:
    """
    The GBNF grammar of a JSON schema, both as text (json_schema_to_grammar).

    Keywords that llama.cpp does not know are ignored. Raises ValueError for what is no JSON, or no schema, or has
    references that cannot be resolved.
    """

def check_grammar(grammar: str, root: str = 'root') -> None:
    """
    Raise ValueError, with the reason, for what is not a GBNF grammar, or takes too much work to begin with.
    """

class LlamaChatParams:
    """
    A rendered chat, and how the answer is constrained and read (common_chat_params).
    """

    @property
    def prompt(self) -> str:
        """The prompt."""

    @property
    def format(self) -> str:
        """Name of the format of the answer."""

    @property
    def grammar(self) -> str:
        """GBNF that the answer has to fit, or an empty text."""

    @property
    def grammar_lazy(self) -> bool:
        """
        Whether the grammar begins at a trigger only; otherwise it begins with `generation_prompt`.
        """

    @property
    def grammar_triggers(self) -> list[tuple[str, str]]:
        """
        What the grammar begins at: pairs of 'token', 'word', 'pattern' or 'pattern_full' and a text.
        """

    @property
    def generation_prompt(self) -> str:
        """The end of the prompt that is the beginning of the answer."""

    @property
    def supports_thinking(self) -> bool:
        """Whether the format has a place for reasoning."""

    @property
    def thinking_start_tag(self) -> str:
        """What reasoning begins with."""

    @property
    def thinking_end_tags(self) -> list[str]:
        """What reasoning can end with."""

    @property
    def preserved_tokens(self) -> list[str]:
        """Control tokens whose text `parse` has to see."""

    @property
    def additional_stops(self) -> list[str]:
        """Texts that end the answer."""

    @property
    def parser(self) -> str:
        """What `parse` reads answers with, as JSON text (common_peg_arena)."""

    def with_parser(self, parser: str) -> LlamaChatParams:
        """
        The same with another parser, JSON text such as `parser`.

        Raises ValueError if it is no parser, or recurses without a bracket or a brace in between.
        """

    def parse(self, text: str, is_partial: bool = False) -> tuple[str, str, list[tuple[str, str, str]]]:
        """
        Content, reasoning and tool calls (id, name, arguments) of an answer, whole or its beginning.

        Raises RuntimeError if it does not fit the format.
        """

def parser_grammar(parser: str, lazy: bool = False) -> str:
    """
    The GBNF of what a parser reads, JSON text such as `LlamaChatParams.parser`; `lazy`: of its trigger rules only.

    Raises ValueError if it is no parser, or has schemas: their grammars belong into it, as nodes of type 'gbnf'.
    """

class LlamaChatTemplates:
    """
    A model's chat template, or another one in its place (common_chat_templates).
    """

    def __init__(self, model: LlamaModel, chat_template: str = '') -> None:
        """
        Compile `chat_template`, Jinja source, or if it is empty the model's own.

        Raises RuntimeError if it cannot be compiled.
        """

    def apply(self, messages: str, *, tools: str = '', tool_choice: str = 'auto', json_schema: str = '', parallel_tool_calls: bool = False, add_generation_prompt: bool = True, enable_thinking: bool = True, parse_reasoning: bool = True, force_pure_content: bool = False, chat_template_kwargs: Mapping[str, str] = {}) -> LlamaChatParams:
        """
        Render messages, JSON text in OpenAI's format, to a prompt.

        `tools` is JSON text in OpenAI's format, or empty; `tool_choice` is 'auto', 'none' or 'required'.
        `json_schema` is what the answer has to fit. `add_generation_prompt` ends the prompt with the beginning of the
        answer. `force_pure_content` renders without looking for the format of the answer.
        `chat_template_kwargs` are variables of the template, as JSON text.

        Raises RuntimeError if the template refuses the messages, ValueError for what is no JSON.
        """

    @staticmethod
    def known_names() -> list[str]:
        """Names of the chat templates that llama.cpp has without Jinja source."""

    @staticmethod
    def apply_known(name: str, messages: Sequence[tuple[str, str]], add_generation_prompt: bool = True) -> str:
        """
        Render messages, pairs of a role and a content, by one of `known_names` (llama_chat_apply_template).

        Raises ValueError for an unknown name.
        """

    @property
    def specialized(self) -> bool:
        """
        Whether llama.cpp handles the template in a way of its own, which may change messages before they are rendered.
        """

    @property
    def caps(self) -> dict[str, bool]:
        """
        What the template can do: supports_tools, supports_tool_calls, supports_system_role, ...
        """

    @property
    def source(self) -> str:
        """The template in use, as Jinja source."""

    @property
    def was_explicit(self) -> bool:
        """
        Whether the model or the caller named a template; otherwise ChatML is assumed.
        """
