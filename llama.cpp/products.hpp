// Products of quantized matrices with a few rows (tokens), for processors with AVX2 or more: what the types of matrices share.
//
// ggml multiplies a column of a matrix with each row, and unpacks it for every row, or for four. Here, 16 columns (8 without
// AVX-512 VNNI) are unpacked once for up to 16 rows (8). They lie in vectors with four values of each column, so that no sum of
// products needs shuffling, and one instruction applies the scales of all columns.
#pragma once

#include "ggml-cpu-impl.h"
#include "quants.h"
#include "simd-mappings.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define CYLLAMA_PRODUCTS

namespace {

// ---- vectors: kColumns numbers of 32 bits, or four values of 8 bits for each column

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512VNNI__)

#define CYLLAMA_AVX512
#define CYLLAMA_DOT
using Ints = __m512i;
using Floats = __m512;
constexpr int kColumns = 16;

inline Ints all(int32_t value) { return _mm512_set1_epi32(value); }
inline Floats all(float value) { return _mm512_set1_ps(value); }
inline Floats load(const float * p) { return _mm512_loadu_ps(p); }
inline void store(float * p, Floats x) { _mm512_storeu_ps(p, x); }
inline Floats multiply(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
inline Floats add_product(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
inline Floats to_floats(Ints a) { return _mm512_cvtepi32_ps(a); }
inline Ints bit_and(Ints a, Ints b) { return _mm512_and_si512(a, b); }
inline Ints bit_or(Ints a, Ints b) { return _mm512_or_si512(a, b); }
inline Ints bit_xor(Ints a, Ints b) { return _mm512_xor_si512(a, b); }
inline Ints shift_left(Ints a, int n) { return _mm512_sll_epi32(a, _mm_cvtsi32_si128(n)); }
inline Ints shift_right(Ints a, int n) { return _mm512_srl_epi32(a, _mm_cvtsi32_si128(n)); }
inline Ints shift_right_signed(Ints a, int n) { return _mm512_sra_epi32(a, _mm_cvtsi32_si128(n)); }
inline Ints shuffle_bytes(Ints a, Ints places) { return _mm512_shuffle_epi8(a, places); }
inline Ints zip_low(Ints a, Ints b) { return _mm512_unpacklo_epi32(a, b); }
inline Ints zip_high(Ints a, Ints b) { return _mm512_unpackhi_epi32(a, b); }
inline Ints zip_low_pairs(Ints a, Ints b) { return _mm512_unpacklo_epi64(a, b); }
inline Ints zip_high_pairs(Ints a, Ints b) { return _mm512_unpackhi_epi64(a, b); }
inline Ints add(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
inline Ints add_shorts(Ints a, Ints b) { return _mm512_add_epi16(a, b); }
inline Ints multiply_bytes(Ints a, Ints b) { return _mm512_maddubs_epi16(a, b); }
inline Ints multiply_shorts(Ints a, Ints b) { return _mm512_madd_epi16(a, b); }

// Returns 16 where all bits of `mask` in a byte are set, else 0: one bit of `mask` is set in each.
inline Ints sixteen_where(Ints a, Ints mask) { return _mm512_maskz_set1_epi8(_mm512_test_epi8_mask(a, mask), 16); }

// Returns the low halves of the numbers, which are 16-bit floats.
inline Floats halves(Ints a) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(a)); }

// Returns 16 bytes of columns `first`, `first` + 4, + 8 and + 12.
inline Ints load_columns(const uint8_t * x, size_t stride, int first) {
    const auto column = [&](int i) { return _mm_loadu_si128(reinterpret_cast<const __m128i *>(x + (first + i) * stride)); };
    const Ints two = _mm512_inserti32x4(_mm512_castsi128_si512(column(0)), column(4), 1);
    return _mm512_inserti32x4(_mm512_inserti32x4(two, column(8), 2), column(12), 3);
}

// Returns 16 bytes from each of four places: p, 32 bytes behind it, and the same `next` bytes behind.
inline Floats load_pairs(const uint8_t * p, size_t next) {
    const auto pair = [&](size_t i) { return _mm_loadu_ps(reinterpret_cast<const float *>(p + i)); };
    const Floats two = _mm512_insertf32x4(_mm512_castps128_ps512(pair(0)), pair(32), 1);
    return _mm512_insertf32x4(_mm512_insertf32x4(two, pair(next), 2), pair(next + 32), 3);
}

inline Ints even_numbers(Floats a, Floats b) { return _mm512_castps_si512(_mm512_shuffle_ps(a, b, 0x88)); }
inline Ints odd_numbers(Floats a, Floats b) { return _mm512_castps_si512(_mm512_shuffle_ps(a, b, 0xDD)); }

// Returns eight 16-bit floats, and eight that are `next` bytes behind them.
inline Floats load_halves(const uint8_t * p, size_t next) {
    const __m128i first = _mm_loadu_si128(reinterpret_cast<const __m128i *>(p));
    const __m128i second = _mm_loadu_si128(reinterpret_cast<const __m128i *>(p + next));
    return _mm512_cvtph_ps(_mm256_inserti128_si256(_mm256_castsi128_si256(first), second, 1));
}

inline Floats bytes_to_floats(const uint64_t * bytes) {
    return to_floats(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(bytes))));
}

