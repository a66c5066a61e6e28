#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <climits>
#include <stdexcept>
#include <vector>

#include "big_stack.hpp"
#include "guard.hpp"
#include "model.hpp"
#include "modules.hpp"

namespace {

constexpr size_t kShortText = 512;     // below this, releasing the GIL costs more than tokenising
constexpr size_t kStackPerByte = 1024; // what std::regex needs, measured

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
        throw nb::value_error("the vocabulary has no tokens for a part of the text, not even of single bytes");
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
        throw nb::value_error("the text is longer than 2 GiB");
    }
    const std::string bytes(data, static_cast<size_t>(size));
    if (bytes.size() < kShortText) {
        return tokenize(model, bytes, add_special, parse_special);
    }
    WithoutGil release;
    std::vector<llama_token> tokens;
    // Pre-tokenizers run std::regex, which recurses once per character: a long text overflows an ordinary stack.
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

// A property that reads one value of the vocabulary.
template <auto function> auto read() {
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

} // namespace

void init_vocab(nb::module_ & m) {
    nb::enum_<enum llama_vocab_type>(m, "LlamaVocabType", nb::is_arithmetic(), "The kind of tokenizer.")
        .value("NONE", LLAMA_VOCAB_TYPE_NONE)
        .value("SPM", LLAMA_VOCAB_TYPE_SPM)
        .value("BPE", LLAMA_VOCAB_TYPE_BPE)
        .value("WPM", LLAMA_VOCAB_TYPE_WPM)
        .value("UGM", LLAMA_VOCAB_TYPE_UGM)
        .value("RWKV", LLAMA_VOCAB_TYPE_RWKV)
        .value("PLAMO2", LLAMA_VOCAB_TYPE_PLAMO2);

    nb::class_<LlamaVocab>(m, "LlamaVocab",
                           "A model's vocabulary (llama_vocab): text to token ids and back. Usable from any thread.\n\n"
                           "Special token ids are -1 where the vocabulary has none.")
        .def("tokenize", &tokenize_str, nb::arg("text"), nb::arg("add_special") = true, nb::arg("parse_special") = false,
             "Token ids of `text` (llama_tokenize).\n\n"
             "`add_special` adds BOS and EOS if the model is configured so; `parse_special` reads the text of control\n"
             "tokens as such. Raises UnicodeEncodeError for lone surrogates.")
        .def("token_to_piece", &token_to_piece, nb::arg("token"), nb::arg("lstrip") = 0, nb::arg("special") = false,
             "The bytes of one token, possibly a part of a character; control tokens are empty unless `special`.")
        .def("detokenize", &detokenize, nb::arg("tokens"), nb::arg("remove_special") = false,
             nb::arg("unparse_special") = false,
             "The bytes of many tokens (llama_detokenize).\n\n"
             "`remove_special` leaves out the BOS and EOS that tokenize adds; `unparse_special` renders control tokens.")
        .def_prop_ro("type", read<llama_vocab_type>(), "The kind of tokenizer.")
        .def_prop_ro("n_tokens", read<llama_vocab_n_tokens>(), "Number of tokens.")
        .def("__len__", read<llama_vocab_n_tokens>())
        .def(
            "get_text",
            [](const LlamaVocab & self, llama_token token) {
                ModelUse model(self.handle);
                model.check_token(token);
                return to_str(llama_vocab_get_text(model.vocab(), token));
            },
            nb::arg("token"), "The token as the file spells it.")
        .def("get_score", read_token<llama_vocab_get_score>(), nb::arg("token"), "The token's score.")
        .def(
            "get_attr",
            [](const LlamaVocab & self, llama_token token) {
                ModelUse model(self.handle);
                model.check_token(token);
                return static_cast<int>(llama_vocab_get_attr(model.vocab(), token));
            },
            nb::arg("token"), "The token's attributes, bits of llama_token_attr.")
        .def("is_eog", read_token<llama_vocab_is_eog>(), nb::arg("token"), "Whether it ends a generation.")
        .def("is_control", read_token<llama_vocab_is_control>(), nb::arg("token"), "Whether it is a control token.")
        .def(
            "eog_tokens",
            [](const LlamaVocab & self) {
                ModelUse model(self.handle);
                std::vector<llama_token> tokens;
                model.check_vocab();
                for (llama_token token = 0; token < model.n_vocab(); ++token) {
                    if (llama_vocab_is_eog(model.vocab(), token)) {
                        tokens.push_back(token);
                    }
                }
                return tokens;
            },
            "All tokens that end a generation.")
        .def(
            "control_tokens",
            [](const LlamaVocab & self) {
                ModelUse model(self.handle);
                model.check_vocab();
                nb::list tokens;
                for (llama_token token = 0; token < model.n_vocab(); ++token) {
                    if (llama_vocab_get_attr(model.vocab(), token) &
                        (LLAMA_TOKEN_ATTR_CONTROL | LLAMA_TOKEN_ATTR_UNKNOWN)) {
                        tokens.append(nb::make_tuple(token, to_str(llama_vocab_get_text(model.vocab(), token))));
                    }
                }
                return tokens;
            },
            nb::sig("def control_tokens(self) -> list[tuple[int, str]]"),
            "The tokens that `tokenize` reads with `parse_special` only, control and unknown ones, with their texts.")
        .def(
            "suppress_tokens",
            [](const LlamaVocab & self) {
                ModelUse model(self.handle);
                int32_t n = 0;
                const llama_token * tokens = llama_vocab_get_suppress_tokens(model.vocab(), &n);
                return std::vector<llama_token>(tokens, tokens + std::max(n, 0));
            },
            "Tokens that the model says are never to be sampled.")
        .def_prop_ro("bos", read<llama_vocab_bos>(), "Beginning of sequence.")
        .def_prop_ro("eos", read<llama_vocab_eos>(), "End of sequence.")
        .def_prop_ro("eot", read<llama_vocab_eot>(), "End of turn.")
        .def_prop_ro("sep", read<llama_vocab_sep>(), "Separator.")
        .def_prop_ro("nl", read<llama_vocab_nl>(), "Newline.")
        .def_prop_ro("pad", read<llama_vocab_pad>(), "Padding.")
        .def_prop_ro("mask", read<llama_vocab_mask>(), "Mask.")
        .def_prop_ro("fim_pre", read<llama_vocab_fim_pre>(), "Prefix of fill-in-the-middle.")
        .def_prop_ro("fim_suf", read<llama_vocab_fim_suf>(), "Suffix of fill-in-the-middle.")
        .def_prop_ro("fim_mid", read<llama_vocab_fim_mid>(), "Middle of fill-in-the-middle.")
        .def_prop_ro("fim_pad", read<llama_vocab_fim_pad>(), "Padding of fill-in-the-middle.")
        .def_prop_ro("fim_rep", read<llama_vocab_fim_rep>(), "Repository of fill-in-the-middle.")
        .def_prop_ro("fim_sep", read<llama_vocab_fim_sep>(), "File separator of fill-in-the-middle.")
        .def_prop_ro("add_bos", read<llama_vocab_get_add_bos>(), "Whether prompts begin with BOS.")
        .def_prop_ro("add_eos", read<llama_vocab_get_add_eos>(), "Whether prompts end with EOS.")
        .def_prop_ro("add_sep", read<llama_vocab_get_add_sep>(), "Whether prompts have a separator added.");
}
