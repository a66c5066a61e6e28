#include "state_format.hpp"

#include <cstddef>
#include <cstring>
#include <stdexcept>
#include <string>

#include "errors.hpp"
#include "logging.hpp"

namespace {

constexpr uint32_t kMagic = 0x53594c43; // "CLYS"
constexpr uint32_t kVersion = 2;

struct Header {
    uint32_t magic;
    uint32_t version;
    uint32_t kind;     // see kind_of()
    uint32_t n_tokens; // number of token ids between the header and the state
    uint64_t model;    // fingerprint of the model
    uint64_t size;     // bytes of the state
    uint64_t checksum; // of the token ids and the state; 0 in a state that does not leave the process
};

// A 64-bit checksum at memory speed: four independent lanes of multiply and rotate.
uint64_t checksum(const uint8_t * data, size_t size) {
    constexpr uint64_t kPrime = 0x9e3779b185ebca87ULL;
    uint64_t lanes[4] = {size, kPrime, ~size, ~kPrime};
    size_t i = 0;
    for (; i + 32 <= size; i += 32) {
        for (int lane = 0; lane < 4; ++lane) {
            uint64_t word;
            std::memcpy(&word, data + i + 8 * lane, 8);
            lanes[lane] = (lanes[lane] ^ word) * kPrime;
            lanes[lane] = (lanes[lane] << 29) | (lanes[lane] >> 35);
        }
    }
    uint64_t hash = lanes[0];
    for (int lane = 1; lane < 4; ++lane) {
        hash = (hash ^ lanes[lane]) * kPrime;
        hash ^= hash >> 32;
    }
    for (; i < size; ++i) {
        hash = (hash ^ data[i]) * kPrime;
        hash ^= hash >> 32;
    }
    return hash;
}

// Tells models apart: a state of another model of the same shape would fit, and be wrong.
uint64_t fingerprint(uint64_t weights, const llama_model * model) {
    char name[128] = {};
    llama_model_desc(model, name, sizeof name);
    const uint64_t numbers[] = {llama_model_n_params(model),
                                llama_model_size(model),
                                static_cast<uint64_t>(llama_model_n_layer(model)),
                                static_cast<uint64_t>(llama_model_n_embd(model)),
                                static_cast<uint64_t>(llama_model_n_head_kv(model)),
                                static_cast<uint64_t>(llama_vocab_n_tokens(llama_model_get_vocab(model)))};
    return checksum(reinterpret_cast<const uint8_t *>(numbers), sizeof numbers) ^
           checksum(reinterpret_cast<const uint8_t *>(name), sizeof name) ^ weights;
}

// 0 for the whole context; an odd number for one sequence, with the flags, which say what was saved of it.
uint32_t kind_of(llama_seq_id seq_id, uint32_t flags) {
    if (flags & ~static_cast<uint32_t>(LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY)) {
        throw_value_error("flags can only be LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY, not " + std::to_string(flags));
    }
    return seq_id == kWholeContext ? 0 : 1 + 2 * flags;
}

size_t state_size(llama_context * context, llama_seq_id seq_id, uint32_t flags) {
    return seq_id == kWholeContext ? llama_state_get_size(context) : llama_state_seq_get_size_ext(context, seq_id, flags);
}

size_t head_size(const std::vector<llama_token> & tokens) { return sizeof(Header) + tokens.size() * sizeof(llama_token); }

uint64_t checksum_of(const uint8_t * bytes, size_t size) { return checksum(bytes + sizeof(Header), size - sizeof(Header)); }

[[noreturn]] void refuse(const std::string & why) { throw_value_error("not a usable state: " + why); }

// Refuses a state that is damaged, or was saved from something else.
Header check(const llama_context * context, uint64_t weights, const uint8_t * data, size_t size, uint32_t kind,
             bool trusted) {
    Header header;
    if (size < sizeof header) {
        refuse("it has " + std::to_string(size) + " bytes, fewer than a header");
    }
    std::memcpy(&header, data, sizeof header);
    if (header.magic != kMagic) {
        refuse("it was not saved by this library");
    }
    if (header.version != kVersion) {
        refuse("it has version " + std::to_string(header.version) + ", but this library reads version " +
               std::to_string(kVersion));
    }
    if (header.kind != kind) {
        refuse(header.kind == 0 ? "it holds a whole context: use the state_ methods"
               : kind == 0      ? "it holds one sequence: use the state_seq_ methods"
                                : "it was saved with other flags");
    }
    const size_t rest = size - sizeof header;
    if (header.n_tokens > rest / sizeof(llama_token) || header.size != rest - header.n_tokens * sizeof(llama_token)) {
        refuse("it is truncated");
    }
    if (!trusted && header.checksum != checksum_of(data, size)) {
        refuse("its checksum is wrong: it is damaged");
    }
    if (header.model != fingerprint(weights, llama_get_model(context))) {
        refuse("it was saved with another model");
    }
    return header;
}

} // namespace