inline Ints add_dot(Ints sum, Ints a, Ints b) { return _mm512_dpbusd_epi32(sum, a, b); }

#else

using Ints = __m256i;
using Floats = __m256;
constexpr int kColumns = 8;

inline Ints all(int32_t value) { return _mm256_set1_epi32(value); }
inline Floats all(float value) { return _mm256_set1_ps(value); }
inline Floats load(const float * p) { return _mm256_loadu_ps(p); }
inline void store(float * p, Floats x) { _mm256_storeu_ps(p, x); }
inline Floats multiply(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
inline Floats add_product(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
inline Floats to_floats(Ints a) { return _mm256_cvtepi32_ps(a); }
inline Ints bit_and(Ints a, Ints b) { return _mm256_and_si256(a, b); }
inline Ints bit_or(Ints a, Ints b) { return _mm256_or_si256(a, b); }
inline Ints bit_xor(Ints a, Ints b) { return _mm256_xor_si256(a, b); }
inline Ints shift_left(Ints a, int n) { return _mm256_sll_epi32(a, _mm_cvtsi32_si128(n)); }
inline Ints shift_right(Ints a, int n) { return _mm256_srl_epi32(a, _mm_cvtsi32_si128(n)); }
inline Ints shift_right_signed(Ints a, int n) { return _mm256_sra_epi32(a, _mm_cvtsi32_si128(n)); }
inline Ints shuffle_bytes(Ints a, Ints places) { return _mm256_shuffle_epi8(a, places); }
inline Ints zip_low(Ints a, Ints b) { return _mm256_unpacklo_epi32(a, b); }
inline Ints zip_high(Ints a, Ints b) { return _mm256_unpackhi_epi32(a, b); }
inline Ints zip_low_pairs(Ints a, Ints b) { return _mm256_unpacklo_epi64(a, b); }
inline Ints zip_high_pairs(Ints a, Ints b) { return _mm256_unpackhi_epi64(a, b); }
inline Ints add(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
inline Ints add_shorts(Ints a, Ints b) { return _mm256_add_epi16(a, b); }
inline Ints multiply_bytes(Ints a, Ints b) { return _mm256_maddubs_epi16(a, b); }
inline Ints multiply_shorts(Ints a, Ints b) { return _mm256_madd_epi16(a, b); }

// Returns 16 where all bits of `mask` in a byte are set, else 0: one bit of `mask` is set in each.
inline Ints sixteen_where(Ints a, Ints mask) {
    return _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(a, mask), mask), _mm256_set1_epi8(16));
}

// Returns the low halves of the numbers, which are 16-bit floats.
inline Floats halves(Ints a) {
    const __m256i low = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, -1, -1, -1, -1, -1, -1, -1, -1, //
                                         0, 1, 4, 5, 8, 9, 12, 13, -1, -1, -1, -1, -1, -1, -1, -1);
    return _mm256_cvtph_ps(_mm256_castsi256_si128(_mm256_permute4x64_epi64(_mm256_shuffle_epi8(a, low), 0x08)));
}

