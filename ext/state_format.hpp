// The bytes of a saved state.
//
// llama.cpp trusts the bytes it restores, and damaged ones can abort the process. So a state is saved with a header that
// names the model and carries a checksum: a damaged or foreign state is refused before llama.cpp sees it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "llama.h"

/// Instead of a sequence id: the whole context.
constexpr llama_seq_id kWholeContext = -1;

/// ValueError for flags other than LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY.
void check_state_flags(uint32_t flags);

/// The most bytes that save_state() writes. ValueError for a state that llama.cpp cannot save without aborting the process.
size_t saved_size(llama_context * context, llama_seq_id seq_id, const std::vector<llama_token> & tokens, uint32_t flags);

/// Writes a header, token ids and the state: at most `capacity` bytes. Returns how many. `weights`: ModelHandle::weights.
size_t save_state(llama_context * context, uint64_t weights, llama_seq_id seq_id, const std::vector<llama_token> & tokens,
                  uint32_t flags, uint8_t * bytes, size_t capacity, bool with_checksum = true);

/// Adds the checksum to a state that was saved without.
void add_checksum(uint8_t * bytes, size_t size);

/// A saved state, checked.
struct SavedState {
    std::vector<llama_token> tokens; // saved with it
    const uint8_t * data;            // within the bytes that were checked
    size_t size;
};

/// Checks a saved state. `trusted`: the bytes never left the process, and have no checksum. ValueError for a state that is
/// damaged, or was saved with another model or other flags.
SavedState check_state(const llama_context * context, uint64_t weights, const uint8_t * data, size_t size,
                       llama_seq_id seq_id, uint32_t flags, bool trusted);

/// Restores a state. std::runtime_error if it does not fit the context: then what it was to replace is gone.
void restore_state(llama_context * context, const SavedState & state, llama_seq_id seq_id, uint32_t flags);
