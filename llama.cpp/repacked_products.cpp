// Products of matrices as ggml repacks them when a model is loaded: eight columns together, eight values of each. They are
// compiled into ggml-cpu, whose repack.cpp calls them instead of its own functions (see CMakeLists.txt).

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <vector>

#include "products.hpp"
#include "repack.h"

#ifdef CYLLAMA_PRODUCTS

namespace {

// Eight columns as ggml repacks them: eight values of each, one after the other. Returns, of 64 bytes, the first (second) four
// of each column. In AVX-512, `next` bytes behind them are those of the next eight columns.
inline void transpose_repacked(const uint8_t * x, size_t next, Ints & first, Ints & second) {
    const Floats a = load_pairs(x, next), b = load_pairs(x + 16, next);
    first = even_numbers(a, b);
    second = odd_numbers(a, b);
}

#ifndef CYLLAMA_AVX512
struct RepackedQ4_0 {
    using Matrix = block_q4_0x8;
    using Row = block_q8_0;
    static constexpr size_t kBytes = sizeof(Matrix) / 8;
    static constexpr int kParts = 1, kVectors = 8, kSafe = 8, kOffset = 8;
    const uint8_t * x;
    size_t stride;

    void read(int, Part & part) {
        part.scale = load_halves(x, 0);
        for (int half = 0; half < 2; ++half) {
            Ints numbers[2];
            transpose_repacked(x + offsetof(block_q4_0x8, qs) + 64 * half, 0, numbers[0], numbers[1]);
            for (int i = 0; i < 2; ++i) {
                const Ints flipped = bit_xor(numbers[i], all(static_cast<int32_t>(0x88888888)));
                part.values[2 * half + i] = low_nibbles(flipped);
                part.values[2 * half + i + 4] = high_nibbles(flipped);
            }
        }
    }
    static int place(int) { return 0; }
    static float scale_of(const block_q8_0 & row) { return GGML_CPU_FP16_TO_FP32(row.d); }
    static int32_t sum_of(const block_q8_0 & row, int) { return sum_of_values(row); }
};
#endif

struct RepackedQ4_K {
    using Matrix = block_q4_Kx8;
    using Row = block_q8_K;
    static constexpr size_t kBytes = sizeof(Matrix) / 8;
    static constexpr int kParts = 8, kVectors = 8, kSafe = 8, kOffset = 0;
    const uint8_t * x;
    size_t next;
    Floats d, d_least;
    Ints packed[8];

    RepackedQ4_K(const uint8_t * x, size_t stride)
        : x(x), next(8 * stride), d(load_halves(x + offsetof(block_q4_Kx8, d), next)),
          d_least(multiply(load_halves(x + offsetof(block_q4_Kx8, dmin), next), all(-1.f))) {}

