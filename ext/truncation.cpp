#include "truncation.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace {

constexpr int32_t kLanes = 32;      // values at a time, so that the compiler uses vectors
constexpr int32_t kBlock = 1024;    // values whose sum is a 32-bit number in each lane
constexpr int32_t kFew = 1024;      // candidates that llama.cpp's samplers handle as fast
constexpr float kNegligible = 87.f; // from this distance to the largest logit on, a probability is not a normal number

// Calls `function(first, n)` for blocks of at most kBlock values; n is a multiple of kLanes, but for the last ones.
template <class Function> void for_blocks(int32_t n, Function && function) {
    const int32_t whole = n / kLanes * kLanes;
    for (int32_t i = 0; i < whole; i += kBlock) {
        function(i, std::min(kBlock, whole - i));
    }
    if (whole < n) {
        function(whole, n - whole);
    }
}

// Returns the sum of `value(i)` for i from 0 to n - 1.
template <class Function> double sum_of(int32_t n, Function && value) {
    double total = 0.0;
    for_blocks(n, [&](int32_t first, int32_t n_values) {
        float sums[kLanes] = {};
        int32_t i = 0;
        for (; i + kLanes <= n_values; i += kLanes) {
            for (int32_t lane = 0; lane < kLanes; ++lane) {
                sums[lane] += value(first + i + lane);
            }
        }
        for (; i < n_values; ++i) {
            sums[0] += value(first + i);
        }
        for (float sum : sums) {
            total += sum;
        }
    });
    return total;
}

// Returns the largest value; NaN if one of them is.
float maximum(const float * values, int32_t n) {
    float largest = -INFINITY;
    bool has_nan = false;
    for_blocks(n, [&](int32_t first, int32_t n_values) {
        float best[kLanes];
        int32_t n_nan[kLanes] = {};
        std::fill(best, best + kLanes, -INFINITY);
        const auto look = [&](int32_t i, int32_t lane) {
            const float value = values[first + i + lane];
            best[lane] = value > best[lane] ? value : best[lane];
            n_nan[lane] += value != value;
        };
        int32_t i = 0;
        for (; i + kLanes <= n_values; i += kLanes) {
            for (int32_t lane = 0; lane < kLanes; ++lane) {
                look(i, lane);
            }
        }
        for (; i < n_values; ++i) {
            look(i, 0);
        }
        largest = std::max(largest, *std::max_element(best, best + kLanes));
        has_nan |= std::any_of(n_nan, n_nan + kLanes, [](int32_t count) { return count > 0; });
    });
    return has_nan ? NAN : largest;
}

// Returns `value` if the condition holds, else 0, without a branch: so the compiler uses vectors.
inline float only_if(bool condition, float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    bits &= -static_cast<uint32_t>(condition);
    std::memcpy(&value, &bits, sizeof(bits));
    return value;
}

// e to the power of -x for x >= 0, as std::exp gives it but for the last bits, and 0 from kNegligible on.
inline float exp_of_negative(float x) {
    const bool counts = x < kNegligible;
    const float exponent = -only_if(counts, x);
    const float shift = 12582912.0f; // 1.5 * 2^23: adding it rounds to an integer, which the low bits hold
    const float shifted = exponent * 1.44269504f + shift;
    const float n = shifted - shift;
    const float rest = (exponent - n * 0.693359375f) + n * 2.12194440e-4f; // log(2) in two parts
    float power = 1.9875691500e-4f;                                        // Cephes' polynomial for |rest| <= log(2) / 2
    power = power * rest + 1.3981999507e-3f;
    power = power * rest + 8.3334519073e-3f;
    power = power * rest + 4.1665795894e-2f;
    power = power * rest + 1.6666665459e-1f;
    power = power * rest + 5.0000001201e-1f;
    power = power * rest * rest + rest + 1.0f;
    uint32_t bits, n_bits;
    std::memcpy(&bits, &power, sizeof(bits));
    std::memcpy(&n_bits, &shifted, sizeof(n_bits));
    bits += n_bits << 23;
    std::memcpy(&power, &bits, sizeof(bits));
    return only_if(counts, power);
}

