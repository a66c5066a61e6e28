// Tokens, or embeddings of an image, for a context to evaluate.
#pragma once

#include <vector>

#include "llama.h"
#include "lock.hpp"
#include "projector.hpp"

/// The Python class LlamaBatch: a llama_batch of fixed capacity that owns its memory.
class LlamaBatch : public Guarded {
  public:
    LlamaBatch(int32_t capacity, int32_t n_seq_max);

    void add(llama_token token, llama_pos pos, const std::vector<llama_seq_id> & seq_ids, bool logits);
    void add_sequence(const std::vector<llama_token> & tokens, llama_pos pos, llama_seq_id seq_id, bool logits_last,
                      bool logits_all);
    /// `n` embeddings from `first` on; `whole`: they attend to each other in both directions. A batch of embeddings has no
    /// other tokens.
    void set_embeddings(const LlamaEmbeddings & embeddings, int32_t first, int32_t n, llama_pos pos, llama_seq_id seq_id,
                        bool logits_last, bool whole);
    void clear();

    int32_t size() const { return n_tokens_; }
    int32_t capacity() const { return capacity_; }
    int32_t n_seq_max() const { return n_seq_max_; }
    const std::vector<int8_t> & logits() const { return logits_; }
    /// Numbers of each embedding; 0 for a batch of tokens.
    int32_t n_embd() const { return embeddings_ ? n_embd_ : 0; }
    bool whole() const { return whole_; }
    /// The view that llama_decode takes; valid until the next change.
    llama_batch get();

  private:
    void check_space(size_t n) const;
    void append(llama_token token, llama_pos pos, const std::vector<llama_seq_id> & seq_ids, bool logits);

    const int32_t capacity_;
    const int32_t n_seq_max_;
    int32_t n_tokens_ = 0;
    std::vector<llama_token> tokens_;
    std::vector<llama_pos> positions_;
    std::vector<int32_t> n_seq_ids_;
    std::vector<llama_seq_id> seq_ids_; // n_seq_max per token
    std::vector<llama_seq_id *> seq_id_rows_;
    std::vector<int8_t> logits_;
    std::shared_ptr<const std::vector<float>> embeddings_; // null for a batch of tokens
    size_t first_value_ = 0;
    int32_t n_embd_ = 0;
    bool whole_ = false;
};
