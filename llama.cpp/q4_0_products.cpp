// Products of Q4_0 matrices for processors with AVX-512 VNNI. They are compiled into ggml-cpu, whose repack.cpp calls them
// instead of ggml's own functions (see CMakeLists.txt). Other processors go to repacked_products.cpp, longer rows to ggml's.
//
// ggml spends most of its instructions on shuffling the operands, and takes 16 tokens at a time, four or one. Here a block
// of eight columns is unpacked once for up to 16 tokens, of any number, and every instruction multiplies all of its 64 bytes.

#include "ggml-cpu-impl.h"
#include "repack.h"
#include "simd-mappings.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512VNNI__)
#define CYLLAMA_VNNI

#include <cstring>

namespace {

constexpr int kColumns = 8;     // of a block_q4_0x8
constexpr int kMaxBlocks = 512; // blocks of a row: RowBlocks has arrays of this size on the stack

// A block of the matrix: every vector has eight values of each column, to which 8 is added.
struct Columns {
    __m512i values[4];
    __m512 scale; // the scale of each column, twice

    explicit Columns(const block_q4_0x8 & x) {
        const __m512i flip = _mm512_set1_epi8(static_cast<char>(0x88)), nibble = _mm512_set1_epi8(0x0F);
        const __m512i twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
        const __m512i first = _mm512_xor_si512(_mm512_loadu_si512(x.qs), flip);
        const __m512i second = _mm512_xor_si512(_mm512_loadu_si512(x.qs + 64), flip);
        values[0] = _mm512_and_si512(first, nibble);
        values[1] = _mm512_and_si512(second, nibble);
        values[2] = _mm512_and_si512(_mm512_srli_epi16(first, 4), nibble);
        values[3] = _mm512_and_si512(_mm512_srli_epi16(second, 4), nibble);
        const __m256 d = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(x.d)));
        scale = _mm512_permutexvar_ps(twice, _mm512_castps256_ps512(d));
    }
};

// Scales and offsets of the blocks of rows (tokens), in the order of the blocks: kGroups groups of four rows, whose values are
// interleaved, and kSingle rows behind them.
template <int kGroups, int kSingle> struct RowBlocks {
    static constexpr int kRows = 4 * kGroups + kSingle;
    float scales[kMaxBlocks * kRows];
    int64_t offsets[kMaxBlocks * kRows]; // -8 times the sum of a block's values, as two int32: undoes the 8 in Columns

    RowBlocks(int n_blocks, const block_q8_0x4 * groups, const block_q8_0 * single) {
        for (int b = 0; b < n_blocks; ++b) {
            for (int group = 0; group < kGroups; ++group) {
                add_group(b * kRows + 4 * group, groups[group * n_blocks + b]);
            }
            for (int row = 0; row < kSingle; ++row) {
                add_single(b * kRows + 4 * kGroups + row, single[row * n_blocks + b]);
            }
        }
    }

    void add_group(int i, const block_q8_0x4 & four) {
        const __m512i ones = _mm512_set1_epi8(1);
        __m512i sums = _mm512_dpbusd_epi32(_mm512_setzero_si512(), ones, _mm512_loadu_si512(four.qs));
        sums = _mm512_dpbusd_epi32(sums, ones, _mm512_loadu_si512(four.qs + 64));
        const __m256i sum = _mm256_add_epi32(_mm512_castsi512_si256(sums), _mm512_extracti64x4_epi64(sums, 1));
        const __m256i offset = _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_slli_epi32(sum, 3));
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(offsets + i), offset);
        const __m128i d = _mm_loadl_epi64(reinterpret_cast<const __m128i *>(four.d));
        _mm_storeu_ps(scales + i, _mm_cvtph_ps(d));
    }

    void add_single(int i, const block_q8_0 & one) {
        const __m256i values = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(one.qs));
        const __m256i sums = _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_set1_epi8(1), values);
        const __m128i two = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
        const __m128i sum = _mm_add_epi32(two, _mm_unpackhi_epi64(two, two));
        offsets[i] = _mm_cvtsi128_si64(_mm_sub_epi32(_mm_setzero_si128(), _mm_slli_epi32(sum, 3)));
        scales[i] = GGML_CPU_FP16_TO_FP32(one.d);
    }

    // Adds the product of a block and a row. The row's values lie in groups of eight, `stride` bytes apart.
    __m512 add_product(__m512 sums, const Columns & columns, int block, const int8_t * values, int stride) const {
        __m512i sum = _mm512_set1_epi64(offsets[block]);
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            int64_t eight;
            std::memcpy(&eight, values + i * stride, sizeof(eight));
            sum = _mm512_dpbusd_epi32(sum, columns.values[i], _mm512_set1_epi64(eight));
        }
        const __m512 scale = _mm512_mul_ps(columns.scale, _mm512_set1_ps(scales[block]));
        return _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, sums);
    }
};

// Adds the two partial sums of each column, and stores the result.
inline void store(float * s, __m512 sums) {
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 0, 2, 4, 6, 8, 10, 12, 14);
    const __m512 both = _mm512_add_ps(sums, _mm512_permute_ps(sums, 0xB1));
    _mm256_storeu_ps(s, _mm512_castps512_ps256(_mm512_permutexvar_ps(even, both)));
}

