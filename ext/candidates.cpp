#include "candidates.hpp"

#include <algorithm>
#include <cmath>
#include <functional>

namespace {

constexpr int32_t kLanes = 32; // values at a time, so that the compiler uses vectors
constexpr int32_t kRows = 64;  // the logits are tables of kRows rows and kLanes columns; each column has a maximum

// Writes the largest value of each column of a table; returns false if the table has a NaN.
bool column_maxima(const float * table, float * maxima) {
    int32_t n_nan[kLanes] = {};
    std::copy(table, table + kLanes, maxima);
    for (int32_t row = 0; row < kRows; ++row) {
        for (int32_t lane = 0; lane < kLanes; ++lane) {
            const float value = table[row * kLanes + lane];
            maxima[lane] = value > maxima[lane] ? value : maxima[lane];
            n_nan[lane] += value != value;
        }
    }
    return std::all_of(n_nan, n_nan + kLanes, [](int32_t n) { return n == 0; });
}

void collect_all(const float * logits, int32_t n_vocab, std::vector<llama_token_data> & tokens) {
    tokens.resize(static_cast<size_t>(n_vocab));
    for (llama_token id = 0; id < n_vocab; ++id) {
        tokens[static_cast<size_t>(id)] = {id, logits[id], 0.0f};
    }
}

// Collects the tokens whose logits are `least` or more; `maxima`: of each column.
void collect_from(const float * logits, int32_t n_vocab, float least, const std::vector<float> & maxima,
                  std::vector<llama_token_data> & tokens) {
    tokens.clear();
    const auto take = [&](llama_token id) {
        if (logits[id] >= least) {
            tokens.push_back({id, logits[id], 0.0f});
        }
    };
    const auto n_columns = static_cast<int32_t>(maxima.size());
    for (int32_t column = 0; column < n_columns; ++column) {
        if (maxima[static_cast<size_t>(column)] >= least) {
            for (int32_t row = 0; row < kRows; ++row) {
                take((column / kLanes * kRows + row) * kLanes + column % kLanes);
            }
        }
    }
    for (llama_token id = n_columns * kRows; id < n_vocab; ++id) {
        take(id);
    }
}

} // namespace

int32_t arg_max(const float * values, int32_t n) {
    float best[kLanes];
    std::fill(best, best + kLanes, -INFINITY);
    int32_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
        for (int32_t lane = 0; lane < kLanes; ++lane) {
            best[lane] = values[i + lane] > best[lane] ? values[i + lane] : best[lane];
        }
    }
    float max = -INFINITY;
    for (float value : best) {
        max = value > max ? value : max;
    }
    for (; i < n; ++i) {
        max = values[i] > max ? values[i] : max;
    }
    const float * found = std::find(values, values + n, max);
    return found == values + n ? -1 : static_cast<int32_t>(found - values);
}

void Candidates::add(const SamplerEffect & effect, bool leading_grammar) {
    cuts_.push_back(effect.cut);
    if (leading_grammar) {
        first_ = 1;
        return;
    }
    if (simple_ && effect.cut.kind != Cut::Kind::kNone) {
        cut_ = static_cast<int>(cuts_.size()) - 1;
    } else if (simple_ && effect.simple && (!effect.biases.empty() || effect.divisor != 1.0f)) {
        changes_.push_back(effect);
    }
    simple_ &= effect.simple;
    if (!open_) {
        return;
    }
    // Logits that become smaller may fall behind others. With `n_lowered_` more of the largest ones, `n_kept` are left.
    n_lowered_ += effect.n_lowered;
    raised_.insert(raised_.end(), effect.raised.begin(), effect.raised.end());
    n_largest_ = effect.known && effect.n_kept ? effect.n_kept + n_lowered_ : int64_t{0};
    open_ = effect.known && effect.n_kept == 0;
}

Start Candidates::collect(const float * logits, int32_t n_vocab, int first, std::vector<llama_token_data> & tokens) {
    if (first == first_ && cut_ >= 0 && collect_cut(logits, n_vocab, tokens)) {
        return {cut_ + 1, Truncation::sorts(cuts_[static_cast<size_t>(cut_)])};
    }
    if (n_largest_ == 0 || first != first_ || !collect_largest(logits, n_vocab, tokens)) {
        collect_all(logits, n_vocab, tokens);
    }
    return {first, false};
}

bool Candidates::apply(int index, llama_token_data_array & candidates) {
    const auto i = static_cast<size_t>(index);
    return truncation_.apply(cuts_[i], least_ratio_after(i), candidates);
}

// Returns the p of a min_p sampler that follows sampler `index`, or 0.
float Candidates::least_ratio_after(size_t index) const {
    const bool follows = index + 1 < cuts_.size() && cuts_[index + 1].kind == Cut::Kind::kMinP;
    return follows ? cuts_[index + 1].value : 0.0f;
}

bool Candidates::collect_cut(const float * logits, int32_t n_vocab, std::vector<llama_token_data> & tokens) {
    if (!changes_.empty()) {
        changed_.assign(logits, logits + n_vocab);
        for (const auto & change : changes_) {
            for (const auto & [token, bias] : change.biases) {
                changed_[static_cast<size_t>(token)] += bias;
            }
            if (change.divisor != 1.0f) {
                for (float & logit : changed_) {
                    logit /= change.divisor;
                }
            }
        }
        logits = changed_.data();
    }
    const auto cut = static_cast<size_t>(cut_);
    return truncation_.apply(cuts_[cut], least_ratio_after(cut), logits, n_vocab, tokens);
}

bool Candidates::collect_largest(const float * logits, int32_t n_vocab, std::vector<llama_token_data> & tokens) const {
    const int32_t n_tables = n_vocab / (kRows * kLanes), n_columns = n_tables * kLanes, rest = n_columns * kRows;
    if (n_largest_ > n_columns / 2) {
        return false;
    }
    std::vector<float> maxima(static_cast<size_t>(n_columns));
    bool no_nan = std::none_of(logits + rest, logits + n_vocab, [](float logit) { return std::isnan(logit); });
    for (int32_t table = 0; table < n_tables; ++table) {
        no_nan &= column_maxima(logits + table * kRows * kLanes, maxima.data() + table * kLanes);
    }
    if (!no_nan) {
        return false;
    }
    // The n-th largest maximum: at least n logits are not smaller.
    std::vector<float> largest = maxima;
    std::nth_element(largest.begin(), largest.begin() + (n_largest_ - 1), largest.end(), std::greater<>());
    const float least = largest[static_cast<size_t>(n_largest_ - 1)];
    if (std::isinf(least)) {
        return false;
    }
    collect_from(logits, n_vocab, least, maxima, tokens);
    for (llama_token id : raised_) {
        tokens.push_back({id, logits[id], 0.0f});
    }
    std::sort(tokens.begin(), tokens.end(), [](const auto & a, const auto & b) { return a.id < b.id; });
    const auto same = [](const auto & a, const auto & b) { return a.id == b.id; };
    tokens.erase(std::unique(tokens.begin(), tokens.end(), same), tokens.end());
    return true;
}
