"""What other programs call our options, for hints in errors."""

from __future__ import annotations

from collections.abc import Iterable

_PATH = "the path or name of the model is the first argument, model_path"
_LOAD_MODE = "load_mode says how the file is read"
_FORMAT = "response_format takes a JSON schema, a pydantic model or 'json'"
_ADAPTER = "load_lora() loads an adapter, and the option lora says which ones a generation uses"
_DRAFTS = "speculation='lookup' drafts tokens from the text itself, and draft_model is a model that drafts them"
_HISTORY = "a chat takes all messages in its first argument"

#: What to do instead, by names that are options of other programs and none of ours.
HINTS = {
    "assistant_model": "did you mean 'draft_model'?",
    "best_of": "n=8 makes several answers",
    "cache_prompt": "did you mean 'prefix_cache'?",
    "cache_type_k": "did you mean 'type_k'?",
    "cache_type_v": "did you mean 'type_v'?",
    "chat_format": "calls of chat() take a chat_template, also by its name",
    "chat_handler": "calls of chat() take a chat_template",
    "context_length": "did you mean 'n_ctx'?",
    "context_size": "did you mean 'n_ctx'?",
    "ctx_size": "did you mean 'n_ctx'?",
    "do_sample": "temperature=0 always takes the most likely token",
    "echo": "the prompt is not part of the response",
    "embedding": "embed() works without an option",
    "file": _PATH,
    "filename": "LLM.from_pretrained(repo_id, filename) takes it",
    "format": _FORMAT,
    "function_call": "did you mean 'tool_choice'?",
    "functions": "did you mean 'tools'?",
    "guided_choice": _FORMAT,
    "guided_json": _FORMAT,
    "history": _HISTORY,
    "json_schema": _FORMAT,
    "logits_all": "logprobs works without it",
    "logits_processor": "logit_bias, grammar and response_format restrict what is sampled",
    "lora_adapters": _ADAPTER,
    "lora_path": _ADAPTER,
    "max_completion_tokens": "did you mean 'max_tokens'?",
    "max_length": "did you mean 'max_tokens'?",
    "max_model_len": "did you mean 'n_ctx'?",
    "max_seq_len": "did you mean 'n_ctx'?",
    "messages": _HISTORY,
    "model": _PATH,
    "model_draft": "did you mean 'draft_model'?",
    "model_file": _PATH,
    "model_id": _PATH,
    "model_kwargs": "every option is an argument of its own",
    "model_name": _PATH,
    "n": "it is an argument of llm(prompt) and agenerate()",
    "n_predict": "did you mean 'max_tokens'?",
    "ngl": "did you mean 'n_gpu_layers'?",
    "num_ctx": "did you mean 'n_ctx'?",
    "num_gpu": "did you mean 'n_gpu_layers'?",
    "num_predict": "did you mean 'max_tokens'?",
    "num_thread": "did you mean 'n_threads'?",
    "path": _PATH,
    "prompt_lookup": _DRAFTS,
    "prompt_lookup_num_tokens": _DRAFTS,
    "repeat_last_n": "did you mean 'penalty_last_n'?",
    "repetition_penalty": "did you mean 'repeat_penalty'?",
    "schema": _FORMAT,
    "speculative_config": _DRAFTS,
    "speculative_model": "did you mean 'draft_model'?",
    "stop_token_ids": "stop takes texts",
    "stopping_criteria": "an exception in on_token, or cancel() of a stream, ends a generation",
    "stream_options": "the response of a stream always has its usage",
    "system": "a message with the role 'system' says it",
    "system_prompt": "a message with the role 'system' says it",
    "temp": "did you mean 'temperature'?",
    "tfs_z": "llama.cpp has no such sampler any more",
    "think": "did you mean 'enable_thinking'?",
    "top_a": "llama.cpp has no such sampler",
    "top_logprobs": "logprobs is the number of alternatives",
    "use_mlock": _LOAD_MODE,
    "use_mmap": _LOAD_MODE,
    "vocab_only": "every model is loaded with its weights",
}


def hint_for(name: str, known: Iterable[str]) -> str:
    """Return what a caller may have meant by an unknown option; empty where nothing is near.

    >>> hint_for("temprature", ["temperature", "top_k"])
    "did you mean 'temperature'?"
    >>> hint_for("path", ["n_batch"])
    'the path or name of the model is the first argument, model_path'

    Args:
        name: The unknown name.
        known: The names of all options.
    """
    import difflib  # here, because it takes a millisecond, and only errors need it

    if name in HINTS:
        return HINTS[name]
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.65)
    return f"did you mean {nearest[0]!r}?" if nearest else ""