// Returns 16 bytes of columns `first` and `first` + 4.
inline Ints load_columns(const uint8_t * x, size_t stride, int first) {
    const auto column = [&](int i) { return _mm_loadu_si128(reinterpret_cast<const __m128i *>(x + (first + i) * stride)); };
    return _mm256_inserti128_si256(_mm256_castsi128_si256(column(0)), column(4), 1);
}

// Returns 16 bytes from two places: p, and 32 bytes behind it.
inline Floats load_pairs(const uint8_t * p, size_t) {
    const __m128 first = _mm_loadu_ps(reinterpret_cast<const float *>(p));
    return _mm256_insertf128_ps(_mm256_castps128_ps256(first), _mm_loadu_ps(reinterpret_cast<const float *>(p + 32)), 1);
}

inline Ints even_numbers(Floats a, Floats b) { return _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0x88)); }
inline Ints odd_numbers(Floats a, Floats b) { return _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0xDD)); }

// Returns eight 16-bit floats.
inline Floats load_halves(const uint8_t * p, size_t) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
}

inline Floats bytes_to_floats(const uint64_t * bytes) {
    return to_floats(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(bytes))));
}

#if defined(__AVXVNNI__)
#define CYLLAMA_DOT
inline Ints add_dot(Ints sum, Ints a, Ints b) { return _mm256_dpbusd_avx_epi32(sum, a, b); }
#endif

#endif

// Returns, for each of the four numbers in 16 bytes of a column, those of all columns.
inline void transpose(const uint8_t * x, size_t stride, Ints * numbers) {
    const Ints a = load_columns(x, stride, 0), b = load_columns(x, stride, 1);
    const Ints c = load_columns(x, stride, 2), d = load_columns(x, stride, 3);
    const Ints ab = zip_low(a, b), cd = zip_low(c, d), ab_high = zip_high(a, b), cd_high = zip_high(c, d);
    numbers[0] = zip_low_pairs(ab, cd);
    numbers[1] = zip_high_pairs(ab, cd);
    numbers[2] = zip_low_pairs(ab_high, cd_high);
    numbers[3] = zip_high_pairs(ab_high, cd_high);
}

inline Ints low_nibbles(Ints a) { return bit_and(a, all(0x0F0F0F0F)); }
inline Ints high_nibbles(Ints a) { return low_nibbles(shift_right(a, 4)); }

// ---- types of matrices. A block of columns has kParts parts, which are read in order. A part has 4 * kVectors values of each
// column, from 0 to 255, which stand for (value - kOffset) * scale, or for value * scale + least where kOffset is 0. Of a row,
// `place` is where the values of a part are, and `sum_of` their sum, with the scale of the row where kOffset is 0. The values of
// a row are from -128 to 127: kSafe products of pairs have a sum of 16 bits. Where it is 0, not even one has, and the type stores
// its values with `put_bytes`.

struct Part {
    Ints values[8], high[8];
    Floats scale, least;
};

// Stores values of up to 8 bits in a part: without an instruction for their products, the lower and the upper half of each.
inline void put_bytes(Part & part, int i, Ints values) {
#ifdef CYLLAMA_DOT
    part.values[i] = values;
#else
    part.values[i] = low_nibbles(values);
    part.high[i] = high_nibbles(values);
#endif
}

// Returns the sum of the values of a block.
inline int32_t sum_of_values(const block_q8_0 & row) {
    const __m256i values = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(row.qs));
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), values);
    const __m256i sums = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    const __m128i two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 1)));
}

// ---- products

constexpr int kSlab = 256; // parts of a row that are multiplied before the next ones: bounds the arrays of RowFactors

