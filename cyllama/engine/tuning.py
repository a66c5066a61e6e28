"""The constants of the engine that were tuned: for each one its unit, its effect, and the benchmark that shows it.

A constant changes speed and memory, and an answer only by rounding. Run the benchmark that is named before and after a
change (``make bench``). "Not measured" means that the value was chosen.
"""

from __future__ import annotations

# --- prompts: how many tokens a step evaluates of them

CHUNK = 128
"""Tokens of prompts in a step while no request generates, on a CPU; ``n_ubatch`` on a GPU.

More at once are no faster on a CPU, and a new request waits for the end of the step. A constant, so that a prompt alone
is always evaluated in the same steps, and rounded the same way. Benchmark: callers (time to the first token).
"""

CHUNK_STEPS = 8
"""Steps that only generate, as long as which a chunk of a prompt takes beside requests that generate.

More: prompts are evaluated faster. Less: shorter pauses in the streams of others. Benchmark: callers.
"""

GATHER = 4
"""Chunks in a step where at least as many requests begin with short prompts as generate.

More: simultaneous callers begin in one step, and decode as a full batch. Less: shorter pauses for requests that
generate already. Benchmark: callers (tokens per second of eight callers).
"""

ROWS = 16
"""Tokens that a matrix product of the CPU computes together; a step is filled up to a multiple of it.

What is left over takes much longer per token. Benchmark: agents.
"""

# --- the times of steps, from which chunks get their size

SAMPLES = 9
"""Steps of which the median time is taken: a single slow one, of a busy machine, changes nothing. Not measured."""

MIN_PROMPT = 16
"""Tokens of prompts in a step below which its time says little about what each of many tokens takes. Not measured."""

# --- drafted tokens

MOST_DRAFTED = 15
"""Drafted tokens in a step, of all requests together: with the last token of one request, 16 rows of matrix products.

More: longer repetitions in one step. Each takes memory for the logits of a vocabulary. Benchmark: lookup.
"""

NGRAMS = (3, 2, 1)
"""Numbers of last tokens whose earlier occurrence is looked up, the most first. Benchmark: lookup."""

FIRST_CHANCES = (0.2, 0.2, 0.5, 0.9, 0.95)
"""How likely the token that followed before is the next one again, before anything is known of a request.

For repetitions of one token, of 2 to 3, of 4 to 7, of 8 to 15, and longer ones. Benchmark: lookup.
"""

LEARNING_RATE = 1 / 8
"""Weight of the latest token in these chances. More: faster changes. Benchmark: lookup."""

FIRST_COST = 0.2
"""What a further token is expected to cost in a step wider than all measured ones, as a part of one without drafts.

About half of what was measured on CPUs. Less: more widths are tried that do not pay. More: some that pay are never
tried. Benchmark: lookup.
"""

COST_HORIZON = 512
"""Steps after which the time of a width is measured again. Not measured."""

WORTH = 1.2
"""How many times as fast as a step without drafts one with drafts has to be, at least.

More: less is lost where chances or costs are estimated wrongly. Benchmark: lookup.
"""

MOST_SLOWDOWN = 1.1
"""How many times slower a request may become by the drafts of others. Not measured."""

# --- tokens drafted by a model

SURE = (0.3, 0.6, 0.9)
"""Probabilities of the draft model that divide its tokens by how often they are right. Not measured."""

MODEL_CHANCES = (0.2, 0.45, 0.7, 0.9)
"""How likely a token of each of these kinds is right, before anything is known of a request. Not measured."""

MODEL_USUAL_CHANCE = 0.9
"""How likely a token of the draft model is right, before anything is known of it.

More: it is asked more often, as far as there is credit. Not measured.
"""

MODEL_WORTH = 1.05
"""How many times as fast as one without drafts a step has to be for which the draft model is asked, at least.

Less than :data:`WORTH`, because credit limits what is lost. Benchmark: draft_model.
"""

LEARNING_RATE_OF_ALL = 1 / 2
"""Weight of the latest request in the chance that a new one begins with. Not measured."""

FORGETTING = 1 / 256
"""Weight of this chance in what was learned of a request, for each token that was not drafted.

More: a request of which the draft model was wrong is tried again sooner. Not measured.
"""

