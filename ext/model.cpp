#include "model.hpp"

#include <stdexcept>

#include "errors.hpp"

ModelHandle::~ModelHandle() {
    delete trie.load();
    if (!forked()) {
        mapped_.reset();
        llama_model_free(model_);
    }
}

void ModelHandle::add_context(const std::shared_ptr<ModelDependent> & context) {
    if (forked()) {
        return;
    }
    std::lock_guard<std::mutex> lock(mutex_);
    std::vector<std::weak_ptr<ModelDependent>> alive;
    for (auto & other : contexts_) {
        if (!other.expired()) {
            alive.push_back(other);
        }
    }
    alive.push_back(context);
    contexts_ = std::move(alive);
}

bool ModelHandle::closed() { return closed_; }

void ModelHandle::close() {
    if (forked()) { // the memory belongs to the parent
        closed_ = true;
        return;
    }
    if (native_holds) {
        throw std::runtime_error("a model cannot be closed while this thread computes: not from a callback");
    }
    std::lock_guard<std::mutex> one_at_a_time(close_mutex_);
    std::vector<std::weak_ptr<ModelDependent>> contexts;
    {
        std::unique_lock<std::mutex> lock(mutex_);
        closed_ = true;
        unused_.wait(lock, [this] { return users_ == 0; }); // from here on, no thread adds a context
        contexts.swap(contexts_);
    }
    for (auto & weak : contexts) {
        if (auto context = weak.lock(); context && !context->forked()) {
            context->lock("context");
            context->free();
            context->unlock();
        }
    }
    std::lock_guard<std::mutex> lock(mutex_);
    adapters.forget(); // the model frees them
    mapped_.reset();
    llama_model_free(model_);
    model_ = nullptr;
}

ModelUse::ModelUse(std::shared_ptr<ModelHandle> handle) : handle_(std::move(handle)) {
    std::unique_lock<std::mutex> lock(handle_->mutex_, std::defer_lock);
    if (!handle_->forked()) {
        lock.lock();
    }
    if (handle_->closed_) {
        throw std::runtime_error("the model is closed");
    }
    ++handle_->users_;
    ++native_holds;
}

ModelUse::~ModelUse() {
    --native_holds;
    if (handle_->forked()) {
        return;
    }
    std::lock_guard<std::mutex> lock(handle_->mutex_);
    if (--handle_->users_ == 0) {
        handle_->unused_.notify_all();
    }
}

void ModelUse::check_vocab() const {
    if (llama_vocab_type(vocab()) == LLAMA_VOCAB_TYPE_NONE) {
        throw std::runtime_error("the model has no vocabulary of text");
    }
}

void ModelUse::check_token(llama_token token) const {
    check_vocab();
    if (token < 0 || token >= n_vocab()) {
        throw_value_error("token id " + std::to_string(token) + " is out of range: the vocabulary has ids 0 to " +
                          std::to_string(n_vocab() - 1));
    }
}