// Scales and sums of the blocks of rows, in the order in which they are used.
template <class Type, int kRows> struct RowFactors {
    static constexpr bool kHasLeast = Type::kOffset == 0;
    using Sum = std::conditional_t<kHasLeast, float, int32_t>;
    float scales[kSlab / Type::kParts * kRows];
    Sum sums[kSlab * kRows]; // as `sum_of` has them, times -kOffset if there is one

    RowFactors(int n_blocks, const typename Type::Row * const * rows) {
        for (int b = 0; b < n_blocks; ++b) {
            for (int row = 0; row < kRows; ++row) {
                const auto & block = rows[row][b];
                scales[b * kRows + row] = Type::scale_of(block);
                for (int part = 0; part < Type::kParts; ++part) {
                    const Sum sum = Type::sum_of(block, part);
                    sums[(b * Type::kParts + part) * kRows + row] = kHasLeast ? sum : sum * -Type::kOffset;
                }
            }
        }
    }
};

inline Ints four_values(const int8_t * values) {
    int32_t four;
    std::memcpy(&four, values, sizeof(four));
    return all(four);
}

#ifdef CYLLAMA_DOT

constexpr int kTogether = 1;

// Adds the products of the values of a part of all columns with those of each row to a sum for each row.
template <class Type, int kRows> inline void add_dots(Ints * sums, const Part & part, const int8_t * const * rows) {
    static_assert(kRows == 1);
#pragma GCC unroll 8
    for (int i = 0; i < Type::kVectors; ++i) {
        sums[0] = add_dot(sums[0], part.values[i], four_values(rows[0] + 4 * i));
    }
}

#else

constexpr int kTogether = 4; // rows that are multiplied with values while these are in a register

// Adds products now: GCC 12 would multiply all values before it adds any products, for which there are too few registers.
inline void add_pairs(Ints & sums, Ints products) {
    sums = add_shorts(sums, products);
#ifdef __GNUC__
    __asm__ volatile("" : "+x"(sums));
#endif
}

// Adds the products of the values of a part of all columns with those of each row to a sum for each row.
template <class Type, int kRows> inline void add_dots(Ints * sums, const Part & part, const int8_t * const * rows) {
    constexpr bool kHalves = Type::kSafe == 0;
    constexpr int kSafe = kHalves ? 8 : Type::kSafe;
#pragma GCC unroll 8
    for (int first = 0; first < Type::kVectors; first += kSafe) {
        Ints pairs[kRows] = {}, high[kRows] = {};
#pragma GCC unroll 8
        for (int i = first; i < first + kSafe; ++i) {
#pragma GCC unroll 8
            for (int row = 0; row < kRows; ++row) {
                const Ints four = four_values(rows[row] + 4 * i);
                const Ints products = multiply_bytes(part.values[i], four);
                if constexpr (kHalves) {
                    add_pairs(high[row], multiply_bytes(part.high[i], four));
                }
                add_pairs(pairs[row], products);
            }
        }
#pragma GCC unroll 8
        for (int row = 0; row < kRows; ++row) {
            sums[row] = add(sums[row], multiply_shorts(pairs[row], _mm256_set1_epi16(1)));
            if constexpr (kHalves) {
                sums[row] = add(sums[row], multiply_shorts(high[row], _mm256_set1_epi16(16)));
            }
        }
    }
}

#endif

// Adds the products of a part of all columns with rows to their sums. `values`, `scales` and `offsets` are those of each row.
template <class Type, int kRows, class Sum>
inline void add_part(Floats * sums, const Part & part, const int8_t * const * values, const float * scales,
                     const Sum * offsets) {
    Ints dots[kRows];
#pragma GCC unroll 16
    for (int row = 0; row < kRows; ++row) {
        if constexpr (Type::kOffset == 0) {
            dots[row] = all(0);
            sums[row] = add_product(part.least, all(offsets[row]), sums[row]);
        } else {
            dots[row] = all(offsets[row]);
        }
    }
    add_dots<Type, kRows>(dots, part, values);
#pragma GCC unroll 16
    for (int row = 0; row < kRows; ++row) {
        sums[row] = add_product(to_floats(dots[row]), multiply(part.scale, all(scales[row])), sums[row]);
    }
}