ALLOWANCE = 0.025
"""Part of the time of their steps that requests with a draft model may lose by it. Benchmark: draft_model.

What is not measured, such as caches that the other model has filled, comes on top of it.
"""

LEAST_ALLOWANCE = ALLOWANCE / 8
"""The same after three wrong drafts in a row: it is halved after each, and from the third one on the credit.

So a model that is wrong is tried less and less. One that has saved time on the whole is not: it pays for itself.
Benchmark: draft_model.
"""

LOAN = 3
"""Steps without drafts whose time a draft model may lose at first, once for an engine.

More: the draft model evaluates longer prompts of the first answers. Less: it costs less where it is wrong. Without any,
it would never catch up with a first answer: a token of it costs more than the allowance. Benchmark: draft_model.
"""

STAKE = 1 / 2
"""Part of the credit that a draft of several tokens may lose at most, so that the first ones have a single token.

More: a model that is right drafts long sequences sooner. Less: less is lost in each try of one that is not.
Benchmark: draft_model.
"""

MOST_CREDIT = 256
"""Steps without drafts that a draft model may lose of what it has saved.

More: longer prompts are evaluated by the draft model. Less: less is lost by one that is wrong after it was right.
Benchmark: draft_model.
"""

MOST_LOSS = 8
"""Steps that a single one may count as lost: what takes longer is a pause of the machine. Not measured."""

PLANNING_PAUSE = 4
"""Steps before it is planned again whom a draft model is asked about, where it did not pay and there is little credit.

Planning takes time, too.
"""

MOST_MISSING = 16
"""Tokens that the draft model evaluates with the first one that it drafts; more are evaluated before. Not measured."""

LEAST_REMAINING = 64
"""Tokens that a request is expected to generate yet, at least: it decides whether its prompt is worth evaluating."""

PREFILL_SPEEDUP = 4
"""How many times faster the draft model evaluates a token of a prompt than it drafts one, before that was measured."""

# --- LoRA adapters

SLICE_STEPS = 8
"""Steps with the same adapters while requests with others wait; a chunk of a prompt takes as long.

More: fewer switches, each of which takes a tenth to a fifth of a step of a 0.5B model: 2 % of eight steps. Less:
shorter pauses in the streams of others. Measured with adapters of rank 16, by no benchmark that is kept.
"""

# --- admission

QUANTUM = 32
"""Tokens that a request generates before it may be paused for one that waits and got so many less.

Where more requests want to run than may, each runs for two quanta at a time. More: fewer requests move between the
context and host memory. Less: shorter pauses. Measured with 32 conversations of 60 and 256 tokens in 16 places of a 5M
model, by no benchmark that is kept: the longest pauses of quanta of 8, 32 and 128 were 27, 96 and 218 steps, and each
took 2 to 4 % more CPU time than no pause at all. With prompts of 600, quanta of 8 moved three times as many sequences.
"""

FIRST_QUANTUM = 16
"""Tokens that a request generates before it may be paused for one that waits for its first token.

Measured with :data:`QUANTUM`, as half of it: the last one had its first token at step 48 (4), 63 (16), or 93 (64), and
at step 283 without pauses.
"""

PROMPT_COST = 0.5
"""What a token of a prompt counts beside a generated one, where service is compared.

On two cores, a 0.5B model evaluates 334 tokens of prompts in the time in which it generates 145 of eight answers.
A whole prompt counts at most as :data:`QUANTUM`: otherwise its answer would have to wait long after its first token.
"""

MOST_BEGUN = 4
"""Requests of a tenant that have begun, for each that may run at once, before these go on instead of others that begin.

More: more first tokens are early where very many wait. Less: less host memory. Not measured.
"""

PAUSED_HOST_MEMORY = 0.5
"""Part of the host memory for swapped sequences that paused requests may take. Not measured."""

HEADROOM = 32
"""Cells that have to be free for each running request before another one starts, where ``kv_cells`` is fixed.

More: fewer requests that have started have to wait again. Less: more requests at once. Not measured.
"""

MOST_CONSIDERED = 64
"""Waiting requests that admission looks at in one step, where none of them can start yet.

It bounds the time of a step however many wait. Not measured.
"""

