// Products of quantized matrices as they are in a file. They are compiled into ggml-cpu, whose products of matrices call them
// first (see CMakeLists.txt). Other types and shapes go on to ggml's functions.

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "products.hpp"

#ifdef CYLLAMA_PRODUCTS

namespace {

struct Q4_1 {
    using Matrix = block_q4_1;
    using Row = block_q8_1;
    static constexpr size_t kBytes = sizeof(Matrix);
    static constexpr int kParts = 1, kVectors = 8, kSafe = 8, kOffset = 0;
    const uint8_t * x;
    size_t stride;

    void read(int, Part & part) {
        Ints numbers[4];
        transpose(x, stride, numbers);
        part.scale = halves(numbers[0]);
        part.least = halves(shift_right(numbers[0], 16));
        transpose(x + offsetof(block_q4_1, qs), stride, numbers);
        for (int i = 0; i < 4; ++i) {
            part.values[i] = low_nibbles(numbers[i]);
            part.values[i + 4] = high_nibbles(numbers[i]);
        }
    }
    static int place(int) { return 0; }
    static float scale_of(const block_q8_1 & row) { return GGML_CPU_FP16_TO_FP32(row.d); }
    static float sum_of(const block_q8_1 & row, int) { return GGML_CPU_FP16_TO_FP32(row.s); }
};

struct Q5_0 {
    using Matrix = block_q5_0;
    using Row = block_q8_0;
    static constexpr size_t kBytes = sizeof(Matrix);
    static constexpr int kParts = 1, kVectors = 8, kSafe = 4, kOffset = 16;
    const uint8_t * x;
    size_t stride;

    void read(int, Part & part) {
        Ints numbers[4];
        transpose(x, stride, numbers);
        part.scale = halves(numbers[0]);
        const Ints fifth = bit_or(shift_right(numbers[0], 16), shift_left(numbers[1], 16)); // bits of the 32 values
        transpose(x + offsetof(block_q5_0, qs), stride, numbers);
        const Ints even = all(static_cast<int32_t>(0x08040201)), odd = all(static_cast<int32_t>(0x80402010));
        for (int i = 0; i < 4; ++i) {
            part.values[i] = bit_or(low_nibbles(numbers[i]), sixteen_where(byte(fifth, i / 2), i % 2 ? odd : even));
            part.values[i + 4] =
                bit_or(high_nibbles(numbers[i]), sixteen_where(byte(fifth, 2 + i / 2), i % 2 ? odd : even));
        }
    }
    // Returns byte `i` of each number, four times.
    static Ints byte(Ints a, int i) {
        alignas(64) uint8_t places[sizeof(Ints)];
        for (size_t j = 0; j < sizeof(Ints); ++j) {
            places[j] = static_cast<uint8_t>(j % 16 / 4 * 4 + i);
        }
        Ints vector;
        std::memcpy(&vector, places, sizeof(vector));
        return shuffle_bytes(a, vector);
    }
    static int place(int) { return 0; }
    static float scale_of(const block_q8_0 & row) { return GGML_CPU_FP16_TO_FP32(row.d); }
    static int32_t sum_of(const block_q8_0 & row, int) { return sum_of_values(row); }
};

struct Q8_0 {
    using Matrix = block_q8_0;
    using Row = block_q8_0;
    static constexpr size_t kBytes = sizeof(Matrix);
    static constexpr int kParts = 1, kVectors = 8, kSafe = 0, kOffset = 128;
    const uint8_t * x;
    size_t stride;

    void read(int, Part & part) {
        Ints numbers[4];
        transpose(x, stride, numbers);
        part.scale = halves(numbers[0]);
        const Ints flip = all(static_cast<int32_t>(0x80808080));
        for (int half = 0; half < 2; ++half) {
            transpose(x + offsetof(block_q8_0, qs) + 16 * half, stride, numbers);
            for (int i = 0; i < 4; ++i) {
                put_bytes(part, 4 * half + i, bit_xor(numbers[i], flip));
            }
        }
    }
    static int place(int) { return 0; }
    static float scale_of(const block_q8_0 & row) { return GGML_CPU_FP16_TO_FP32(row.d); }
    static int32_t sum_of(const block_q8_0 & row, int) { return sum_of_values(row); }
};

// Of each half of a block, the parts at 0, 64, 32 and 96, then those at 16, 80, 48 and 112.
struct Q6_K {
    using Matrix = block_q6_K;
    using Row = block_q8_K;
    static constexpr size_t kBytes = sizeof(Matrix);
    static constexpr int kParts = 16, kVectors = 4, kSafe = 2, kOffset = 32;
    const uint8_t * x;
    size_t stride;
    Ints scales[4]; // bytes, in the order of the values
    Floats d;
    Ints low[4], high[4];

    Q6_K(const uint8_t * x, size_t stride) : x(x), stride(stride) {}

