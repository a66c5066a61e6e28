"""A vocabulary that puts a space before every text must not put one into the middle of a conversation."""

from __future__ import annotations

from pathlib import Path

from cyllama import LLM

from ..support.random_models import write_random_model


def held_text(llm: LLM, name: str) -> str:
    conversation = llm._runtime.conversations.find(name)
    assert conversation is not None
    return llm.detokenize(conversation.tokens)


def test_appended_text_is_taken_as_it_is(tmp_path: Path):
    with LLM(write_random_model(tmp_path / "model.gguf", "llama", sentencepiece=True), n_threads=1) as llm:
        assert llm.detokenize(llm.tokenize("Hello world")) == "Hello world"
        ada = llm.session("ada")
        for text in ("Hello ", "wor", "ld", "", "\n", " !"):
            if text:
                ada(text, max_tokens=0)
        assert held_text(llm, "ada") == "Hello world\n !"


def test_the_text_after_a_known_answer_is_taken_as_it_is(tmp_path: Path):
    with LLM(write_random_model(tmp_path / "model.gguf", "llama", sentencepiece=True), n_threads=1) as llm:
        odd = [llm.tokenize(letter)[-1] for letter in "wor"]  # not the tokens that the text "wor" has
        answer = ""
        for token in odd:
            answer += llm.session("ada")("Hello " if not answer else [], max_tokens=1, logit_bias={token: 1e9})
        assert answer == "wor"
        response = llm("Hello world", session="ada", max_tokens=0)
        assert held_text(llm, "ada") == "Hello world"
        assert response.usage.cached_tokens == len(llm.tokenize("Hello ")) + 2


def test_a_stop_string_inside_a_token_leaves_what_the_caller_saw(tmp_path: Path):
    with LLM(write_random_model(tmp_path / "model.gguf", "llama", sentencepiece=True), n_threads=1) as llm:
        vocab = llm.model.vocab
        pieces = ((token, vocab.token_to_piece(token, special=False)) for token in range(vocab.n_tokens))
        token, word = next((token, piece.decode()) for token, piece in pieces if len(piece) > 2 and piece.isalpha())
        ada = llm.session("ada")
        answer = ada("Hello ", logit_bias={token: 1e9}, max_tokens=3, stop_sequences=[word[-1] + word[0]])
        assert (answer, answer.finish_reason) == (word[:-1], "stop")
        assert held_text(llm, "ada") == "Hello " + word[:-1]
        ada("!", max_tokens=0)
        assert held_text(llm, "ada") == "Hello " + word[:-1] + "!"