DEFAULT_MAX_TOKENS = 512
"""Tokens of an answer without ``max_tokens`` that the first context has room for; then it grows. Not measured."""

MIN_SHARED = 32
"""Tokens of a common prefix for which a checkpoint is taken, or for which a request waits until it can be copied.

More: fewer waits and fewer checkpoints. Less: shorter prefixes are evaluated only once. Not measured.
"""

KEPT_PREFIXES, KEPT_OF_KEY = 16, 4
"""Calls whose KV cache is kept for later ones by ``prefix_cache``: in all, and of one key.

More: more different beginnings are evaluated only once. Each needs an id of the context, or host memory for a copy. Not
measured.
"""

# --- the size of the context

LEAST_GROWTH = 8
"""A context that has to grow grows by at least one in so many of its tokens.

Smaller: it is replaced less often, each time for some milliseconds per 1000 tokens in it. Larger: less memory will do.
Not measured.
"""

MOST_SIZES = 4
"""Sizes of a larger context that are tried, from the largest on, before the least one. Not measured."""

FIRST_RETRY, LAST_RETRY = 32, 4096
"""Steps before a larger context for which there was no memory is tried again: after each failure twice as many.

A failure moves every sequence out of the context and back. Not measured.
"""

# --- idle sequences in the context

IDLE_CELLS = 4096
"""Cells that idle sequences may keep in the context while others run, where attention hardly notices them.

On the CPU with ``llama.cpp/flash_attention.cpp``, they cost 3 % of a step of a 0.5B model (benchmark: idle). On a
GPU a step hardly notices them, and moving 500 tokens of an 8B model takes as long as 30 steps (benchmark: gpu).
"""

IDLE_CELLS_GGML = 512
"""The same where ggml's own attention runs on the CPU, to which an idle cell costs eight times as much.

Benchmark: idle, with ``type_k`` and ``type_v`` other than F16.
"""

COMPACTION_SLACK = 512
"""Cells, beyond twice those in use, that attention may pass over before the cache is compacted for a lone request.

More: less is moved. Less: a lone request is slowed less by cells that others have left. No measurement is recorded.
"""

IDLE_SEQUENCES = 4
"""Sequences besides the ``n_parallel`` running ones that a context has ids for, at least. Not measured."""

IDLE_STATES = 2
"""The same where each sequence has a recurrent state, for which llama.cpp allocates memory at once. Not measured."""

# --- memory of GPUs

GPU_MARGIN = 2**30
"""Bytes that stay free on a GPU where ``n_gpu_layers="auto"`` chooses the layers: llama.cpp's own default.

They are for embeddings, for adapters, and for what the driver and other programs take later.
"""

FIT_N_CTX = 4096
"""Tokens of the context, at least, that get their memory on a GPU before further layers do, as in llama.cpp's tools.

It counts where neither ``n_ctx`` nor ``kv_cells`` is given, and the model was trained for more. Not measured.
"""

# --- host memory

COPY_COST = 1 / 32
"""Time to copy a token's state from host memory, at most, as a part of the time to evaluate the token.

A sequence in host memory is preferred to one in the context where it saves more than that.
Benchmark: conversations (time to the first token).
"""

RETURNING = 4
"""How many times longer a conversation that went on before is kept than one that did not.

More: calls that never come back drive fewer conversations out. Less: closer to least recently used. Not measured.
"""

MOST_CHECKPOINTS = 3
"""Checkpoints of a sequence: one for a prefix that others share, and those of the last two prompts.

More: more points to go back to. Each is a recurrent state or all sliding windows, up to tens of megabytes.
Not measured.
"""

# --- embeddings

MAX_SEQUENCES = 128
"""Texts of one pass: more do not make short ones faster. Benchmark: embeddings."""

MAX_RECURRENT = 4
"""The same where each text has a recurrent state, which takes memory and is computed by itself anyway. Not measured."""

LOGITS_BYTES = 64 * 2**20
"""Bytes of the logits that llama.cpp computes with the embeddings of a generative model, for one piece of the texts.

More: larger pieces, which are no faster once matrix products are full. Less: less memory. Not measured.
"""

LEAST_PIECE = 16
"""Tokens of a piece at least, whatever the vocabulary: what a matrix product computes together, see :data:`ROWS`."""