// Fetches a share of the next columns into the second cache, a block of each when all blocks are done: the processor sees many
// short streams, and does not read ahead of them. There are `n_blocks` of a longer column.
template <class Type> inline void prefetch(const uint8_t * x, size_t stride, int b, int n_blocks) {
    constexpr int kStreams = kColumns * Type::kBytes / sizeof(typename Type::Matrix);
    const int share = b * kStreams;
    x += kColumns * stride + share / n_blocks * (kColumns / kStreams * stride);
    x += share % n_blocks * sizeof(typename Type::Matrix);
    for (size_t i = 0; i < kColumns * Type::kBytes; i += 64) {
        _mm_prefetch(reinterpret_cast<const char *>(x + i), _MM_HINT_T1);
    }
}

// Multiplies rows with all columns, and stores the first n_rows, or adds them to what is there.
template <class Type, int kRows>
void multiply_rows(int n_blocks, float * s, size_t bs, const uint8_t * x, size_t stride,
                   const typename Type::Row * const * rows, int n_rows, int n_columns, bool adds) {
    constexpr int kGroup = std::min(kRows, kTogether);
    const RowFactors<Type, kRows> factors(n_blocks, rows);
    for (int column = 0; column < n_columns; column += kColumns, x += kColumns * stride) {
        Floats sums[kRows];
#pragma GCC unroll 16
        for (int row = 0; row < kRows; ++row) {
            sums[row] = adds && row < n_rows ? load(s + row * bs + column) : all(0.f);
        }
        for (int b = 0; b < n_blocks; ++b) {
            Type block{x + b * sizeof(typename Type::Matrix), stride};
            prefetch<Type>(x, stride, b, n_blocks);
            for (int i = 0; i < Type::kParts; ++i) {
                Part part;
                block.read(i, part);
#pragma GCC unroll 16
                for (int first = 0; first < kRows; first += kGroup) {
                    const int8_t * values[kGroup];
#pragma GCC unroll 16
                    for (int row = 0; row < kGroup; ++row) {
                        values[row] = rows[first + row][b].qs + Type::place(i);
                    }
                    add_part<Type, kGroup>(sums + first, part, values, factors.scales + b * kRows + first,
                                           factors.sums + (b * Type::kParts + i) * kRows + first);
                }
            }
        }
#pragma GCC unroll 16
        for (int row = 0; row < kRows; ++row) {
            if (row < n_rows) {
                store(s + row * bs + column, sums[row]);
            }
        }
    }
}

constexpr int kMostRows = kColumns; // of a pass over the columns: about as many as there are registers

// Multiplies all rows with the columns, up to kMostRows in a pass over the columns.
template <class Type>
void multiply_columns(int n_blocks, float * s, size_t bs, const uint8_t * x, size_t stride, const uint8_t * y, int n_rows,
                      int n_columns) {
    using Row = typename Type::Row;
    constexpr int kBlocks = kSlab / Type::kParts;
    for (int first = 0, n = 0; first < n_rows; first += n) {
        n = std::min(n_rows - first, n_rows - first > 12 ? kMostRows : 8); // 8 and up to 4 take less time than 16
        for (int b = 0; b < n_blocks; b += kBlocks) {
            const Row * rows[kMostRows]; // those behind the last one repeat it
            for (int row = 0; row < kMostRows; ++row) {
                rows[row] =
                    reinterpret_cast<const Row *>(y) + static_cast<size_t>(first + std::min(row, n - 1)) * n_blocks + b;
            }
            const auto function = n > 8   ? multiply_rows<Type, kMostRows>
                                  : n > 4 ? multiply_rows<Type, 8>
                                  : n > 2 ? multiply_rows<Type, 4>
                                  : n > 1 ? multiply_rows<Type, 2>
                                          : multiply_rows<Type, 1>;
            function(std::min(kBlocks, n_blocks - b), s + first * bs, bs, x + b * sizeof(typename Type::Matrix), stride,
                     rows, n, n_columns, b > 0);
        }
    }
}

} // namespace

#endif
