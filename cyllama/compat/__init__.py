"""For programs that were written for llama-cpp-python: its class, over :class:`cyllama.LLM`.

>>> from cyllama.compat import Llama
>>> llama = Llama(LLM().model_path)
>>> answer = llama.create_chat_completion([{"role": "user", "content": "What is the capital of France?"}])
>>> answer["choices"][0]["message"]["content"]
'The capital of France is Paris.'
"""

from .chunks import ChunkStream
from .grammar import LlamaGrammar
from .llama import Llama
from .state import LlamaState

__all__ = ["ChunkStream", "Llama", "LlamaGrammar", "LlamaState"]