// Bits that are in the order of the numbers, descending.
inline uint32_t descending_bits(float value) {
    uint32_t bits;
    value += 0.0f; // -0 is 0
    std::memcpy(&bits, &value, sizeof(bits));
    return bits >> 31 ? bits : ~bits & 0x7FFFFFFF;
}

// Sorts by the upper halves; `items` are in the order of the lower ones.
void sort_by_upper_half(std::vector<uint64_t> & items, std::vector<uint64_t> & other) {
    constexpr size_t kSmall = 4096;
    constexpr int kBits = 11, kPasses = 3;
    constexpr size_t kDigits = size_t{1} << kBits;
    if (items.size() < kSmall) {
        std::sort(items.begin(), items.end());
        return;
    }
    const auto digit = [](uint64_t item, int pass) { return (item >> (32 + pass * kBits)) & (kDigits - 1); };
    other.resize(items.size());
    for (int pass = 0; pass < kPasses; ++pass) {
        size_t starts[kDigits + 1] = {};
        for (uint64_t item : items) {
            ++starts[digit(item, pass) + 1];
        }
        for (size_t i = 0; i < kDigits; ++i) {
            starts[i + 1] += starts[i];
        }
        for (uint64_t item : items) {
            other[starts[digit(item, pass)]++] = item;
        }
        items.swap(other);
    }
}

// Calls `take(i)` for each value that is not smaller than `least`. Most groups of values have none.
template <class Function> void for_each_from(float least, const float * values, int32_t n, Function && take) {
    for (int32_t first = 0; first < n; first += kLanes) {
        const int32_t end = std::min(first + kLanes, n);
        if (end - first == kLanes) {
            int32_t n_found = 0;
            for (int32_t lane = 0; lane < kLanes; ++lane) {
                n_found += values[first + lane] >= least;
            }
            if (n_found == 0) {
                continue;
            }
        }
        for (int32_t i = first; i < end; ++i) {
            if (values[i] >= least) {
                take(i);
            }
        }
    }
}

// The smallest logit within `n_sigma` standard deviations of the largest; those of forbidden tokens (-inf) do not count.
float sigma_limit(float n_sigma, float max, const float * logits, int32_t n) {
    const auto counts = [&](int32_t i) { return only_if(logits[i] > -INFINITY, 1.0f); };
    const auto distance = [&](int32_t i) { return only_if(logits[i] > -INFINITY, max - logits[i]); };
    const double count = sum_of(n, counts);
    const auto mean = static_cast<float>(sum_of(n, distance) / count);
    const auto square = [&](int32_t i) {
        const float deviation = only_if(logits[i] > -INFINITY, max - logits[i] - mean);
        return deviation * deviation;
    };
    return max - n_sigma * static_cast<float>(std::sqrt(sum_of(n, square) / count));
}

} // namespace

void Truncation::copy_logits(const llama_token_data_array & candidates) {
    logits_.resize(candidates.size);
    for (size_t i = 0; i < candidates.size; ++i) {
        logits_[i] = candidates.data[i].logit;
    }
}

void Truncation::weigh(const float * logits, int32_t n, float max) {
    weights_.resize(static_cast<size_t>(n));
    float * weights = weights_.data();
    for (int32_t i = 0; i < n; ++i) {
        weights[i] = exp_of_negative(max - logits[i]);
    }
    weight_ = sum_of(n, [&](int32_t i) { return weights[i]; });
}

float Truncation::threshold(const Wanted & wanted, int32_t n) const {
    const float * weights = weights_.data();
    const float * scores = wanted.scores;
    const auto reaches = [&](float width) {
        const float least = wanted.largest - width;
        return sum_of(n, [&](int32_t i) { return only_if(scores[i] >= least, weights[i]); }) > wanted.target * 1.00001;
    };
    const float widest = std::min(wanted.largest - wanted.least, 2 * kNegligible);
    float width = 2.0f, too_narrow = 0.0f;
    while (width < widest && !reaches(width)) {
        too_narrow = width;
        width *= 2.0f;
    }
    for (int i = 0; i < 3 && width < widest; ++i) { // what is sorted in vain takes longer than a look
        const float between = (width + too_narrow) / 2;
        (reaches(between) ? width : too_narrow) = between;
    }
    return width < widest ? wanted.largest - width : wanted.least;
}