void check_state_flags(uint32_t flags) { kind_of(0, flags); }

size_t saved_size(llama_context * context, llama_seq_id seq_id, const std::vector<llama_token> & tokens, uint32_t flags) {
    if (seq_id == kWholeContext && llama_n_rs_seq(context) > 0) {
        throw_value_error("the state of a context with n_rs_seq > 0 can be saved only sequence by sequence");
    }
    return head_size(tokens) + state_size(context, seq_id, flags);
}

size_t save_state(llama_context * context, uint64_t weights, llama_seq_id seq_id, const std::vector<llama_token> & tokens,
                  uint32_t flags, uint8_t * bytes, size_t capacity, bool with_checksum) {
    const size_t head = head_size(tokens);
    if (!tokens.empty()) {
        std::memcpy(bytes + sizeof(Header), tokens.data(), tokens.size() * sizeof(llama_token));
    }
    const size_t size = capacity - head;
    const size_t written = seq_id == kWholeContext
                               ? llama_state_get_data(context, bytes + head, size)
                               : llama_state_seq_get_data_ext(context, bytes + head, size, seq_id, flags);
    if (written == 0 || written > size) {
        throw std::runtime_error("cannot save the state: " + logged_errors("llama.cpp gave no reason"));
    }
    const Header header{kMagic,
                        kVersion,
                        kind_of(seq_id, flags),
                        static_cast<uint32_t>(tokens.size()),
                        fingerprint(weights, llama_get_model(context)),
                        written,
                        with_checksum ? checksum_of(bytes, head + written) : 0};
    std::memcpy(bytes, &header, sizeof header);
    return head + written;
}

void add_checksum(uint8_t * bytes, size_t size) {
    const uint64_t sum = checksum_of(bytes, size);
    std::memcpy(bytes + offsetof(Header, checksum), &sum, sizeof sum);
}

SavedState check_state(const llama_context * context, uint64_t weights, const uint8_t * data, size_t size,
                       llama_seq_id seq_id, uint32_t flags, bool trusted) {
    const Header header = check(context, weights, data, size, kind_of(seq_id, flags), trusted);
    SavedState state{std::vector<llama_token>(header.n_tokens), nullptr, header.size};
    if (!state.tokens.empty()) {
        std::memcpy(state.tokens.data(), data + sizeof header, state.tokens.size() * sizeof(llama_token));
    }
    state.data = data + head_size(state.tokens);
    return state;
}

void restore_state(llama_context * context, const SavedState & state, llama_seq_id seq_id, uint32_t flags) {
    // llama.cpp skips empty parts of the state: what they replace must be removed before.
    if (llama_memory_t memory = llama_get_memory(context); memory && seq_id == kWholeContext) {
        llama_memory_clear(memory, false);
    } else if (memory && !(flags & LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY)) {
        llama_memory_seq_rm(memory, seq_id, -1, -1);
    }
    const size_t read = seq_id == kWholeContext
                            ? llama_state_set_data(context, state.data, state.size)
                            : llama_state_seq_set_data_ext(context, state.data, state.size, seq_id, flags);
    if (read == 0) {
        throw std::runtime_error(
            "cannot restore the state: " +
            logged_errors("it does not fit this context (n_ctx, n_seq_max, kv_unified, type_k, type_v)"));
    }
}
