// The Python class LlamaVocab.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <climits>
#include <stdexcept>
#include <vector>

#include "big_stack.hpp"
#include "conversion.hpp"
#include "errors.hpp"
#include "guard.hpp"
#include "model.hpp"
#include "modules.hpp"

namespace {

constexpr size_t kShortText = 512;     // bytes: for a shorter text, to release the GIL costs more than to tokenize
constexpr size_t kStackPerByte = 1024; // bytes of stack that std::regex needs for each byte of text, measured

std::vector<llama_token> tokenize(const ModelUse & model, const std::string & text, bool add_special, bool parse_special) {
    std::vector<llama_token> tokens(text.size() + 8);
    const auto run = [&] {
        return llama_tokenize(model.vocab(), text.data(), static_cast<int32_t>(text.size()), tokens.data(),
                              static_cast<int32_t>(tokens.size()), add_special, parse_special);
    };
    int32_t n = 0;
    try {
        n = run();
        if (n < 0 && n != INT32_MIN) {
            tokens.resize(static_cast<size_t>(-static_cast<int64_t>(n)));
            n = run();
        }
    } catch (const std::out_of_range &) {
        throw_value_error("the vocabulary has no tokens for a part of the text, not even of single bytes");
    }
    if (n < 0) {
        throw std::runtime_error("the text has more tokens than llama.cpp can count");
    }
    tokens.resize(static_cast<size_t>(n));
    return tokens;
}

std::vector<llama_token> tokenize_str(const LlamaVocab & self, nb::str text, bool add_special, bool parse_special) {
    LogDelivery delivery;
    ModelUse model(self.handle);
    model.check_vocab();
    Py_ssize_t size = 0;
    const char * data = PyUnicode_AsUTF8AndSize(text.ptr(), &size); // a lone surrogate raises UnicodeEncodeError
    if (!data) {
        throw nb::python_error();
    }
    if (size > INT32_MAX - 8) {
        throw_value_error("the text is longer than 2 GiB");
    }
    const std::string bytes(data, static_cast<size_t>(size));
    if (bytes.size() < kShortText) {
        return tokenize(model, bytes, add_special, parse_special);
    }
    WithoutGil release;
    std::vector<llama_token> tokens;
    // Pre-tokenizers run std::regex, which recurses for each character: a long text would overflow a thread's usual stack.
    run_on_big_stack(bytes.size() * kStackPerByte, [&] { tokens = tokenize(model, bytes, add_special, parse_special); });
    return tokens;
}

nb::bytes token_to_piece(const LlamaVocab & self, llama_token token, int32_t lstrip, bool special) {
    ModelUse model(self.handle);
    model.check_token(token);
    char small[128];
    int32_t n = llama_token_to_piece(model.vocab(), token, small, sizeof small, lstrip, special);
    if (n >= 0) {
        return nb::bytes(small, static_cast<size_t>(n));
    }
    std::vector<char> large(static_cast<size_t>(-n));
    n = llama_token_to_piece(model.vocab(), token, large.data(), static_cast<int32_t>(large.size()), lstrip, special);
    return nb::bytes(large.data(), static_cast<size_t>(std::max(n, 0)));
}

nb::bytes detokenize(const LlamaVocab & self, const std::vector<llama_token> & tokens, bool remove_special,
                     bool unparse_special) {
    ModelUse model(self.handle);
    for (llama_token token : tokens) {
        model.check_token(token);
    }
    if (tokens.empty()) {
        return nb::bytes("", 0);
    }
    std::vector<char> text(tokens.size() * 8 + 64);
    const auto run = [&] {
        return llama_detokenize(model.vocab(), tokens.data(), static_cast<int32_t>(tokens.size()), text.data(),
                                static_cast<int32_t>(text.size()), remove_special, unparse_special);
    };
    int32_t n = run();
    if (n < 0) {
        text.resize(static_cast<size_t>(-static_cast<int64_t>(n)));
        n = run();
    }
    return nb::bytes(text.data(), static_cast<size_t>(std::max(n, 0)));
}

nb::str text_of(const LlamaVocab & self, llama_token token) {
    ModelUse model(self.handle);
    model.check_token(token);
    return to_str(llama_vocab_get_text(model.vocab(), token));
}

int attributes_of(const LlamaVocab & self, llama_token token) {
    ModelUse model(self.handle);
    model.check_token(token);
    return static_cast<int>(llama_vocab_get_attr(model.vocab(), token));
}

std::vector<llama_token> eog_tokens(const LlamaVocab & self) {
    ModelUse model(self.handle);
    std::vector<llama_token> tokens;
    model.check_vocab();
    for (llama_token token = 0; token < model.n_vocab(); ++token) {
        if (llama_vocab_is_eog(model.vocab(), token)) {
            tokens.push_back(token);
        }
    }
    return tokens;
}

nb::list control_tokens(const LlamaVocab & self) {
    ModelUse model(self.handle);
    model.check_vocab();
    nb::list tokens;
    for (llama_token token = 0; token < model.n_vocab(); ++token) {
        if (llama_vocab_get_attr(model.vocab(), token) & (LLAMA_TOKEN_ATTR_CONTROL | LLAMA_TOKEN_ATTR_UNKNOWN)) {
            tokens.append(nb::make_tuple(token, to_str(llama_vocab_get_text(model.vocab(), token))));
        }
    }
    return tokens;
}

std::vector<llama_token> suppress_tokens(const LlamaVocab & self) {
    ModelUse model(self.handle);
    int32_t n = 0;
    const llama_token * tokens = llama_vocab_get_suppress_tokens(model.vocab(), &n);
    return std::vector<llama_token>(tokens, tokens + std::max(n, 0));
}

// A property that reads one value of the vocabulary.
template <auto function> auto vocab_value() {
    return [](const LlamaVocab & self) { return function(ModelUse(self.handle).vocab()); };
}

// A method that reads one value of a token.
template <auto function> auto read_token() {
    return [](const LlamaVocab & self, llama_token token) {
        ModelUse model(self.handle);
        model.check_token(token);
        return function(model.vocab(), token);
    };
}

// Long: a list of bindings.
void init_conversions(nb::class_<LlamaVocab> & vocab) {
    vocab
        .def("tokenize", &tokenize_str, nb::arg("text"), nb::arg("add_special") = true, nb::arg("parse_special") = false,
             R"doc(
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
            )doc")
        .def("token_to_piece", &token_to_piece, nb::arg("token"), nb::arg("lstrip") = 0, nb::arg("special") = false, R"doc(
            Return the text of one token (llama_token_to_piece).

            Args:
                token: Token id.
                lstrip: Number of leading spaces to leave out.
                special: Return the text of a control token; otherwise it is empty.

            Returns:
                UTF-8, possibly only a part of a character.

            Raises:
                ValueError: The vocabulary has no such token.
            )doc")
        .def("detokenize", &detokenize, nb::arg("tokens"), nb::arg("remove_special") = false,
             nb::arg("unparse_special") = false, R"doc(
            Return the text of many tokens (llama_detokenize).

            Args:
                tokens: Token ids.
                remove_special: Leave out the BOS and EOS that `tokenize` adds.
                unparse_special: Write the texts of control tokens.

            Returns:
                UTF-8, which may begin and end within a character.

            Raises:
                ValueError: The vocabulary has no such token.
            )doc")
        .def("get_text", &text_of, nb::arg("token"), R"doc(
            Return a token as the file spells it (llama_vocab_get_text).

            Args:
                token: Token id.

            Raises:
                ValueError: The vocabulary has no such token.
            )doc");
}

void init_tokens(nb::class_<LlamaVocab> & vocab) {
    vocab.def_prop_ro("type", vocab_value<llama_vocab_type>(), "The kind of tokenizer.")
        .def_prop_ro("n_tokens", vocab_value<llama_vocab_n_tokens>(), "Number of tokens.")
        .def("__len__", vocab_value<llama_vocab_n_tokens>())
        .def("get_score", read_token<llama_vocab_get_score>(), nb::arg("token"),
             "Return the score of a token. Raises ValueError if there is no such token.")
        .def("get_attr", &attributes_of, nb::arg("token"),
             "Return the attributes of a token, bits of llama_token_attr. Raises ValueError if there is no such token.")
        .def("is_eog", read_token<llama_vocab_is_eog>(), nb::arg("token"),
             "Return whether a token ends a generation. Raises ValueError if there is no such token.")
        .def("is_control", read_token<llama_vocab_is_control>(), nb::arg("token"),
             "Return whether a token is a control token. Raises ValueError if there is no such token.")
        .def("eog_tokens", &eog_tokens, "Return the ids of all tokens that end a generation.")
        .def("control_tokens", &control_tokens, nb::sig("def control_tokens(self) -> list[tuple[int, str]]"), R"doc(
            Return the control and unknown tokens, which `tokenize` reads from text only with `parse_special`.

            Returns:
                Pairs of a token id and its text.
            )doc")
        .def("suppress_tokens", &suppress_tokens, "Return the ids of tokens that the model says must not be sampled.")
        .def_prop_ro("bos", vocab_value<llama_vocab_bos>(), "Token that begins a sequence, or -1.")
        .def_prop_ro("eos", vocab_value<llama_vocab_eos>(), "Token that ends a sequence, or -1.")
        .def_prop_ro("eot", vocab_value<llama_vocab_eot>(), "Token that ends a turn of a chat, or -1.")
        .def_prop_ro("sep", vocab_value<llama_vocab_sep>(), "Separator token, or -1.")
        .def_prop_ro("nl", vocab_value<llama_vocab_nl>(), "Newline token, or -1.")
        .def_prop_ro("pad", vocab_value<llama_vocab_pad>(), "Padding token, or -1.")
        .def_prop_ro("mask", vocab_value<llama_vocab_mask>(), "Mask token, or -1.")
        .def_prop_ro("fim_pre", vocab_value<llama_vocab_fim_pre>(), "Fill-in-the-middle: token before the prefix, or -1.")
        .def_prop_ro("fim_suf", vocab_value<llama_vocab_fim_suf>(), "Fill-in-the-middle: token before the suffix, or -1.")
        .def_prop_ro("fim_mid", vocab_value<llama_vocab_fim_mid>(), "Fill-in-the-middle: token before the middle, or -1.")
        .def_prop_ro("fim_pad", vocab_value<llama_vocab_fim_pad>(), "Fill-in-the-middle: padding token, or -1.")
        .def_prop_ro("fim_rep", vocab_value<llama_vocab_fim_rep>(), "Fill-in-the-middle: token before a repository, or -1.")
        .def_prop_ro("fim_sep", vocab_value<llama_vocab_fim_sep>(), "Fill-in-the-middle: token between files, or -1.")
        .def_prop_ro("add_bos", vocab_value<llama_vocab_get_add_bos>(), "Whether `tokenize` adds BOS to a text.")
        .def_prop_ro("add_eos", vocab_value<llama_vocab_get_add_eos>(), "Whether `tokenize` adds EOS to a text.")
        .def_prop_ro("add_sep", vocab_value<llama_vocab_get_add_sep>(), "Whether the model separates two texts by `sep`.");
}

} // namespace

void init_vocab(nb::module_ & m) {
    nb::class_<LlamaVocab> vocab(m, "LlamaVocab", R"doc(
        A model's vocabulary (llama_vocab): text to token ids and back.

        Any number of threads may use it. A token id is an int from 0 to n_tokens - 1; the id of a special token that the
        vocabulary lacks is -1.
        )doc");
    init_conversions(vocab);
    init_tokens(vocab);
}
