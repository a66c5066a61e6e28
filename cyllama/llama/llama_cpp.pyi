"""
llama.cpp for Python, memory-safe: names and meanings are those of llama.h.

Every object may be used by any number of threads. What would make llama.cpp end the process raises an exception
instead. Numbers of tokens and positions are int32.
"""

from collections.abc import Callable, Mapping, Sequence
import enum
import os
from typing import overload


def refresh_log_level() -> None:
    """
    Read the level of logger "cyllama.llama" again.

    Records below that level are dropped before they reach Python. Loading a model and creating a context read
    the level themselves: call this after a change in between.
    """

class LlamaDevice:
    """
    A device that computes: a CPU, a GPU or an accelerator (ggml_backend_dev_t).
    """

    @property
    def name(self) -> str:
        """Name for LlamaModelParams.devices."""

    @property
    def description(self) -> str:
        """Name of the hardware."""

    @property
    def type(self) -> str:
        """"cpu", "gpu", "igpu", "accel" or "other"."""

    @property
    def backend(self) -> str:
        """Name of the ggml backend that drives it."""

    @property
    def memory_free(self) -> int:
        """Free memory, in bytes."""

    @property
    def memory_total(self) -> int:
        """Memory, in bytes."""

def devices() -> list[LlamaDevice]:
    """
    Return the devices that models can run on.

    Raises:
        RuntimeError: In a child of os.fork() whose parent has used a GPU.
    """

def backends() -> list[str]:
    """Return the names of the ggml backends in this build."""

def system_info() -> str:
    """
    Return the CPU features and options of this build as text (llama_print_system_info).
    """

def build_info() -> str:
    """Return the name of the llama.cpp build, such as "b10605-b10605"."""

def build_number() -> int:
    """Return the number of the llama.cpp build."""

def compiler() -> str:
    """Return the compiler that built llama.cpp."""

def supports_gpu_offload() -> bool:
    """Return whether layers can be kept on a GPU."""

def supports_mmap() -> bool:
    """Return whether model files can be memory-mapped."""

def supports_mlock() -> bool:
    """Return whether models can be locked into memory."""

def supports_rpc() -> bool:
    """Return whether models can run on remote machines."""

def max_devices() -> int:
    """Return the most devices that a model can use."""

def max_parallel_sequences() -> int:
    """Return the largest `n_seq_max` of a context."""

LLAMA_DEFAULT_SEED: int = 4294967295

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
    """llama.cpp decides."""

    NONE = 0
    """Read into memory."""

    MMAP = 1
    """Memory-mapped."""

    MLOCK = 2
    """Read into memory, and locked there."""

    MMAP_MLOCK = 3
    """Memory-mapped, and locked in memory."""

    DIRECT_IO = 4
    """Read into memory without the page cache."""

class LlamaVocabType(enum.IntEnum):
    """The kind of tokenizer."""

    NONE = 0
    """No vocabulary of text."""

    SPM = 1
    """SentencePiece."""

    BPE = 2
    """Byte pair encoding."""

    WPM = 3
    """WordPiece."""

    UGM = 4
    """Unigram."""

    RWKV = 5
    """Greedy, as in RWKV."""

    PLAMO2 = 6
    """As in PLaMo-2."""

class LlamaContextType(enum.IntEnum):
    """What a context computes."""

    DEFAULT = 0
    """The model."""

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
    """How the embeddings of a sequence's tokens become one."""

    UNSPECIFIED = -1
    """As the model says."""

    NONE = 0
    """One embedding for each token."""

    MEAN = 1
    """Their mean."""

    CLS = 2
    """The embedding of the first token."""

    LAST = 3
    """The embedding of the last token."""

    RANK = 4
    """Scores instead of an embedding."""

class LlamaAttentionType(enum.IntEnum):
    """Which tokens a token attends to."""

    UNSPECIFIED = -1
    """As the model says."""

    CAUSAL = 0
    """Earlier ones."""

    NON_CAUSAL = 1
    """All tokens of its sequence."""

class LlamaFlashAttnType(enum.IntEnum):
    """When to use flash attention."""

    AUTO = -1
    """Where it is supported."""

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

    Where an attribute is not documented here in full, llama.h documents it.

    >>> params = LlamaModelParams()
    >>> params.n_gpu_layers = 0
    """

    def __init__(self) -> None:
        """Set all attributes to the defaults (llama_model_default_params)."""

    @property
    def devices(self) -> list[str]:
        """Names of the devices to use (see `devices()`); empty: all of them."""

    @devices.setter
    def devices(self, arg: Sequence[str], /) -> None: ...

    @property
    def tensor_buft_overrides(self) -> list[tuple[str, str]]:
        """
        Pairs of a regular expression for names of tensors, of at most 1024 bytes, and the buffer type (such as
        "CPU") to keep these tensors in.
        """

    @tensor_buft_overrides.setter
    def tensor_buft_overrides(self, arg: Sequence[tuple[str, str]], /) -> None: ...

    @property
    def n_gpu_layers(self) -> int:
        """Number of layers to keep in GPU memory; negative: all."""

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
        """Index of the GPU for the whole model if `split_mode` is NONE."""

    @main_gpu.setter
    def main_gpu(self, arg: int, /) -> None: ...

    @property
    def tensor_split(self) -> list[float]:
        """Proportion of the model for each GPU; empty: by free memory."""

    @tensor_split.setter
    def tensor_split(self, arg: Sequence[float], /) -> None: ...

    @property
    def progress_callback(self) -> Callable[[float], bool | None] | None:
        """
        Called with the progress, from 0.0 to 1.0. Returning False stops the load.
        """

    @progress_callback.setter
    def progress_callback(self, value: Callable[[float], bool | None] | None) -> None: ...

    @property
    def kv_overrides(self) -> dict[str, bool | int | float | str]:
        """
        Metadata that replaces values of the file; keys and texts have at most 127 bytes.
        """

    @kv_overrides.setter
    def kv_overrides(self, arg: Mapping[str, bool | int | float | str], /) -> None: ...

    @property
    def vocab_only(self) -> bool:
        """Load the vocabulary, without the weights."""

    @vocab_only.setter
    def vocab_only(self, arg: bool, /) -> None: ...

    @property
    def check_tensors(self) -> bool:
        """Check the data of the tensors while they are loaded."""

    @check_tensors.setter
    def check_tensors(self, arg: bool, /) -> None: ...

    @property
    def use_extra_bufts(self) -> bool:
        """Use extra buffer types, to repack weights."""

    @use_extra_bufts.setter
    def use_extra_bufts(self, arg: bool, /) -> None: ...

    @property
    def no_host(self) -> bool:
        """Bypass the host buffer, so that extra buffers can be used."""

    @no_host.setter
    def no_host(self, arg: bool, /) -> None: ...

    @property
    def no_alloc(self) -> bool:
        """
        Load metadata only, and simulate allocations; needs load_mode=LlamaLoadMode.NONE.
        """

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

    A context keeps a copy: changing an attribute afterwards does not change the context. Where an attribute is not
    documented here in full, llama.h documents it.

    >>> params = LlamaContextParams()
    >>> params.n_ctx = 4096
    """

    def __init__(self) -> None:
        """Set all attributes to the defaults (llama_context_default_params)."""

    @property
    def n_ctx(self) -> int:
        """
        Tokens that fit in the context, padded by llama.cpp to a multiple of 256; 0: the training length.
        """

    @n_ctx.setter
    def n_ctx(self, arg: int, /) -> None: ...

    @property
    def n_batch(self) -> int:
        """Most tokens of one decode()."""

    @n_batch.setter
    def n_batch(self, arg: int, /) -> None: ...

    @property
    def n_ubatch(self) -> int:
        """
        Most tokens that are computed at once; a decode() of more takes several passes.
        """

    @n_ubatch.setter
    def n_ubatch(self, arg: int, /) -> None: ...

    @property
    def n_seq_max(self) -> int:
        """Number of sequences, from 1 to max_parallel_sequences()."""

    @n_seq_max.setter
    def n_seq_max(self, arg: int, /) -> None: ...

    @property
    def n_rs_seq(self) -> int:
        """
        Snapshots of the recurrent state that are kept for each sequence, for rollback.
        """

    @n_rs_seq.setter
    def n_rs_seq(self, arg: int, /) -> None: ...

    @property
    def n_outputs_max(self) -> int:
        """Most outputs of one decode(); 0: n_batch."""

    @n_outputs_max.setter
    def n_outputs_max(self, arg: int, /) -> None: ...

    @property
    def n_outputs_max_per_seq(self) -> int:
        """Most outputs of one sequence in a decode(); 0: n_outputs_max."""

    @n_outputs_max_per_seq.setter
    def n_outputs_max_per_seq(self, arg: int, /) -> None: ...

    @property
    def n_threads(self) -> int:
        """Threads that compute single tokens."""

    @n_threads.setter
    def n_threads(self, arg: int, /) -> None: ...

    @property
    def n_threads_batch(self) -> int:
        """Threads that compute batches of tokens."""

    @n_threads_batch.setter
    def n_threads_batch(self, arg: int, /) -> None: ...

    @property
    def ctx_type(self) -> LlamaContextType:
        """What the context computes."""

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
        """Which tokens a token attends to."""

    @attention_type.setter
    def attention_type(self, arg: LlamaAttentionType, /) -> None: ...

    @property
    def flash_attn_type(self) -> LlamaFlashAttnType:
        """When to use flash attention."""

    @flash_attn_type.setter
    def flash_attn_type(self, arg: LlamaFlashAttnType, /) -> None: ...

    @property
    def rope_freq_base(self) -> float:
        """RoPE base frequency; 0: as the model says."""

    @rope_freq_base.setter
    def rope_freq_base(self, arg: float, /) -> None: ...

    @property
    def rope_freq_scale(self) -> float:
        """RoPE frequency scale; 0: as the model says."""

    @rope_freq_scale.setter
    def rope_freq_scale(self, arg: float, /) -> None: ...

    @property
    def yarn_ext_factor(self) -> float:
        """YaRN extrapolation mix; negative: as the model says."""

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
        """YaRN original context size, in tokens."""

    @yarn_orig_ctx.setter
    def yarn_orig_ctx(self, arg: int, /) -> None: ...

    @property
    def defrag_thold(self) -> float:
        """Without effect: deprecated in llama.cpp."""

    @defrag_thold.setter
    def defrag_thold(self, arg: float, /) -> None: ...

    @property
    def cb_eval(self) -> Callable[[str, bool], bool] | None:
        """
        Called twice for each tensor of the graph, with its name and a bool. Slow: for debugging.

        With True, before the tensor is computed: returning True asks for the second call. With False, after it is
        computed: returning False stops the computation.
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
        Called between operations of a decode on the CPU. Returning True aborts the decode.

        LlamaContext.abort() does the same from another thread, and costs no time.
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
        """Do not measure how long computations take."""

    @no_perf.setter
    def no_perf(self, arg: bool, /) -> None: ...

    @property
    def op_offload(self) -> bool:
        """Compute operations on tensors in host memory on a GPU."""

    @op_offload.setter
    def op_offload(self, arg: bool, /) -> None: ...

    @property
    def swa_full(self) -> bool:
        """Give layers with a sliding window a cache of the full size."""

    @swa_full.setter
    def swa_full(self, arg: bool, /) -> None: ...

    @property
    def kv_unified(self) -> bool:
        """Use one buffer of cells for all sequences, instead of one for each."""

    @kv_unified.setter
    def kv_unified(self, arg: bool, /) -> None: ...

    @property
    def samplers(self) -> list[tuple[int, LlamaSampler]] | None:
        """
        Pairs of a sequence id and a sampler chain that runs in the graph of the context. Experimental in llama.cpp.
        """

    @samplers.setter
    def samplers(self, value: list[tuple[int, LlamaSampler]] | None) -> None: ...

    @property
    def ctx_other(self) -> LlamaContext | None:
        """A context of the same model whose memory this one reads."""

    @ctx_other.setter
    def ctx_other(self, value: LlamaContext | None) -> None: ...

    @property
    def threadpool_poll(self) -> int:
        """
        How long the context's threads poll for work before they sleep, from 0 (not) to 100
        (ggml_threadpool_params.poll).
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