    void read(int i, Part & part) {
        for (int j = 0; j < 4 && i % 2 == 0; ++j) {
            const uint8_t * values = x + offsetof(block_q4_Kx8, qs) + 64 * (2 * i + j);
            transpose_repacked(values, next, packed[2 * j], packed[2 * j + 1]);
        }
        for (int j = 0; j < 8; ++j) {
            part.values[j] = low_nibbles(packed[j]);
            packed[j] = shift_right(packed[j], 4);
        }
        uint64_t scales[2], least[2];
        for (int eight = 0; eight < kColumns / 8; ++eight) {
            read_scales(x + eight * next + offsetof(block_q4_Kx8, scales) + 12 * i, scales[eight], least[eight]);
        }
        part.scale = multiply(d, bytes_to_floats(scales));
        part.least = multiply(d_least, bytes_to_floats(least));
    }
    // Returns the scales of eight columns, and what is subtracted, of 6 bits each.
    static void read_scales(const uint8_t * p, uint64_t & scales, uint64_t & least) {
        uint32_t a[3];
        std::memcpy(a, p, sizeof(a));
        const uint32_t six = 0x3F3F3F3F, four = 0x0F0F0F0F, two = 0x30303030;
        scales = (a[0] & six) | uint64_t{(a[2] & four) | ((a[0] >> 2) & two)} << 32;
        least = (a[1] & six) | uint64_t{((a[2] >> 4) & four) | ((a[1] >> 2) & two)} << 32;
    }
    static int place(int part) { return 32 * part; }
    static float scale_of(const block_q8_K & row) { return row.d; }
    static float sum_of(const block_q8_K & row, int part) {
        return row.d * static_cast<float>(row.bsums[2 * part] + row.bsums[2 * part + 1]);
    }
};

// Copies row `row` of a block of four whose values are interleaved, eight of each.
inline void unpack(const block_q8_0x4 & four, int row, block_q8_0 & block) {
    block.d = four.d[row];
    for (int i = 0; i < QK8_0 / 8; ++i) {
        std::memcpy(block.qs + 8 * i, four.qs + 32 * i + 8 * row, 8);
    }
}

inline void unpack(const block_q8_Kx4 & four, int row, block_q8_K & block) {
    block.d = four.d[row];
    for (int i = 0; i < QK_K / 8; ++i) {
        std::memcpy(block.qs + 8 * i, four.qs + 32 * i + 8 * row, 8);
    }
    for (int i = 0; i < QK_K / 16; ++i) {
        block.bsums[i] = static_cast<int16_t>(std::accumulate(block.qs + 16 * i, block.qs + 16 * i + 16, 0));
    }
}

// Multiplies rows with columns that ggml has repacked, as both are then: groups of four rows, and up to three behind them.
template <class Type, class Four>
void multiply_repacked(int n_blocks, float * s, size_t bs, const uint8_t * x, const uint8_t * y, int n_rows,
                       int n_columns) {
    using Row = typename Type::Row;
    std::vector<Row> rows(static_cast<size_t>(kMostRows) * n_blocks);
    for (int first = 0; first < n_rows; first += kMostRows) {
        const int n = std::min(n_rows - first, kMostRows);
        for (int i = first; i < first + n; ++i) {
            Row * row = rows.data() + static_cast<size_t>(i - first) * n_blocks;
            if (i < n_rows / 4 * 4) {
                const auto * group = reinterpret_cast<const Four *>(y) + static_cast<size_t>(i / 4) * n_blocks;
                for (int b = 0; b < n_blocks; ++b) {
                    unpack(group[b], i % 4, row[b]);
                }
            } else {
                std::copy_n(reinterpret_cast<const Row *>(y) + static_cast<size_t>(i) * n_blocks, n_blocks, row);
            }
        }
        multiply_columns<Type>(n_blocks, s + first * bs, bs, x, n_blocks * Type::kBytes,
                               reinterpret_cast<const uint8_t *>(rows.data()), n, n_columns);
    }
}

// ---- one row of Q4_K. Unpacking columns for a single row takes longer than ggml's function, which rearranges their values and
// those of the row. Here, values are multiplied in the order of memory: eight of each column with the same eight of the row. The
// products are ggml's to the last bit: sums of a block are whole numbers, and blocks are added in the same order.

// For shuffle_bytes, which picks the byte of each of eight columns four times, as numbers of 16 bits.
constexpr uint64_t place_of(int column) { return 0x8000800080008000 + 0x0001000100010001 * column; }
alignas(64) constexpr uint64_t kPlaces[] = {place_of(0), place_of(1), place_of(2), place_of(3),
                                            place_of(4), place_of(5), place_of(6), place_of(7)};

// Vectors with 64 bits for each column. `sums_of` returns the sum of the two numbers of each column.
constexpr int kVectors = 64 / sizeof(Ints); // of eight columns
#ifdef CYLLAMA_AVX512
inline Ints load(const void * p) { return _mm512_loadu_si512(p); }
inline Ints for_each_column(uint64_t bits) { return _mm512_set1_epi64(static_cast<long long>(bits)); }
inline __m256i sums_of(const Ints * x) { return _mm512_cvtepi64_epi32(add(x[0], _mm512_srli_epi64(x[0], 32))); }
#else
inline Ints load(const void * p) { return _mm256_loadu_si256(static_cast<const __m256i *>(p)); }
inline Ints for_each_column(uint64_t bits) { return _mm256_set1_epi64x(static_cast<long long>(bits)); }
inline __m256i sums_of(const Ints * x) { return _mm256_permute4x64_epi64(_mm256_hadd_epi32(x[0], x[1]), 0xD8); }
#endif

inline Ints eight_values(const int8_t * values) {
    uint64_t eight;
    std::memcpy(&eight, values, sizeof(eight));
    return for_each_column(eight);
}

// Adds the products of 64 values of eight columns with those of a row to `sums`. The second 32 have other scales than the first.
inline void add_products(Ints * sums, const uint8_t * values, const int8_t * row, Ints first_scales, Ints second_scales) {
    constexpr int kBytes = sizeof(Ints);
    Ints first[kVectors] = {}, second[kVectors] = {};
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
        const Ints row_first = eight_values(row + 8 * j), row_second = eight_values(row + 32 + 8 * j);
#pragma GCC unroll 2
        for (int i = 0; i < kVectors; ++i) {
            const Ints packed = load(values + 64 * j + kBytes * i);
            first[i] = add_shorts(first[i], multiply_bytes(low_nibbles(packed), row_first));
            second[i] = add_shorts(second[i], multiply_bytes(high_nibbles(packed), row_second));
        }
    }
#pragma GCC unroll 2
    for (int i = 0; i < kVectors; ++i) {
        const Ints places = load(kPlaces + kBytes / 8 * i);
        sums[i] = add(sums[i], multiply_shorts(first[i], shuffle_bytes(first_scales, places)));
        sums[i] = add(sums[i], multiply_shorts(second[i], shuffle_bytes(second_scales, places)));
    }
}

// Returns what is subtracted from the products of 64 values of eight columns: the first numbers times the first of two sums of
// the row's values, and the second ones times the second.
inline __m256i least_products(uint64_t first, uint64_t second, int32_t row_sums) {
    const __m128i pairs =
        _mm_unpacklo_epi8(_mm_cvtsi64_si128(static_cast<int64_t>(first)), _mm_cvtsi64_si128(static_cast<int64_t>(second)));
    return _mm256_madd_epi16(_mm256_cvtepu8_epi16(pairs), _mm256_set1_epi32(row_sums));
}