void Truncation::keep_first(const Wanted & wanted, const float * logits, int32_t n, std::vector<llama_token_data> & kept) {
    const float least = threshold(wanted, n);
    order_.clear();
    for_each_from(least, wanted.scores, n, [&](int32_t i) {
        order_.push_back(uint64_t{descending_bits(wanted.scores[i])} << 32 | static_cast<uint32_t>(i));
    });
    sort_by_upper_half(order_, sorted_);
    double sum = 0.0;
    for (uint64_t item : order_) {
        const auto id = static_cast<llama_token>(item & UINT32_MAX);
        const float weight = weights_[static_cast<size_t>(id)];
        kept.push_back({id, logits[id], static_cast<float>(weight / weight_)});
        sum += weight;
        if (wanted.beyond ? sum > wanted.target : sum >= wanted.target) {
            return;
        }
    }
}

bool Truncation::apply(const Cut & cut, float least_ratio, const float * logits, int32_t n,
                       std::vector<llama_token_data> & kept) {
    const float max = maximum(logits, n);
    if (!std::isfinite(max)) {
        return false;
    }
    kept.clear();
    if (cut.kind == Cut::Kind::kMinP || cut.kind == Cut::Kind::kTopNSigma) {
        const bool min_p = cut.kind == Cut::Kind::kMinP;
        const float least = min_p ? max + logf(cut.value) : sigma_limit(cut.value, max, logits, n);
        for_each_from(least, logits, n, [&](int32_t id) { kept.push_back({id, logits[id], 0.0f}); });
        return !kept.empty();
    }
    weigh(logits, n, max);
    const double target = cut.value * weight_;
    if (cut.kind == Cut::Kind::kTopP) {
        keep_first({logits, max, least_ratio > 0 ? max + logf(least_ratio) : -INFINITY, target, false}, logits, n, kept);
        return true;
    }
    // The surprise of a token, minus its mean, which is the entropy: what they have in common is left out.
    const float * weights = weights_.data();
    const auto moment = [&](int32_t i) { return only_if(weights[i] > 0.0f, weights[i] * (max - logits[i])); };
    const auto mean = static_cast<float>(sum_of(n, moment) / weight_);
    scores_.resize(static_cast<size_t>(n));
    for (int32_t i = 0; i < n; ++i) {
        scores_[static_cast<size_t>(i)] = -std::fabs(max - logits[i] - mean);
    }
    keep_first({scores_.data(), 0.0f, -INFINITY, target, true}, logits, n, kept);
    return true;
}

bool Truncation::apply(const Cut & cut, float least_ratio, llama_token_data_array & candidates) {
    if (cut.kind == Cut::Kind::kNone || candidates.sorted || candidates.size <= kFew) {
        return false;
    }
    copy_logits(candidates);
    if (!apply(cut, least_ratio, logits_.data(), static_cast<int32_t>(candidates.size), kept_)) {
        return false;
    }
    for (auto & token : kept_) {
        token.id = candidates.data[token.id].id; // until now, its index
    }
    std::copy(kept_.begin(), kept_.end(), candidates.data);
    candidates.size = kept_.size();
    candidates.sorted = sorts(cut);
    return true;
}

float Truncation::least_logit(float p, const llama_token_data_array & candidates) {
    copy_logits(candidates);
    const auto n = static_cast<int32_t>(candidates.size);
    const float max = maximum(logits_.data(), n);
    if (!std::isfinite(max)) {
        return NAN;
    }
    weigh(logits_.data(), n, max);
    return max + static_cast<float>(std::log(p * weight_));
}
