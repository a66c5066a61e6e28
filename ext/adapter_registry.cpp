#include "adapter_registry.hpp"

#include "huge_pages.hpp"

static thread_local int uses_of_this_thread = 0;

llama_adapter_lora * AdapterRegistry::load(llama_model * model, const std::string & path) {
    std::unique_lock<std::mutex> lock(mutex_);
    ++loads_waiting_;
    changed_.wait(lock, [this] { return users_ == 0 && !loading_; });
    --loads_waiting_;
    loading_ = true;
    lock.unlock();
    llama_adapter_lora * adapter = llama_adapter_lora_init(model, path.c_str());
    cyllama_enlarge_pages();
    lock.lock();
    loading_ = false;
    free_unused();
    changed_.notify_all();
    return adapter;
}

void AdapterRegistry::free(llama_adapter_lora * adapter) {
    if (forked()) { // the memory belongs to the parent
        return;
    }
    std::lock_guard<std::mutex> lock(mutex_);
    if (!forgotten_) {
        unused_.push_back(adapter);
        free_unused();
    }
}

void AdapterRegistry::forget() {
    std::lock_guard<std::mutex> lock(mutex_);
    forgotten_ = true;
    unused_.clear();
}

void AdapterRegistry::free_unused() {
    if (users_ == 0 && !loading_) {
        for (llama_adapter_lora * adapter : unused_) {
            llama_adapter_lora_free(adapter);
        }
        unused_.clear();
    }
}

AdaptersUse::AdaptersUse(AdapterRegistry & registry) : registry_(registry) {
    if (registry_.forked()) { // no adapter is loaded in a child
        return;
    }
    std::unique_lock<std::mutex> lock(registry_.mutex_);
    // A waiting load goes first: otherwise two busy contexts would keep it waiting forever. But a thread that computes
    // already, for which the load waits, does not wait for the load.
    registry_.changed_.wait(lock, [&] {
        return !registry_.loading_ && (registry_.loads_waiting_ == 0 || uses_of_this_thread > 0);
    });
    ++registry_.users_;
    ++uses_of_this_thread;
}

AdaptersUse::~AdaptersUse() {
    if (registry_.forked()) {
        return;
    }
    std::lock_guard<std::mutex> lock(registry_.mutex_);
    --uses_of_this_thread;
    if (--registry_.users_ == 0) {
        registry_.free_unused();
        if (registry_.loads_waiting_ > 0) {
            registry_.changed_.notify_all();
        }
    }
}