    void read(int i, Part & part) {
        const int half = i / 8, sixteen = i / 4 % 2, second = i / 2 % 2, upper = i % 2;
        if (i == 0) {
            transpose(x + offsetof(block_q6_K, scales), stride, scales);
            Ints numbers[4]; // the last 16 bytes of the block
            transpose(x + sizeof(block_q6_K) - 16, stride, numbers);
            d = halves(shift_right(numbers[3], 16));
        }
        if (i % 4 == 0) {
            transpose(x + offsetof(block_q6_K, qh) + 32 * half + 16 * sixteen, stride, high);
        }
        if (i % 2 == 0) {
            transpose(x + offsetof(block_q6_K, ql) + 64 * half + 32 * second + 16 * sixteen, stride, low);
        }
        const int n = 2 * second + 4 * upper;
        for (int j = 0; j < 4; ++j) {
            const Ints two = bit_and(shift_left(shift_right(high[j], n), 4), all(0x30303030));
            part.values[j] = bit_or(low_nibbles(shift_right(low[j], 4 * upper)), two);
        }
        const int scale = place(i) / 16;
        const Ints bytes = shift_right_signed(shift_left(scales[scale / 4], 24 - 8 * (scale % 4)), 24);
        part.scale = multiply(d, to_floats(bytes));
    }
    static int place(int i) { return i / 8 * 128 + i % 2 * 64 + i / 2 % 2 * 32 + i / 4 % 2 * 16; }
    static float scale_of(const block_q8_K & row) { return row.d; }
    static int32_t sum_of(const block_q8_K & row, int part) { return row.bsums[place(part) / 16]; }
};

using Function = decltype(&multiply_columns<Q4_1>);

// With fewer rows, ggml's functions are as fast: unpacking takes as long as some rows do.
#ifdef CYLLAMA_DOT
constexpr int64_t kLeastQ8_0 = 1, kLeastQ6_K = 3;
#else
constexpr int64_t kLeastQ8_0 = 2, kLeastQ6_K = 4;
#endif

// Returns the function for a type of matrices, or nullptr where ggml's are as fast.
Function function_for(ggml_type type, int64_t n_rows) {
    switch (type) {
        case GGML_TYPE_Q4_1: return multiply_columns<Q4_1>;
        case GGML_TYPE_Q5_0: return multiply_columns<Q5_0>;
        case GGML_TYPE_Q8_0: return n_rows >= kLeastQ8_0 ? multiply_columns<Q8_0> : nullptr;
        case GGML_TYPE_Q6_K: return n_rows >= kLeastQ6_K ? multiply_columns<Q6_K> : nullptr;
        default: return nullptr;
    }
}

// Returns how many chunks of columns the threads share: some for each, so that none waits for a slower one. Where the columns
// are read several times, a chunk stays in the cache meanwhile.
int64_t n_chunks_of(const ggml_tensor * matrix, int64_t n_rows, int n_threads) {
    constexpr size_t kCache = 256 * 1024;
    const int64_t n_groups = matrix->ne[1] / kColumns;
    const int64_t n = n_groups < 16 * n_threads ? n_threads : 4 * n_threads;
    return n_rows > 8 ? std::clamp<int64_t>(ggml_nbytes(matrix) / kCache, n, std::max(n, n_groups)) : n;
}

} // namespace

#endif

extern "C" bool cyllama_multiply_halves(const ggml_compute_params * params, ggml_tensor * dst); // f16_products.cpp
extern "C" bool cyllama_multiply_quantized(const ggml_compute_params * params, ggml_tensor * dst);

// Computes a product whose rows are quantized in params->wdata. Each thread begins with the chunk of its number, as ggml's do.
//
// Returns false if ggml's functions have to.
bool cyllama_multiply_quantized(const ggml_compute_params * params, ggml_tensor * dst) {
    if (cyllama_multiply_halves(params, dst)) {
        return true;
    }
#ifdef CYLLAMA_PRODUCTS
    const ggml_tensor * matrix = dst->src[0];
    const ggml_tensor * rows = dst->src[1];
    const Function function = function_for(matrix->type, rows->ne[1]);
    if (!function || rows->type != GGML_TYPE_F32 || matrix->ne[1] % kColumns || matrix->ne[2] * matrix->ne[3] != 1 ||
        rows->ne[2] * rows->ne[3] != 1) {
        return false;
    }
    const int n_blocks = static_cast<int>(matrix->ne[0] / ggml_blck_size(matrix->type));
    const int64_t n_groups = matrix->ne[1] / kColumns, n_chunks = n_chunks_of(matrix, rows->ne[1], params->nth);
    for (int64_t chunk = params->ith; chunk < n_chunks; chunk = ggml_threadpool_chunk_add(params->threadpool, 1)) {
        const int64_t begin = n_groups * chunk / n_chunks * kColumns, end = n_groups * (chunk + 1) / n_chunks * kColumns;
        function(n_blocks, static_cast<float *>(dst->data) + begin, dst->nb[1] / sizeof(float),
                 static_cast<const uint8_t *>(matrix->data) + begin * matrix->nb[1], matrix->nb[1],
                 static_cast<const uint8_t *>(params->wdata), static_cast<int>(rows->ne[1]), static_cast<int>(end - begin));
    }
    return true;
#else
    GGML_UNUSED(params);
    GGML_UNUSED(dst);
    return false;
#endif
}
