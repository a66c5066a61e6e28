#include "context.hpp"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "context_limits.hpp"
#include "errors.hpp"
#include "model_internals.hpp"
#include "params.hpp"

std::set<SamplerHandle *> by_address(const GraphSamplers & samplers) {
    std::set<SamplerHandle *> result;
    for (const auto & [seq_id, sampler] : samplers) {
        result.insert(sampler.get());
    }
    return result;
}

ContextHandle::ContextHandle(std::shared_ptr<ModelHandle> model, llama_context * context, const LlamaContextParams & params,
                             std::shared_ptr<ContextHandle> other, GraphSamplers samplers)
    : context(context), model(std::move(model)), other(std::move(other)), samplers(std::move(samplers)),
      threadpools(params.threadpool_poll, params.threadpool_prio) {
    const llama_model * m = llama_get_model(context);
    has_encoder = llama_model_has_encoder(m);
    embeddings = params.embeddings;
    causal = attends_causally(params, this->model->causal);
    n_positions = n_learned_positions(m);
    kv_unified = params.kv_unified;
    // To shift positions rotates K: ggml aborts for BF16, and llama.cpp crashes for quantized K with some sizes of heads.
    can_shift = llama_get_memory(context) && llama_memory_can_shift(llama_get_memory(context)) &&
                (params.type_k == GGML_TYPE_F16 || params.type_k == GGML_TYPE_F32);
    n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(m));
    n_seq_max = static_cast<int32_t>(llama_n_seq_max(context));
    const uint32_t n_batch = llama_n_batch(context);
    n_outputs_max =
        static_cast<int32_t>(params.n_outputs_max == 0 || has_encoder ? n_batch : std::min(params.n_outputs_max, n_batch));
}

ContextHandle::~ContextHandle() {
    if (!forked()) { // a forked child has none of the threads that freeing would wait for
        ContextHandle::free();
    }
}

void ContextHandle::free() {
    llama_free(context);
    context = nullptr;
    adapters = {};
    threadpools.free();
    outputs.clear();
}

ContextUse::ContextUse(const LlamaContext & context)
    : handle_(context.handle),
      other_guard_(handle_->other ? std::make_optional<Guard>(*handle_->other, "context") : std::nullopt),
      guard_(*handle_, "context", handle_->other != nullptr) {
    if (!handle_->context) {
        throw std::runtime_error("the context is closed");
    }
    if (!handle_->failed_check.empty()) {
        throw std::runtime_error("the context cannot be used any more, only closed: " + handle_->failed_check);
    }
    if (handle_->other && !handle_->other->context) {
        throw std::runtime_error("the context that this one depends on (ctx_other) is closed");
    }
}

void ContextUse::check_sequence(llama_seq_id seq_id) const {
    if (seq_id < 0 || seq_id >= handle_->n_seq_max) {
        throw_value_error("sequence id " + std::to_string(seq_id) +
                          " is out of range: the context was created with n_seq_max=" + std::to_string(handle_->n_seq_max));
    }
}

int32_t ContextUse::check_output(int32_t index) const {
    const auto & outputs = handle_->outputs;
    const auto n = static_cast<int32_t>(outputs.size());
    int32_t i = index;
    if (index < 0) { // counts from the end
        int32_t left = index;
        for (i = n - 1; i >= 0; --i) {
            if (outputs[i] != ContextHandle::kNoOutput && ++left == 0) {
                break;
            }
        }
    }
    if (i < 0 || i >= n || outputs[i] == ContextHandle::kNoOutput) {
        const auto n_outputs = n - std::count(outputs.begin(), outputs.end(), ContextHandle::kNoOutput);
        throw_index_error("token " + std::to_string(index) + " of the last batch has no output: the batch had " +
                          std::to_string(n) + " tokens, " + std::to_string(n_outputs) + " of them with logits");
    }
    return i;
}