// Stores eight sums of 32 values of a block, two of 16 bits in each number.
inline void store_sums(int32_t * pairs, const block_q8_K & row) {
    const auto * sums = reinterpret_cast<const __m128i *>(row.bsums);
    _mm_storeu_si128(reinterpret_cast<__m128i *>(pairs), _mm_hadd_epi16(_mm_loadu_si128(sums), _mm_loadu_si128(sums + 1)));
}

inline __m256 eight_halves(const ggml_half * p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
}

// Multiplies a row with columns, of which there are a multiple of eight.
void multiply_row(int n_blocks, float * s, const block_q4_Kx8 * x, const block_q8_K * row, int n_columns) {
    for (int column = 0; column < n_columns; column += 8) {
        __m256 sum = _mm256_setzero_ps(), least_sum = _mm256_setzero_ps();
        for (int b = 0; b < n_blocks; ++b, ++x) {
            Ints products[kVectors] = {};
            __m256i least_of_block = _mm256_setzero_si256();
            int32_t row_sums[4];
            store_sums(row_sums, row[b]);
#pragma GCC unroll 1
            for (int i = 0; i < 4; ++i) {
                uint64_t scales, next_scales, least, next_least;
                RepackedQ4_K::read_scales(x->scales + 24 * i, scales, least);
                RepackedQ4_K::read_scales(x->scales + 24 * i + 12, next_scales, next_least);
                add_products(products, x->qs + 256 * i, row[b].qs + 64 * i, for_each_column(scales),
                             for_each_column(next_scales));
                least_of_block = _mm256_add_epi32(least_of_block, least_products(least, next_least, row_sums[i]));
            }
            const __m256 scale = _mm256_set1_ps(row[b].d);
            sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums_of(products)), _mm256_mul_ps(eight_halves(x->d), scale), sum);
            least_sum =
                _mm256_fmadd_ps(_mm256_cvtepi32_ps(least_of_block), _mm256_mul_ps(eight_halves(x->dmin), scale), least_sum);
        }
        _mm256_storeu_ps(s + column, _mm256_sub_ps(sum, least_sum));
    }
}

} // namespace

#endif

extern "C" {
bool cyllama_multiply_repacked_q4_0(int n, float * s, size_t bs, const void * vx, const void * vy, int nr, int nc);
void cyllama_multiply_q4_K_8x8_q8_K(int n, float * s, size_t bs, const void * vx, const void * vy, int nr, int nc);
}

// Does what ggml_gemm_q4_0_8x8_q8_0 does, for any number of rows. Returns false if there is no kernel for this processor.
bool cyllama_multiply_repacked_q4_0(int n, float * s, size_t bs, const void * vx, const void * vy, int nr, int nc) {
#if defined(CYLLAMA_PRODUCTS) && !defined(CYLLAMA_AVX512)
    multiply_repacked<RepackedQ4_0, block_q8_0x4>(n / QK8_0, s, bs, static_cast<const uint8_t *>(vx),
                                                  static_cast<const uint8_t *>(vy), nr, nc);
    return true;
#else
    GGML_UNUSED(n), GGML_UNUSED(s), GGML_UNUSED(bs), GGML_UNUSED(vx), GGML_UNUSED(vy), GGML_UNUSED(nr), GGML_UNUSED(nc);
    return false;
#endif
}

// The same for Q4_K. Columns that are left over go to ggml's functions.
void cyllama_multiply_q4_K_8x8_q8_K(int n, float * s, size_t bs, const void * vx, const void * vy, int nr, int nc) {
    const size_t n_blocks = static_cast<size_t>(n / QK_K);
    int n_done = 0;
#ifdef CYLLAMA_PRODUCTS
    if (nr == 1) {
        multiply_row(static_cast<int>(n_blocks), s, static_cast<const block_q4_Kx8 *>(vx),
                     static_cast<const block_q8_K *>(vy), nc);
        n_done = nc;
    } else {
        n_done = nc / kColumns * kColumns;
        multiply_repacked<RepackedQ4_K, block_q8_Kx4>(static_cast<int>(n_blocks), s, bs, static_cast<const uint8_t *>(vx),
                                                      static_cast<const uint8_t *>(vy), nr, n_done);
    }
#endif
    if (n_done == nc) {
        return;
    }
    const auto * x = static_cast<const block_q4_Kx8 *>(vx) + n_done / 8 * n_blocks;
    const int n_grouped = nr - nr % 4;
    if (n_grouped > 0) {
        ggml_gemm_q4_K_8x8_q8_K(n, s + n_done, bs, x, vy, n_grouped, nc - n_done);
    }
    for (int row = n_grouped; row < nr; ++row) {
        ggml_gemv_q4_K_8x8_q8_K(n, s + row * bs + n_done, bs, x, static_cast<const block_q8_K *>(vy) + row * n_blocks, 1,
                                nc - n_done);
    }
}