// Multiplies kGroups groups of four rows, and kSingle rows behind them, with all columns. Each row is computed as alone.
template <int kGroups, int kSingle>
void multiply(int n_blocks, float * s, size_t bs, const block_q4_0x8 * x, const block_q8_0x4 * groups, int n_columns) {
    constexpr int kRows = 4 * kGroups + kSingle;
    const auto * single = reinterpret_cast<const block_q8_0 *>(groups + kGroups * n_blocks);
    const RowBlocks<kGroups, kSingle> rows(n_blocks, groups, single);
    for (int column = 0; column < n_columns; column += kColumns, x += n_blocks) {
        __m512 sums[kRows];
#pragma GCC unroll 16
        for (int row = 0; row < kRows; ++row) {
            sums[row] = _mm512_setzero_ps();
        }
        for (int b = 0; b < n_blocks; ++b) {
            const Columns columns(x[b]);
#pragma GCC unroll 16
            for (int row = 0; row < 4 * kGroups; ++row) {
                const int8_t * values = groups[row / 4 * n_blocks + b].qs + row % 4 * 8;
                sums[row] = rows.add_product(sums[row], columns, b * kRows + row, values, 32);
            }
#pragma GCC unroll 4
            for (int row = 4 * kGroups; row < kRows; ++row) {
                const int8_t * values = single[(row - 4 * kGroups) * n_blocks + b].qs;
                sums[row] = rows.add_product(sums[row], columns, b * kRows + row, values, 8);
            }
        }
#pragma GCC unroll 16
        for (int row = 0; row < kRows; ++row) {
            store(s + row * bs + column, sums[row]);
        }
    }
}

// Multiplies all rows, up to 16 in a pass over the matrix.
void multiply_rows(int n_blocks, float * s, size_t bs, const block_q4_0x8 * x, const block_q8_0x4 * y, int n_rows,
                   int n_columns) {
    constexpr decltype(&multiply<1, 0>) kMultiply[4][4] = {{nullptr, multiply<0, 1>, multiply<0, 2>, multiply<0, 3>},
                                                           {multiply<1, 0>, multiply<1, 1>, multiply<1, 2>, multiply<1, 3>},
                                                           {multiply<2, 0>, multiply<2, 1>, multiply<2, 2>, multiply<2, 3>},
                                                           {multiply<3, 0>, multiply<3, 1>, multiply<3, 2>,
                                                            multiply<3, 3>}};
    for (; n_rows >= 16; n_rows -= 16, s += 16 * bs, y += 4 * n_blocks) {
        multiply<4, 0>(n_blocks, s, bs, x, y, n_columns);
    }
    if (n_rows > 0) {
        kMultiply[n_rows / 4][n_rows % 4](n_blocks, s, bs, x, y, n_columns);
    }
}

} // namespace

#endif

extern "C" {
void cyllama_gemm_q4_0_8x8_q8_0(int n, float * s, size_t bs, const void * vx, const void * vy, int nr, int nc);
void cyllama_gemv_q4_0_8x8_q8_0(int n, float * s, size_t bs, const void * vx, const void * vy, int nr, int nc);
void cyllama_multiply_q4_0_8x8_q8_0(int n, float * s, size_t bs, const void * vx, const void * vy, int nr, int nc);
bool cyllama_multiply_repacked_q4_0(int n, float * s, size_t bs, const void * vx, const void * vy, int nr, int nc);
}

// In place of ggml's functions, which multiply groups of four rows, and one row.

void cyllama_gemm_q4_0_8x8_q8_0(int n, float * s, size_t bs, const void * vx, const void * vy, int nr, int nc) {
    cyllama_multiply_q4_0_8x8_q8_0(n, s, bs, vx, vy, nr, nc);
}

void cyllama_gemv_q4_0_8x8_q8_0(int n, float * s, size_t bs, const void * vx, const void * vy, int nr, int nc) {
#ifdef CYLLAMA_VNNI
    if (nr == 1 && n / QK8_0 <= kMaxBlocks) {
        multiply<0, 1>(n / QK8_0, s, bs, static_cast<const block_q4_0x8 *>(vx), static_cast<const block_q8_0x4 *>(vy), nc);
        return;
    }
#endif
    ggml_gemv_q4_0_8x8_q8_0(n, s, bs, vx, vy, nr, nc);
}

// In place of both: any number of rows, in groups of four, and one to three behind them.
void cyllama_multiply_q4_0_8x8_q8_0(int n, float * s, size_t bs, const void * vx, const void * vy, int nr, int nc) {
#ifdef CYLLAMA_VNNI
    if (n / QK8_0 <= kMaxBlocks) {
        multiply_rows(n / QK8_0, s, bs, static_cast<const block_q4_0x8 *>(vx), static_cast<const block_q8_0x4 *>(vy), nr,
                      nc);
        return;
    }
#else
    if (cyllama_multiply_repacked_q4_0(n, s, bs, vx, vy, nr, nc)) {
        return;
    }
#endif
    const int n_grouped = nr - nr % 4;
    if (n_grouped > 0) {
        ggml_gemm_q4_0_8x8_q8_0(n, s, bs, vx, vy, n_grouped, nc);
    }
    for (int row = n_grouped; row < nr; ++row) {
        const auto * y = static_cast<const block_q8_0 *>(vy) + static_cast<size_t>(row) * (n / QK8_0);
        ggml_gemv_q4_0_8x8_q8_0(n, s + row * bs, bs, vx, y, 1, nc);
    }
}
