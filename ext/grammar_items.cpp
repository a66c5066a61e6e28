#include "grammar_items.hpp"

#include <algorithm>

uint32_t GrammarItemSets::add(const GrammarItems & items, bool & is_new) {
    is_new = false;
    uint64_t hash = items.size();
    for (const GrammarItem & item : items) {
        hash = mix(hash + item.key());
    }
    const auto found = by_hash_.equal_range(hash);
    for (auto it = found.first; it != found.second; ++it) {
        if (std::equal(items.begin(), items.end(), begin(it->second), end(it->second))) {
            return it->second;
        }
    }
    const auto set = static_cast<uint32_t>(size());
    is_new = true;
    items_.insert(items_.end(), items.begin(), items.end());
    ends_.push_back(items_.size());
    by_hash_.emplace(hash, set);
    return set;
}

bool GrammarSeenItems::begin_step() {
    n_ = 0;
    if (++step_ != 0) {
        return false;
    }
    std::fill(steps_.begin(), steps_.end(), 0);
    step_ = 1;
    return true;
}

bool GrammarSeenItems::add(GrammarItem item) {
    if (2 * ++n_ > keys_.size()) {
        grow();
    }
    const uint64_t key = item.key();
    size_t at = mix(key) & (keys_.size() - 1);
    for (; steps_[at] == step_; at = (at + 1) & (keys_.size() - 1)) {
        if (keys_[at] == key) {
            --n_;
            return false;
        }
    }
    keys_[at] = key;
    steps_[at] = step_;
    return true;
}

void GrammarSeenItems::grow() {
    std::vector<uint64_t> old(2 * keys_.size());
    std::vector<uint32_t> old_steps(old.size());
    old.swap(keys_);
    old_steps.swap(steps_);
    for (size_t i = 0; i < old.size(); ++i) {
        if (old_steps[i] == step_) {
            size_t at = mix(old[i]) & (keys_.size() - 1);
            while (steps_[at] == step_) {
                at = (at + 1) & (keys_.size() - 1);
            }
            keys_[at] = old[i];
            steps_[at] = step_;
        }
    }
}