class LlamaVocab:
    """
    A model's vocabulary (llama_vocab): text to token ids and back.

    Any number of threads may use it. A token id is an int from 0 to n_tokens - 1; the id of a special token that the
    vocabulary lacks is -1.
    """

    def tokenize(self, text: str, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """
        Convert text to token ids (llama_tokenize).

        Args:
            text: Text of at most 2 GiB in UTF-8.
            add_special: Add BOS and EOS if the model is configured so.
            parse_special: Read the texts of control tokens as these tokens.

        Returns:
            Token ids.

        Raises:
            UnicodeEncodeError: The text has a lone surrogate.
            ValueError: The vocabulary has no tokens for a part of the text, or the text is too long.
        """

    def token_to_piece(self, token: int, lstrip: int = 0, special: bool = False) -> bytes:
        """
        Return the text of one token (llama_token_to_piece).

        Args:
            token: Token id.
            lstrip: Number of leading spaces to leave out.
            special: Return the text of a control token; otherwise it is empty.

        Returns:
            UTF-8, possibly only a part of a character.

        Raises:
            ValueError: The vocabulary has no such token.
        """

    def detokenize(self, tokens: Sequence[int], remove_special: bool = False, unparse_special: bool = False) -> bytes:
        """
        Return the text of many tokens (llama_detokenize).

        Args:
            tokens: Token ids.
            remove_special: Leave out the BOS and EOS that `tokenize` adds.
            unparse_special: Write the texts of control tokens.

        Returns:
            UTF-8, which may begin and end within a character.

        Raises:
            ValueError: The vocabulary has no such token.
        """

    def get_text(self, token: int) -> str:
        """
        Return a token as the file spells it (llama_vocab_get_text).

        Args:
            token: Token id.

        Raises:
            ValueError: The vocabulary has no such token.
        """

    @property
    def type(self) -> LlamaVocabType:
        """The kind of tokenizer."""

    @property
    def n_tokens(self) -> int:
        """Number of tokens."""

    def __len__(self) -> int: ...

    def get_score(self, token: int) -> float:
        """
        Return the score of a token. Raises ValueError if there is no such token.
        """

    def get_attr(self, token: int) -> int:
        """
        Return the attributes of a token, bits of llama_token_attr. Raises ValueError if there is no such token.
        """

    def is_eog(self, token: int) -> bool:
        """
        Return whether a token ends a generation. Raises ValueError if there is no such token.
        """

    def is_control(self, token: int) -> bool:
        """
        Return whether a token is a control token. Raises ValueError if there is no such token.
        """

    def eog_tokens(self) -> list[int]:
        """Return the ids of all tokens that end a generation."""

    def control_tokens(self) -> list[tuple[int, str]]:
        """
        Return the control and unknown tokens, which `tokenize` reads from text only with `parse_special`.

        Returns:
            Pairs of a token id and its text.
        """

    def suppress_tokens(self) -> list[int]:
        """Return the ids of tokens that the model says must not be sampled."""

    @property
    def bos(self) -> int:
        """Token that begins a sequence, or -1."""

    @property
    def eos(self) -> int:
        """Token that ends a sequence, or -1."""

    @property
    def eot(self) -> int:
        """Token that ends a turn of a chat, or -1."""

    @property
    def sep(self) -> int:
        """Separator token, or -1."""

    @property
    def nl(self) -> int:
        """Newline token, or -1."""

    @property
    def pad(self) -> int:
        """Padding token, or -1."""

    @property
    def mask(self) -> int:
        """Mask token, or -1."""

    @property
    def fim_pre(self) -> int:
        """Fill-in-the-middle: token before the prefix, or -1."""

    @property
    def fim_suf(self) -> int:
        """Fill-in-the-middle: token before the suffix, or -1."""

    @property
    def fim_mid(self) -> int:
        """Fill-in-the-middle: token before the middle, or -1."""

    @property
    def fim_pad(self) -> int:
        """Fill-in-the-middle: padding token, or -1."""

    @property
    def fim_rep(self) -> int:
        """Fill-in-the-middle: token before a repository, or -1."""

    @property
    def fim_sep(self) -> int:
        """Fill-in-the-middle: token between files, or -1."""

    @property
    def add_bos(self) -> bool:
        """Whether `tokenize` adds BOS to a text."""

    @property
    def add_eos(self) -> bool:
        """Whether `tokenize` adds EOS to a text."""

    @property
    def add_sep(self) -> bool:
        """Whether the model separates two texts by `sep`."""

class LlamaModel:
    """
    A loaded GGUF model (llama_model).

    Contexts created from it keep it in memory. Any number of threads may use it. It is a context manager that closes
    itself.

    >>> with LlamaModel("model.gguf") as model:
    ...     print(model.desc, model.n_params)
    """

    def __init__(self, path: str | os.PathLike[str], params: LlamaModelParams | None = None) -> None:
        """
        Load a GGUF file (llama_model_load_from_file).

        The GIL is released meanwhile. Ctrl-C stops the load.

        Args:
            path: The file; of a split model, its first file.
            params: How to load it; llama.cpp's defaults if None.

        Raises:
            OSError: The file cannot be read: FileNotFoundError, IsADirectoryError, PermissionError.
            ValueError: The file is not GGUF, or a parameter is out of range.
            RuntimeError: llama.cpp cannot load it, or a callback stopped the load; with the reason.
        """

    def close(self) -> None:
        """
        Free the model, and every context created from it, at once (llama_model_free).

        Waits for computations in other threads. Closing a closed model does nothing.

        Raises:
            RuntimeError: Called from a callback of a computation. Every other use of a closed model raises it, too.
        """

    @property
    def closed(self) -> bool:
        """Whether close() was called."""

    def __enter__(self) -> LlamaModel: ...

    def __exit__(self, *args: object) -> None: ...

    def __repr__(self) -> str: ...

    @property
    def path(self) -> str:
        """The file it was loaded from."""

    @property
    def vocab(self) -> LlamaVocab:
        """The vocabulary."""

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata of the file, without arrays."""

    def chat_template(self, name: str | None = None) -> str | None:
        """
        Return a chat template of the model (llama_model_chat_template).

        Args:
            name: Name of the template, such as "tool_use"; None for the default one.

        Returns:
            Jinja source, or None if the model has no such template.
        """

    @property
    def desc(self) -> str:
        """
        Architecture, size and quantization, such as "llama 1B Q4_0" (llama_model_desc).
        """

    @property
    def ftype(self) -> str:
        """Quantization, such as "Q4_0"."""

    def kv_cache_bytes(self, params: LlamaContextParams) -> dict[str, int] | None:
        """
        Return what the memory of a context takes: keys and values, sliding windows, recurrent states.

        Args:
            params: The parameters of the context. Its sizes, data types, `swa_full` and `offload_kqv` matter.

        Returns:
            Bytes by the name of the device, at most 2**63 - 1 each; no devices for a model without a memory. None for
            the few architectures with a memory of their own kind (DeepSeek V3.2 and V4, MiniMax M3).
        """

    @property
    def layer_devices(self) -> list[str]:
        """
        The name of the device that each layer is on, the output as the last one.

        Empty with vocab_only.
        """

    @property
    def n_mapped_bytes(self) -> int:
        """
        Size of the weights that every token reads where the file is mapped into memory, in bytes. The others have
        buffers of their own.
        """

    def copy_mapped_weights(self) -> None:
        """
        Have a thread copy the weights that every token reads where the file is mapped into memory to large pages.

        They are read faster there, and no longer shared with other processes. The thread begins a second later, and
        replaces 2 MiB at a time, while others compute. What another mapping of the file shares at that time stays, as
        does everything on systems without such pages.
        """

    @property
    def size(self) -> int:
        """Size of all tensors, in bytes."""

    @property
    def n_params(self) -> int:
        """Number of parameters."""

    @property
    def n_ctx_train(self) -> int:
        """Context length of the training, in tokens."""

    @property
    def n_positions(self) -> int:
        """
        Number of learned position embeddings: the most tokens of a sequence. 0 where positions are
        computed (RoPE, ALiBi, a recurrent state), so that they do not limit a sequence.
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
        """Number of layers for multi-token prediction."""

    @property
    def n_head(self) -> int:
        """Number of attention heads; 0 with vocab_only."""

    @property
    def n_head_kv(self) -> int:
        """Number of key-value heads; 0 with vocab_only."""

    @property
    def n_swa(self) -> int:
        """Sliding window in tokens; 0 if there is none."""

    @property
    def rope_freq_scale_train(self) -> float:
        """Scale of the RoPE frequencies in the training."""

    @property
    def has_encoder(self) -> bool:
        """Whether it has an encoder: see LlamaContext.encode."""

    @property
    def has_decoder(self) -> bool:
        """Whether it has a decoder, to generate with."""

    @property
    def decoder_start_token(self) -> int:
        """First token of the output of an encoder-decoder model, or -1."""

    @property
    def is_recurrent(self) -> bool:
        """Whether it is recurrent (Mamba, RWKV, ...)."""

    @property
    def is_hybrid(self) -> bool:
        """Whether it has both attention and recurrent layers."""

    @property
    def is_causal(self) -> bool:
        """Whether a token attends to earlier ones only, as generation needs."""

    @property
    def is_diffusion(self) -> bool:
        """Whether it is a diffusion model."""

class LlamaAdapterLora:
    """
    A LoRA adapter of a model (llama_adapter_lora). It keeps the model in memory.

    It has no effect before LlamaContext.set_adapters_lora().

    >>> with LlamaAdapterLora(model, "adapter.gguf") as adapter:
    ...     context.set_adapters_lora([(adapter, 1.0)])
    """

    def __init__(self, model: LlamaModel, path: str | os.PathLike[str]) -> None:
        """
        Load a GGUF file (llama_adapter_lora_init), between two decodes of the model's contexts.

        The GIL is released meanwhile.

        Args:
            model: The model that the adapter was made for.
            path: The file.

        Raises:
            OSError: The file cannot be read: FileNotFoundError, IsADirectoryError, PermissionError.
            ValueError: The file is not GGUF.
            RuntimeError: The file is not an adapter, is damaged, or was made for another model; or this thread
                computes.
        """

    def close(self) -> None:
        """
        Free the adapter, as soon as it is set in no context (llama_adapter_lora_free).

        Closing a closed adapter does nothing; every other use of it raises RuntimeError.
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
        """The metadata of the file, without arrays."""

    @property
    def alora_invocation_tokens(self) -> list[int]:
        """
        Token ids behind which an activated LoRA (aLoRA) takes effect; empty for any other adapter.
        """

    def __repr__(self) -> str: ...

class LlamaImage:
    """
    An image as a projector has prepared it (mtmd_input_chunks). It never changes.
    """

    @property
    def parts(self) -> list[list[int] | int]:
        """
        What it is in a prompt, in order: lists of token ids, and numbers of tokens that are embeddings.

        The tokens of one number belong together: where a projector is `non_causal`, they are evaluated in one batch.
        """

    @property
    def n_tokens(self) -> int:
        """How many embeddings it becomes."""

class LlamaEmbeddings:
    """Embeddings of an image, for LlamaBatch.add_embeddings()."""

    def __len__(self) -> int:
        """How many tokens they are."""

    @property
    def n_embd(self) -> int:
        """Numbers of each token."""

    @property
    def nbytes(self) -> int:
        """Bytes of memory that they take."""

class LlamaProjector:
    """
    Makes embeddings of a model from images (mtmd_context). It keeps the model in memory.

    >>> projector = LlamaProjector(model, "mmproj.gguf")
    >>> embeddings = projector.encode(projector.prepare(rgb, width, height))
    """

    def __init__(self, model: LlamaModel, path: str | os.PathLike[str], n_threads: int = 4, use_gpu: bool = True) -> None:
        """
        Load a GGUF file (mtmd_init_from_file). The GIL is released meanwhile.

        Args:
            model: The model that the projector was made for.
            path: The file, which is often called mmproj.
            n_threads: Threads that encode an image on the CPU, from 1 to 512.
            use_gpu: Encode on a GPU, if there is one.

        Raises:
            OSError: The file cannot be read: FileNotFoundError, IsADirectoryError, PermissionError.
            ValueError: The file is not GGUF, or `n_threads` is out of range.
            RuntimeError: The file is not a projector of images, is damaged, or was made for another model; or the
                model has positions of several dimensions (M-RoPE).
        """

    def prepare(self, rgb: bytes, width: int, height: int) -> LlamaImage:
        """
        Resize an image, and cut it into slices, as the model wants it (mtmd_tokenize).

        The GIL is released meanwhile. Any number of threads may do so at once, also while another one encodes.

        Args:
            rgb: Three bytes for each pixel, row by row from the top: red, green, blue.
            width, height: In pixels: at most 2**26 pixels, and no side more than 200 times the other.

        Raises:
            ValueError: The size is out of range, or not that of `rgb`.
            RuntimeError: The projector cannot prepare the image.
        """

    def encode(self, image: LlamaImage) -> LlamaEmbeddings:
        """
        Compute the embeddings of an image (mtmd_encode_chunk). The GIL is released meanwhile.

        Args:
            image: What prepare() returned.

        Raises:
            ValueError: Another projector has prepared the image.
            RuntimeError: The computation failed, or its results are not finite numbers.
        """

    @property
    def non_causal(self) -> bool:
        """
        Whether the tokens of an image attend to each other in both directions.
        """

    @property
    def path(self) -> str:
        """The file."""

    @property
    def n_embd(self) -> int:
        """Numbers of an embedding."""

    def __repr__(self) -> str: ...

def projector_memory(path: str | os.PathLike[str], *, use_gpu: bool) -> dict[str, int]:
    """
    Return the bytes that a projector takes by device: its tensors, and what it computes a large image with.

    llama.cpp tells (mtmd_get_memory_usage), which takes that memory for a moment. Nothing is read but the header of the
    file. The GIL is released meanwhile.

    Args:
        path: The file.
        use_gpu: Whether it is to encode on a GPU, if there is one.

    Raises:
        OSError: The file cannot be read: FileNotFoundError, IsADirectoryError, PermissionError.
        ValueError: The file is not GGUF.
        MemoryError: The device has less.
        RuntimeError: It is not a projector of images, or is damaged.
    """

class LlamaBatch:
    """
    Tokens of one or many sequences, which one LlamaContext.decode() evaluates (llama_batch).

    >>> batch = LlamaBatch(8)
    >>> batch.add_sequence([1, 2, 3])
    >>> len(batch)
    3
    """

    def __init__(self, n_tokens: int, n_seq_max: int = 1) -> None:
        """
        Create an empty batch.

        Args:
            n_tokens: Capacity in tokens, at most 2**24.
            n_seq_max: Most sequences that a token can belong to. `n_tokens * n_seq_max` is at most 2**24.

        Raises:
            ValueError: An argument is out of range.
        """

    def add(self, token: int, pos: int, seq_ids: Sequence[int] = [0], logits: bool = False) -> None:
        """
        Append one token.

        Args:
            token: Token id.
            pos: Its position in each of its sequences, from 0 to 2**30.
            seq_ids: The sequences that it belongs to, from 1 to `n_seq_max` of them.
            logits: Compute its logits.

        Raises:
            ValueError: The batch is full, or an argument is out of range.
        """

    def clear(self) -> None:
        """Remove all tokens."""

    def add_sequence(self, tokens: Sequence[int], pos: int = 0, seq_id: int = 0, logits_last: bool = True, logits_all: bool = False) -> None:
        """
        Append the tokens of one sequence, at positions `pos`, `pos + 1`, ...

        Args:
            tokens: Token ids.
            pos: Position of the first token, from 0 to 2**30.
            seq_id: The sequence.
            logits_last: Compute the logits of the last token.
            logits_all: Compute the logits of all tokens, as embeddings need it.

        Raises:
            ValueError: The tokens do not fit, or a position is out of range. Then nothing is appended.
        """

    def set_embeddings(self, embeddings: LlamaEmbeddings, first: int, n: int, pos: int = 0, seq_id: int = 0, logits_last: bool = False, whole: bool = False) -> None:
        """
        Fill an empty batch with embeddings of one sequence, at positions `pos`, `pos + 1`, ...

        Args:
            embeddings: What LlamaProjector.encode() returned.
            first: The first one to take.
            n: How many to take.
            pos: Position of the first one, from 0 to 2**30.
            seq_id: The sequence.
            logits_last: Compute the logits after the last one.
            whole: They attend to each other in both directions, so that they are computed in one pass:
                there are at most `n_ubatch` of them.

        Raises:
            ValueError: The batch is not empty or too small, or an argument is out of range.
        """

    def __len__(self) -> int: ...

    @property
    def capacity(self) -> int:
        """Most tokens in the batch."""

    @property
    def n_seq_max(self) -> int:
        """Most sequences that a token can belong to."""

class LlamaContext:
    """
    A KV cache and the threads that compute with it (llama_context).

    Any number of threads may use a context: they wait for each other. The GIL is released while it computes. A context
    keeps its model in memory. It is a context manager that closes itself.

    >>> context = LlamaContext(model)
    >>> batch = LlamaBatch(512)
    >>> batch.add_sequence(model.vocab.tokenize("Hello"))
    >>> context.decode(batch)
    0
    >>> token = LlamaSampler.greedy().sample(context)
    """

    def __init__(self, model: LlamaModel, params: LlamaContextParams | None = None) -> None:
        """
        Create a context (llama_init_from_model), with a persistent pool of `n_threads` threads of its own.

        Args:
            model: The model.
            params: How to create it; llama.cpp's defaults if None.

        Raises:
            ValueError: A parameter is out of range.
            MemoryError: The KV cache is larger than the machine's memory.
            RuntimeError: llama.cpp cannot create it, with the reason.
        """

    def close(self) -> None:
        """
        Free the KV cache, the buffers and the threads at once (llama_free).

        Waits for a decode in another thread. Closing a closed context does nothing; every other use of it raises
        RuntimeError.
        """

    @property
    def closed(self) -> bool:
        """Whether it, or its model, was closed."""

    def __enter__(self) -> LlamaContext: ...

    def __exit__(self, *args: object) -> None: ...

    def __repr__(self) -> str: ...

    @property
    def n_ctx(self) -> int:
        """Tokens that fit in all sequences, padded by llama.cpp (llama_n_ctx)."""

    @property
    def n_ctx_seq(self) -> int:
        """Tokens that fit in one sequence (llama_n_ctx_seq)."""

    @property
    def n_batch(self) -> int:
        """Most tokens of one decode() (llama_n_batch)."""

    @property
    def n_ubatch(self) -> int:
        """Most tokens that are computed at once (llama_n_ubatch)."""

    @property
    def n_seq_max(self) -> int:
        """Number of sequences (llama_n_seq_max)."""

    @property
    def n_rs_seq(self) -> int:
        """
        Snapshots of the recurrent state that are kept for each sequence (llama_n_rs_seq).
        """

    @property
    def n_threads(self) -> int:
        """Threads that compute single tokens (llama_n_threads)."""

    @property
    def n_threads_batch(self) -> int:
        """Threads that compute batches of tokens (llama_n_threads_batch)."""

    @property
    def pooling_type(self) -> LlamaPoolingType:
        """How embeddings are pooled (llama_pooling_type)."""

    @property
    def has_memory(self) -> bool:
        """
        Whether it keeps what it decoded. The context of a model that only makes embeddings does not.
        """

    def set_n_threads(self, n_threads: int, n_threads_batch: int) -> None:
        """
        Replace the context's threads (llama_set_n_threads).

        Args:
            n_threads: Threads that compute single tokens.
            n_threads_batch: Threads that compute batches of tokens.

        Raises:
            ValueError: A number is out of range.
            RuntimeError: The system cannot start so many threads.
        """

    def pause_threads(self) -> None:
        """
        Let the context's threads sleep until its next computation (ggml_threadpool_pause).

        They would stay awake for a while, as `threadpool_poll` says, and take time from another context's threads.
        """

    def set_embeddings(self, embeddings: bool) -> None:
        """
        Choose whether decode() computes embeddings (llama_set_embeddings).

        Raises:
            ValueError: The context has no space for the outputs of `n_ubatch` tokens.
        """

    def set_causal_attn(self, causal_attn: bool) -> None:
        """
        Choose whether a token attends to earlier ones only (llama_set_causal_attn).
        """

    def synchronize(self) -> None:
        """
        Wait until all computations are finished (llama_synchronize). Methods that read outputs do this themselves.
        """

    def abort(self) -> None:
        """
        Abort the decode that runs in another thread, on the CPU, and every later one, until clear_abort().

        An aborted decode returns 2. This method never waits.
        """

    def clear_abort(self) -> None:
        """Let decodes run again after abort()."""

    def decode(self, batch: LlamaBatch) -> int:
        """
        Evaluate a batch (llama_decode).

        Args:
            batch: At most `n_batch` tokens; at most `n_ubatch` if tokens attend to later ones. The positions of a
                sequence must follow its last one.

        Returns:
            0 on success. 1 if the KV cache has no space for the batch: then nothing has changed. 2 if the decode was
            aborted: sequences may have lost positions, see seq_pos_max().

        Raises:
            ValueError: The batch cannot be evaluated: it is empty or too large, a token id, a position or a sequence
                is out of range, or it asks for too many outputs.
            RuntimeError: The computation failed, with llama.cpp's reason.
        """

    def decode_and_sample(self, batch: LlamaBatch, samplers: Sequence[tuple[int, LlamaSampler]]) -> tuple[int, list[int], dict[int, Exception]]:
        """
        Evaluate a batch and sample from it, without taking the GIL in between.

        Args:
            batch: As for decode().
            samplers: Pairs of the index of a token in the batch, which must have logits, and the sampler to use.
                Several samplers may use the same token.

        Returns:
            The status, as of decode(). One token id for each sampler, or none if the status is not 0. The exceptions
            of samplers that failed, by their index in `samplers`: their token is -1. A grammar that takes too much
            work is a ValueError, any other failure a RuntimeError.

        Raises:
            IndexError: A token has no logits.
            ValueError, RuntimeError: As for decode().
        """

    def decode_and_verify(self, batch: LlamaBatch, samplers: Sequence[tuple[int, LlamaSampler, int]]) -> tuple[int, list[list[int]], dict[int, Exception]]:
        """
        Evaluate a batch with drafts of what will be sampled, and sample as far as the drafts are right.

        A sampler chooses the token after the first one, and as long as that is the next one of the batch, the token
        after that. Each is accepted, so that a sampler is in the same state as if every token had been decoded alone.
        The positions of drafts that were not sampled are still in the memory: see seq_rm().

        Args:
            batch: As for decode().
            samplers: Triples of the index of a token in the batch, the sampler to use, and how many of the tokens that
                follow in the batch, of the same sequence, are drafts. All of these tokens must have logits.

        Returns:
            The status, as of decode(). What each sampler chose, at least one token and at most one more than were
            drafted, or none if the status is not 0. The exceptions of samplers that failed, by their index in
            `samplers`, as of decode_and_sample(): their tokens are those from before the failure.

        Raises:
            IndexError: A token has no logits.
            ValueError, RuntimeError: As for decode().
        """

    def encode(self, batch: LlamaBatch) -> None:
        """
        Evaluate a batch with the encoder of an encoder-decoder model (llama_encode).

        Args:
            batch: At most `n_ubatch` tokens.

        Raises:
            ValueError: The model has no encoder, or the batch cannot be evaluated.
            RuntimeError: The computation failed or was aborted.
        """

    def get_logits_ith(self, i: int = -1) -> memoryview:
        """
        Return the logits of a token of the last batch (llama_get_logits_ith).

        Args:
            i: Index of the token in the batch; -1 is the last token with an output, -2 the one before.

        Returns:
            A copy: float32 of shape (n_vocab,).

        Raises:
            IndexError: The token has no output.
            RuntimeError: The token was sampled in the graph.
        """

    def get_logprobs_ith(self, i: int, token: int, n_top: int = 0) -> tuple[float, list[tuple[int, float]]]:
        """
        Return natural logarithms of probabilities, by the model's own logits, before any sampler.

        One pass over the vocabulary, without the GIL.

        Args:
            i: Index of a token, as for get_logits_ith().
            token: Token id whose probability to follow token `i` is wanted.
            n_top: Number of likeliest tokens to return, from 0 to n_vocab.

        Returns:
            The logarithm for `token`, and pairs of a token id and its logarithm for the `n_top` likeliest tokens,
            most likely first.

        Raises:
            IndexError: Token `i` has no output.
            ValueError: `token` or `n_top` is out of range.
            RuntimeError: Token `i` was sampled in the graph.
        """

    def get_embeddings_ith(self, i: int = -1) -> memoryview:
        """
        Return the embedding of one token, without pooling (llama_get_embeddings_ith).

        Args:
            i: Index of the token, as for get_logits_ith().

        Returns:
            A copy: float32 of shape (n_embd_out,).

        Raises:
            IndexError: The token has no output.
            RuntimeError: The context computes no embeddings, or pools them.
        """

    def get_embeddings_seq(self, seq_id: int = 0) -> memoryview:
        """
        Return the pooled embedding of a sequence of the last batch (llama_get_embeddings_seq).

        Args:
            seq_id: The sequence.

        Returns:
            A copy: float32 of shape (n_embd_out,). With pooling type RANK, its scores: float32 of shape (n_cls_out,).

        Raises:
            ValueError: The context has no such sequence.
            RuntimeError: The context computes no embeddings, or does not pool them.
        """

    def kv_cache_clear(self, clear_data: bool = True) -> None:
        """
        Remove all tokens from the KV cache (llama_memory_clear).

        Args:
            clear_data: Also write zeros to the buffers, which takes time in proportion to n_ctx. Without it, only the
                metadata is cleared, in microseconds, which is enough for a new generation.
        """

    def kv_cache_rewind(self) -> bool:
        """
        Let the next tokens take the first free cells, instead of those behind the cells that were taken last.

        Returns:
            False if llama.cpp cannot do that for this memory: then nothing has changed.
        """

    @property
    def can_shift(self) -> bool:
        """
        Whether seq_add() and seq_div() work: not for every model, and only if type_k is F16 or F32.
        """

    def seq_rm(self, seq_id: int, p0: int = -1, p1: int = -1) -> bool:
        """
        Remove positions [p0, p1) of a sequence (llama_memory_seq_rm).

        Args:
            seq_id: The sequence, or -1 for all of them.
            p0: First position to remove; negative: from the beginning.
            p1: First position to keep; negative: to the end.

        Returns:
            False if this memory cannot remove a part of a sequence: then nothing has changed.

        Raises:
            ValueError: The context has no such sequence.
        """

    def seq_cp(self, seq_id_src: int, seq_id_dst: int, p0: int = -1, p1: int = -1) -> None:
        """
        Copy positions [p0, p1) of a sequence to another one (llama_memory_seq_cp).

        Args:
            seq_id_src: The sequence to copy.
            seq_id_dst: The other one.
            p0: First position to copy; negative: from the beginning.
            p1: First position not to copy; negative: to the end.

        Raises:
            ValueError: The context has no such sequence; or it has no kv_unified, and [p0, p1) is only a part of the
                sequence.
        """

    def seq_keep(self, seq_id: int) -> None:
        """
        Remove all other sequences (llama_memory_seq_keep).

        Raises:
            ValueError: The context has no such sequence.
        """

    def seq_add(self, seq_id: int, p0: int, p1: int, delta: int) -> None:
        """
        Add `delta` to the positions [p0, p1) of a sequence (llama_memory_seq_add).

        Raises:
            ValueError: The context has no such sequence, or a position would be out of range.
            RuntimeError: can_shift is False.
        """

    def seq_div(self, seq_id: int, p0: int, p1: int, d: int) -> None:
        """
        Divide the positions [p0, p1) of a sequence by `d`, and round down (llama_memory_seq_div).

        Raises:
            ValueError: The context has no such sequence, or `d` is not positive.
            RuntimeError: can_shift is False.
        """

    def seq_pos_min(self, seq_id: int) -> int:
        """
        Return the smallest position of a sequence, or -1 if it is empty (llama_memory_seq_pos_min).

        Raises:
            ValueError: The context has no such sequence.
        """

    def seq_pos_max(self, seq_id: int) -> int:
        """
        Return the largest position of a sequence, or -1 if it is empty (llama_memory_seq_pos_max).

        Raises:
            ValueError: The context has no such sequence.
        """

    def set_adapters_lora(self, adapters: Sequence[tuple[LlamaAdapterLora, float]]) -> None:
        """
        Compute with these LoRA adapters, and no others, from the next decode on (llama_set_adapters_lora).

        What the KV cache holds stays as it was computed. If the adapters change, the next decode reserves its memory
        again.

        Args:
            adapters: Pairs of an adapter of the context's model and its scale, a finite float32. An adapter of
                scale 0 is left out.

        Raises:
            ValueError: An adapter of another model, or given twice, a scale that is not finite, or more adapters
                than the graph has nodes for.
            RuntimeError: An adapter is closed.
        """

    def memory_use(self) -> list[LlamaMemoryUse]:
        """Return the memory that the context and its model take, by device."""

    def state_get_data(self) -> bytes:
        """
        Save the state of all sequences (llama_state_get_data).

        Returns:
            Bytes for state_set_data(): a header with a checksum, and the state.

        Raises:
            ValueError: The context has n_rs_seq > 0: save each sequence.
        """

    def state_set_data(self, data: bytes) -> None:
        """
        Restore the state of all sequences (llama_state_set_data).

        Args:
            data: What state_get_data() returned.

        Raises:
            ValueError: The bytes are damaged, or were saved with another model.
            RuntimeError: The state does not fit this context. Then what it was to replace is gone.
        """

    def state_save_file(self, path: str | os.PathLike[str], tokens: Sequence[int] = []) -> None:
        """
        Save the state of all sequences to a file, which is complete or absent.

        Args:
            path: The file.
            tokens: Token ids to save with the state.

        Raises:
            OSError: The file cannot be written.
            ValueError: The context has n_rs_seq > 0: save each sequence.
        """

    def state_load_file(self, path: str | os.PathLike[str]) -> list[int]:
        """
        Restore the state of all sequences from a file.

        Args:
            path: A file of state_save_file().

        Returns:
            The token ids saved with the state.

        Raises:
            OSError: The file cannot be read.
            ValueError: The file is damaged, or was saved with another model.
            RuntimeError: The state does not fit this context. Then what it was to replace is gone.
        """

    def state_seq_get_data(self, seq_id: int, flags: int = 0) -> bytes:
        """
        Save the state of one sequence (llama_state_seq_get_data_ext).

        Args:
            seq_id: The sequence.
            flags: 0, or LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY: only the parts that cannot be rolled back (recurrent
                states, sliding windows).

        Returns:
            Bytes for state_seq_set_data(): a header with a checksum, and the state.

        Raises:
            ValueError: The context has no such sequence, or llama.cpp no such flag.
        """

    def state_seq_copy(self, seq_id: int, flags: int = 0) -> LlamaState:
        """
        Save the state of one sequence for state_seq_set_data() in this process: faster than as bytes.

        Args:
            seq_id: The sequence.
            flags: As for state_seq_get_data().

        Raises:
            ValueError: The context has no such sequence, or llama.cpp no such flag.
        """

    @overload
    def state_seq_set_data(self, data: LlamaState, seq_id: int, flags: int = 0) -> None: ...

    @overload
    def state_seq_set_data(self, data: bytes, seq_id: int, flags: int = 0) -> None:
        """
        Replace a sequence by a saved one (llama_state_seq_set_data_ext).

        Args:
            data: What state_seq_get_data() or state_seq_copy() returned.
            seq_id: The sequence to replace.
            flags: The flags that `data` was saved with.

        Raises:
            ValueError: The data is damaged, or was saved with another model or other flags; or the context has no such
                sequence.
            RuntimeError: The state does not fit this context. Then what it was to replace is gone.
        """

    def state_seq_save_file(self, path: str | os.PathLike[str], seq_id: int, tokens: Sequence[int] = []) -> None:
        """
        Save the state of one sequence to a file, which is complete or absent.

        Args:
            path: The file.
            seq_id: The sequence.
            tokens: Token ids to save with the state.

        Raises:
            OSError: The file cannot be written.
            ValueError: The context has no such sequence.
        """

    def state_seq_load_file(self, path: str | os.PathLike[str], seq_id: int) -> list[int]:
        """
        Replace a sequence by one from a file.

        Args:
            path: A file of state_seq_save_file().
            seq_id: The sequence to replace.

        Returns:
            The token ids saved with the state.

        Raises:
            OSError: The file cannot be read.
            ValueError: The file is damaged, or was saved with another model; or the context has no such sequence.
            RuntimeError: The state does not fit this context. Then what it was to replace is gone.
        """

class LlamaMemoryUse:
    """The memory that a model and a context take on one device, in bytes."""

    @property
    def device(self) -> str:
        """Name of the device; that of the CPU stands for host memory."""

    @property
    def weights(self) -> int:
        """Weights of the model."""

    @property
    def kv_cache(self) -> int:
        """Memory of the context: keys, values, recurrent states."""

    @property
    def compute(self) -> int:
        """Buffers for what is computed."""

def weights_memory(model: LlamaModel) -> list[LlamaMemoryUse]:
    """
    Return the memory that the weights of a model take, by device.

    Weights in a file that is mapped into memory are counted as host memory.
    """

def memory_needed(model: LlamaModel, params: LlamaContextParams) -> list[LlamaMemoryUse]:
    """
    Return the memory that a model and a context would take, by device, without loading or allocating them.

    The recurrent states of a model are allocated for a moment. The GIL is released meanwhile.

    Args:
        model: A model that was loaded with no_alloc=True and load_mode=LlamaLoadMode.NONE.
        params: The parameters of the context; callbacks and samplers are left out.

    Raises:
        ValueError: The model was loaded otherwise, or a parameter is out of range.
        MemoryError: The KV cache is larger than the machine's memory.
        RuntimeError: llama.cpp cannot create such a context, with the reason.
    """

def fit_params(model: LlamaModel, model_params: LlamaModelParams, context_params: LlamaContextParams, *, margin: int, n_ctx_min: int, reserved: Mapping[str, int] = {}) -> tuple[LlamaModelParams, int]:
    """
    Return parameters with which a model fits into the free memory of the GPUs (common_fit_params).

    Prepares the model and a context a few times, without allocating them. The GIL is released meanwhile.

    Args:
        model: The model, loaded with no_alloc=True and load_mode=LlamaLoadMode.NONE.
        model_params: How it is to be loaded. `n_gpu_layers` has to be negative.
        context_params: The context that has to fit too. With n_ctx=0, a smaller context is preferred to fewer layers.
        margin: Bytes to leave free on each GPU.
        n_ctx_min: Least tokens of the context with n_ctx=0.
        reserved: Bytes to leave free beside the margin, by the name of the device; for a model without GPUs, "CPU".

    Returns:
        `model_params` with other layers, split and buffers if not all layers fit, and the `n_ctx` that fits; 0 for the
        training length.

    Raises:
        ValueError: The model was loaded otherwise, a parameter is out of range, or a device is not a GPU.
        RuntimeError: llama.cpp cannot fit these parameters, with the reason.
    """

class LlamaState:
    """
    The state of one sequence, in memory that is given back to the system at once.

    >>> state = context.state_seq_copy(0)
    >>> context.state_seq_set_data(state, 1)
    >>> context.state_seq_set_data(bytes(state), 2)
    """

    def __len__(self) -> int:
        """Size in bytes."""

    def __bytes__(self) -> bytes:
        """The same bytes as LlamaContext.state_seq_get_data() returns."""

class LlamaSampler:
    """
    Chooses the next token (llama_sampler).

    A sampler is one method, or a chain of them whose last one selects a token: greedy, dist, mirostat, mirostat_v2 or
    adaptive_p.

    >>> sampler = LlamaSampler.chain([
    ...     LlamaSampler.top_k(40), LlamaSampler.temp(0.8), LlamaSampler.dist(seed=1)
    ... ])
    >>> token = sampler.sample(context)
    """

    def accept(self, tokens: Sequence[int]) -> None:
        """
        Tell the sampler about tokens that it did not sample, such as a prompt (llama_sampler_accept).

        Args:
            tokens: Token ids.

        Raises:
            ValueError: A token id is out of range.
            RuntimeError: A grammar does not allow a token, or the sampler belongs to a chain.
        """

    def add(self, sampler: LlamaSampler) -> None:
        """
        Append a sampler to this chain, which takes it over (llama_sampler_chain_add).

        Args:
            sampler: The sampler, which cannot be used alone any more.

        Raises:
            TypeError: This is not a chain, or `sampler` is one.
            ValueError: `sampler` was made for a vocabulary of another size, or is this chain.
            RuntimeError: A context runs this chain, or `sampler` belongs to a chain.
        """

    def reset(self) -> None:
        """Forget the accepted tokens (llama_sampler_reset)."""

    def clone(self) -> LlamaSampler:
        """Return an independent copy in the same state (llama_sampler_clone)."""

    @property
    def seed(self) -> int:
        """The seed in use; 0xFFFFFFFF if there is none (llama_sampler_get_seed)."""

    @property
    def names(self) -> list[str]:
        """llama.cpp's names of the samplers that it consists of."""

    def __len__(self) -> int: ...

    def __repr__(self) -> str: ...

    @staticmethod
    def greedy() -> LlamaSampler:
        """Select the most likely token (llama_sampler_init_greedy)."""

    @staticmethod
    def dist(seed: int = 4294967295) -> LlamaSampler:
        """
        Select a token at random, by its probability (llama_sampler_init_dist).

        Args:
            seed: Makes the choice reproducible; 0xFFFFFFFF draws a random one.
        """

    @staticmethod
    def mirostat(n_vocab: int, seed: int, tau: float, eta: float, m: int = 100) -> LlamaSampler:
        """
        Mirostat 1.0: select with a target surprise (llama_sampler_init_mirostat, https://arxiv.org/abs/2007.14966).

        Args:
            n_vocab: Vocabulary size.
            seed: As for dist().
            tau: Target surprise, in bits.
            eta: Learning rate.
            m: Number of tokens that the estimate of the distribution uses, at least 2.

        Raises:
            ValueError: An argument is out of range.
        """

    @staticmethod
    def mirostat_v2(seed: int, tau: float, eta: float) -> LlamaSampler:
        """
        Mirostat 2.0: select with a target surprise (llama_sampler_init_mirostat_v2, https://arxiv.org/abs/2007.14966).

        Args:
            seed: As for dist().
            tau: Target surprise, in bits.
            eta: Learning rate.

        Raises:
            ValueError: `tau` or `eta` is not finite.
        """

    @staticmethod
    def adaptive_p(target: float, decay: float = 0.8999999761581421, seed: int = 4294967295) -> LlamaSampler:
        """
        Select tokens near a target probability over time (llama_sampler_init_adaptive_p, llama.cpp #17927).

        Args:
            target: Target probability.
            decay: Weight of the past, from 0 to 0.99.
            seed: As for dist().

        Raises:
            ValueError: An argument is out of range.
        """

    @staticmethod
    def top_k(k: int) -> LlamaSampler:
        """
        Keep the k most likely tokens (llama_sampler_init_top_k, https://arxiv.org/abs/1904.09751).

        Args:
            k: Number of tokens; 0 or less keeps all.
        """

    @staticmethod
    def top_p(p: float, min_keep: int = 0) -> LlamaSampler:
        """
        Keep the most likely tokens whose probabilities add up to p (llama_sampler_init_top_p,
        https://arxiv.org/abs/1904.09751).

        Args:
            p: Sum of probabilities.
            min_keep: Least number of tokens to keep.

        Raises:
            ValueError: `p` is not finite.
        """

    @staticmethod
    def min_p(p: float, min_keep: int = 0) -> LlamaSampler:
        """
        Keep tokens at least p times as likely as the most likely one (llama_sampler_init_min_p, llama.cpp #3841).

        Args:
            p: Factor, from 0 to 1.
            min_keep: Least number of tokens to keep.

        Raises:
            ValueError: `p` is not finite.
        """

    @staticmethod
    def typical(p: float, min_keep: int = 0) -> LlamaSampler:
        """
        Locally typical sampling (llama_sampler_init_typical, https://arxiv.org/abs/2202.00666).

        Args:
            p: Sum of the probabilities of the tokens to keep.
            min_keep: Least number of tokens to keep.

        Raises:
            ValueError: `p` is not finite.
        """

    @staticmethod
    def xtc(p: float, t: float, min_keep: int = 0, seed: int = 4294967295) -> LlamaSampler:
        """
        With probability p, exclude all tokens above a threshold except the least likely one of them
        (llama_sampler_init_xtc, text-generation-webui #6335).

        Args:
            p: Probability that tokens are excluded, from 0 to 1.
            t: Threshold: a probability.
            min_keep: Least number of tokens to keep.
            seed: As for dist().

        Raises:
            ValueError: `p` or `t` is not finite.
        """

    @staticmethod
    def top_n_sigma(n: float) -> LlamaSampler:
        """
        Keep tokens within n standard deviations of the largest logit (llama_sampler_init_top_n_sigma,
        https://arxiv.org/abs/2411.07641).

        Args:
            n: Number of standard deviations.

        Raises:
            ValueError: `n` is not finite.
        """

    @staticmethod
    def infill(vocab: LlamaVocab) -> LlamaSampler:
        """
        For fill-in-the-middle, after top_k and top_p (llama_sampler_init_infill).

        Args:
            vocab: The model's vocabulary.

        Raises:
            ValueError: The vocabulary has no token that ends a turn or a sequence.
        """

    @staticmethod
    def temp(t: float) -> LlamaSampler:
        """
        Divide the logits by a temperature (llama_sampler_init_temp).

        Args:
            t: Temperature; 0 or less keeps the largest logit only.

        Raises:
            ValueError: `t` is not finite.
        """

    @staticmethod
    def temp_ext(t: float, delta: float, exponent: float) -> LlamaSampler:
        """
        Dynamic temperature, by entropy (llama_sampler_init_temp_ext, https://arxiv.org/abs/2309.02772).

        Args:
            t: Temperature in the middle of the range; 0 or less keeps the largest logit only.
            delta: The range is from t - delta to t + delta.
            exponent: Maps the normalized entropy to the range.

        Raises:
            ValueError: An argument is not finite.
        """

    @staticmethod
    def penalties(n_vocab: int, penalty_last_n: int, penalty_repeat: float = 1.0, penalty_freq: float = 0.0, penalty_present: float = 0.0) -> LlamaSampler:
        """
        Make recently accepted tokens less likely (llama_sampler_init_penalties).

        Args:
            n_vocab: Vocabulary size.
            penalty_last_n: Number of last tokens that count, from 0 to 2**24.
            penalty_repeat: Divides positive logits of these tokens and multiplies negative ones. Positive; 1 has no
                effect.
            penalty_freq: Subtracted from a logit once for each occurrence of the token.
            penalty_present: Subtracted from a logit once if the token occurs.

        Raises:
            ValueError: An argument is out of range.
        """

    @staticmethod
    def dry(vocab: LlamaVocab, dry_multiplier: float, dry_base: float = 1.75, dry_allowed_length: int = 2, dry_penalty_last_n: int = 64, seq_breakers: Sequence[str] = ['\n', ':', '"', '*']) -> LlamaSampler:
        """
        Make tokens less likely that would extend a repetition (llama_sampler_init_dry, text-generation-webui #5677).

        Args:
            vocab: The model's vocabulary.
            dry_multiplier: Size of the penalty; 0: no effect.
            dry_base: Base of its growth with the length of the repetition.
            dry_allowed_length: Longest repetition without a penalty, in tokens.
            dry_penalty_last_n: Number of last tokens that are searched, from 0 to 2**24.
            seq_breakers: Texts that a repetition does not go beyond.

        Raises:
            ValueError: An argument is out of range.
        """

    @staticmethod
    def logit_bias(n_vocab: int, logit_bias: Sequence[tuple[int, float]]) -> LlamaSampler:
        """
        Add biases to logits (llama_sampler_init_logit_bias).

        Args:
            n_vocab: Vocabulary size.
            logit_bias: Pairs of a token id and its bias.

        Raises:
            ValueError: A token id is out of range, or a bias is NaN.
        """

    @staticmethod
    def grammar(vocab: LlamaVocab, grammar: str, root: str = 'root') -> LlamaSampler:
        """
        Keep tokens that continue a text of a grammar.

        It follows the grammar with a machine of cyllama's own, which bounds the work for each token.

        Args:
            vocab: The model's vocabulary.
            grammar: GBNF.
            root: Name of the rule that the text has to fit.

        Raises:
            ValueError: The grammar is not valid GBNF, or its beginning takes too much work.
        """

    @staticmethod
    def grammar_lazy(vocab: LlamaVocab, grammar: str, root: str, trigger_patterns: Sequence[str], trigger_tokens: Sequence[int]) -> LlamaSampler:
        """
        A grammar that begins at a trigger, and allows every token before (llama.cpp #9639).

        Args:
            vocab: The model's vocabulary.
            grammar: GBNF.
            root: Name of the rule that the text has to fit.
            trigger_patterns: Regular expressions (ECMAScript). The grammar's text begins with the first capture group
                of a match, or with the match.
            trigger_tokens: Token ids. The grammar's text begins with such a token.

        Raises:
            ValueError: The grammar or a pattern is not valid, or a token id is out of range.
        """

    @staticmethod
    def reasoning_budget(vocab: LlamaVocab, start: str, ends: Sequence[str], forced: Sequence[int], budget: int, inside: bool = False, anywhere: bool = False) -> LlamaSampler:
        """
        Limit the tokens of reasoning. In a chain with a grammar, a token is forced only if the grammar allows it.

        Args:
            vocab: The model's vocabulary.
            start: Text that reasoning begins with.
            ends: Texts that reasoning can end with.
            forced: Token ids that follow when the budget is used up.
            budget: Most tokens of reasoning, 0 or more.
            inside: The prompt ends within reasoning.
            anywhere: Reasoning may begin behind other text, too, and again.

        Raises:
            ValueError: A text or `forced` is empty, `budget` is negative, or a token id is out of range.
        """

    @staticmethod
    def chain(samplers: Sequence[LlamaSampler] = [], no_perf: bool = True) -> LlamaSampler:
        """
        Samplers that are applied one after the other (llama_sampler_chain_init).

        Args:
            samplers: The samplers. The chain takes them over: they cannot be used alone any more.
            no_perf: Do not measure how long sampling takes.

        Raises:
            TypeError: A sampler is a chain.
            ValueError: A sampler occurs twice, or samplers were made for vocabularies of different sizes.
            RuntimeError: A sampler belongs to a chain.
        """

    def sample(self, context: LlamaContext, i: int = -1) -> int:
        """
        Select a token from an output of the context's last decode, and accept it (llama_sampler_sample).

        Args:
            context: The context.
            i: Index of a token in the batch; -1 is the last token with an output, -2 the one before.

        Returns:
            Token id.

        Raises:
            IndexError: There is no such output.
            ValueError: The sampler was made for a vocabulary of another size.
            RuntimeError: The sampler selects no token, a logit is NaN, a grammar takes too much work, or the sampler
                belongs to a chain.
        """

def check_grammar(grammar: str, root: str = 'root') -> None:
    """
    Check a grammar without a vocabulary.

    Args:
        grammar: GBNF.
        root: Name of the rule that a text has to fit.

    Raises:
        ValueError: The grammar is not valid GBNF, with the reason, or its beginning takes too much work.
    """

def json_schema_to_grammar(schema: str) -> str:
    """
    Convert a JSON schema to a GBNF grammar (json_schema_to_grammar).

    llama.cpp ignores keywords that it does not know.

    Args:
        schema: JSON text of at most 4 MiB.

    Returns:
        The grammar, with the rule "root".

    Raises:
        ValueError: The text is not JSON, or not a schema, or has references that cannot be resolved.
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
        """Name of the format of the answer (common_chat_format_name)."""

    @property
    def grammar(self) -> str:
        """GBNF that the answer has to fit, or an empty text."""

    @property
    def grammar_lazy(self) -> bool:
        """
        Whether the grammar begins at a trigger; otherwise it begins with `generation_prompt`.
        """

    @property
    def grammar_triggers(self) -> list[tuple[str, str]]:
        """
        Triggers of the grammar: pairs of a kind ('token', 'word', 'pattern' or 'pattern_full') and a text.
        """

    @property
    def generation_prompt(self) -> str:
        """The end of the prompt, which is the beginning of the answer."""

    @property
    def supports_thinking(self) -> bool:
        """Whether the format has a place for reasoning."""

    @property
    def thinking_start_tag(self) -> str:
        """Text that reasoning begins with."""

    @property
    def thinking_end_tags(self) -> list[str]:
        """Texts that reasoning can end with."""

    @property
    def preserved_tokens(self) -> list[str]:
        """Texts of control tokens that parse() has to see."""

    @property
    def additional_stops(self) -> list[str]:
        """Texts that end the answer."""

    @property
    def parser(self) -> str:
        """The parser that parse() uses, as JSON text (common_peg_arena)."""

    def with_parser(self, parser: str) -> LlamaChatParams:
        """
        Return a copy with another parser.

        Args:
            parser: JSON text, as of the attribute `parser`.

        Raises:
            ValueError: The text is not a parser, or the parser recurses without a bracket or a brace in between.
        """

    def parse(self, text: str, is_partial: bool = False) -> tuple[str, str, list[tuple[str, str, str]]]:
        """
        Read an answer (common_chat_parse).

        Args:
            text: The answer, or its beginning.
            is_partial: The text is only the beginning.

        Returns:
            Content, reasoning, and tool calls: triples of id, name and arguments, which are JSON text.

        Raises:
            RuntimeError: The text does not fit the format, or is nested too deep.
        """

def parser_grammar(parser: str, lazy: bool = False) -> str:
    """
    Return the grammar of the texts that a parser reads.

    Args:
        parser: JSON text, as of LlamaChatParams.parser.
        lazy: Only the part of the grammar that follows a trigger.

    Returns:
        GBNF.

    Raises:
        ValueError: The text is not a parser, or the parser has schemas: a schema's grammar belongs into it, as a node
            of type 'gbnf'.
    """

class LlamaChatTemplates:
    """
    The chat template of a model, or another one in its place (common_chat_templates).
    """

    def __init__(self, model: LlamaModel, chat_template: str = '') -> None:
        """
        Compile a chat template (common_chat_templates_init).

        Args:
            model: The model.
            chat_template: Jinja source; if empty, the model's own template.

        Raises:
            RuntimeError: The template cannot be compiled, or takes too much work, memory or stack.
        """

    def apply(self, messages: str, *, tools: str = '', tool_choice: str = 'auto', json_schema: str = '', parallel_tool_calls: bool = False, add_generation_prompt: bool = True, enable_thinking: bool = True, parse_reasoning: bool = True, force_pure_content: bool = False, chat_template_kwargs: Mapping[str, str] = {}) -> LlamaChatParams:
        """
        Render messages to a prompt (common_chat_templates_apply).

        Args:
            messages: JSON text, a list of messages in OpenAI's format.
            tools: JSON text, a list of tools in OpenAI's format; or empty.
            tool_choice: 'auto', 'none' or 'required'.
            json_schema: JSON text, a schema that the answer has to fit; or empty.
            parallel_tool_calls: The answer may have several tool calls.
            add_generation_prompt: End the prompt with the beginning of the answer.
            enable_thinking: Ask the template for an answer with reasoning.
            parse_reasoning: LlamaChatParams.parse() returns reasoning apart from the content.
            force_pure_content: Do not look for the format of the answer: all of it is content.
            chat_template_kwargs: Variables of the template, each as JSON text.

        Raises:
            ValueError: A text is not JSON, `tool_choice` is unknown, or a schema has references that cannot be
                resolved.
            RuntimeError: The template refuses the messages, or takes too much work, memory or stack.
        """

    @staticmethod
    def known_names() -> list[str]:
        """
        Return the names of chat templates that llama.cpp has in code (llama_chat_builtin_templates).
        """

    @staticmethod
    def apply_known(name: str, messages: Sequence[tuple[str, str]], add_generation_prompt: bool = True) -> str:
        """
        Render messages with a chat template that llama.cpp has in code (llama_chat_apply_template).

        Args:
            name: One of known_names().
            messages: Pairs of a role and a content.
            add_generation_prompt: End the prompt with the beginning of the answer.

        Returns:
            The prompt.

        Raises:
            ValueError: There is no such template.
            RuntimeError: The template cannot be applied.
        """

    @property
    def specialized(self) -> bool:
        """
        Whether llama.cpp handles the template with code of its own, which may change messages before they are
        rendered.
        """

    @property
    def caps(self) -> dict[str, bool]:
        """
        What the template supports: supports_tools, supports_tool_calls, supports_system_role, ...
        """

    @property
    def source(self) -> str:
        """The template in use, as Jinja source."""

    @property
    def was_explicit(self) -> bool:
        """
        Whether the model or the caller has a template; otherwise ChatML is used.
        """
