// Products of Q4_0 matrices for processors with AVX-512 VNNI. They are compiled into ggml-cpu, whose repack.cpp calls them
// instead of ggml's own functions (see CMakeLists.txt). Other processors and longer rows go to ggml's functions.
//
// ggml spends most of its instructions on shuffling the operands, and takes 16 tokens at a time, four or one. Here a block
// of eight columns is unpacked once for up to 16 tokens, and every instruction multiplies all of its 64 bytes.

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

// Scales and offsets of the blocks of kRows rows (tokens), in the order of the blocks.
template <int kRows> struct RowBlocks {
    float scales[kMaxBlocks * kRows];
    int64_t offsets[kMaxBlocks * kRows]; // -8 times the sum of a block's values, as two int32: undoes the 8 in Columns

    RowBlocks(int n_blocks, const block_q8_0x4 * y) {
        const __m512i ones = _mm512_set1_epi8(1);
        for (int b = 0; b < n_blocks; ++b) {
            for (int row = 0; row < kRows; row += 4) {
                const block_q8_0x4 & four = y[row / 4 * n_blocks + b];
                __m512i sums = _mm512_dpbusd_epi32(_mm512_setzero_si512(), ones, _mm512_loadu_si512(four.qs));
                sums = _mm512_dpbusd_epi32(sums, ones, _mm512_loadu_si512(four.qs + 64));
                const __m256i sum = _mm256_add_epi32(_mm512_castsi512_si256(sums), _mm512_extracti64x4_epi64(sums, 1));
                const __m256i offset = _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_slli_epi32(sum, 3));
                _mm256_storeu_si256(reinterpret_cast<__m256i *>(offsets + b * kRows + row), offset);
                const __m128i d = _mm_loadl_epi64(reinterpret_cast<const __m128i *>(four.d));
                _mm_storeu_ps(scales + b * kRows + row, _mm_cvtph_ps(d));
            }
        }
    }

    RowBlocks(int n_blocks, const block_q8_0 * y) {
        for (int b = 0; b < n_blocks; ++b) {
            const __m256i values = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(y[b].qs));
            const __m256i sums = _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_set1_epi8(1), values);
            const __m128i two = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
            const __m128i sum = _mm_add_epi32(two, _mm_unpackhi_epi64(two, two));
            offsets[b] = _mm_cvtsi128_si64(_mm_sub_epi32(_mm_setzero_si128(), _mm_slli_epi32(sum, 3)));
            scales[b] = GGML_CPU_FP16_TO_FP32(y[b].d);
        }
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

// Multiplies kGroups groups of four rows with all columns. A group interleaves eight values of each row.
template <int kGroups>
void multiply(int n_blocks, float * s, size_t bs, const block_q4_0x8 * x, const block_q8_0x4 * y, int n_columns) {
    constexpr int kRows = 4 * kGroups;
    const RowBlocks<kRows> rows(n_blocks, y);
    for (int column = 0; column < n_columns; column += kColumns, x += n_blocks) {
        __m512 sums[kRows];
#pragma GCC unroll 16
        for (int row = 0; row < kRows; ++row) {
            sums[row] = _mm512_setzero_ps();
        }
        for (int b = 0; b < n_blocks; ++b) {
            const Columns columns(x[b]);
#pragma GCC unroll 16
            for (int row = 0; row < kRows; ++row) {
                const int8_t * values = y[row / 4 * n_blocks + b].qs + row % 4 * 8;
                sums[row] = rows.add_product(sums[row], columns, b * kRows + row, values, 32);
            }
        }
#pragma GCC unroll 16
        for (int row = 0; row < kRows; ++row) {
            store(s + row * bs + column, sums[row]);
        }
    }
}

void multiply_row(int n_blocks, float * s, const block_q4_0x8 * x, const block_q8_0 * y, int n_columns) {
    const RowBlocks<1> row(n_blocks, y);
    for (int column = 0; column < n_columns; column += kColumns, x += n_blocks) {
        __m512 sums = _mm512_setzero_ps();
        for (int b = 0; b < n_blocks; ++b) {
            sums = row.add_product(sums, Columns(x[b]), b, y[b].qs, 8);
        }
        store(s + column, sums);
    }
}

} // namespace

#endif

extern "C" {
void cyllama_gemm_q4_0_8x8_q8_0(int n, float * s, size_t bs, const void * vx, const void * vy, int nr, int nc);
void cyllama_gemv_q4_0_8x8_q8_0(int n, float * s, size_t bs, const void * vx, const void * vy, int nr, int nc);
}

void cyllama_gemm_q4_0_8x8_q8_0(int n, float * s, size_t bs, const void * vx, const void * vy, int nr, int nc) {
#ifdef CYLLAMA_VNNI
    const int n_blocks = n / QK8_0;
    if (n_blocks <= kMaxBlocks) {
        const auto * y = static_cast<const block_q8_0x4 *>(vy);
        constexpr decltype(&multiply<1>) kMultiply[] = {multiply<1>, multiply<2>, multiply<3>, multiply<4>};
        for (int n_groups = nr / 4, done; n_groups > 0; n_groups -= done) {
            done = n_groups < 4 ? n_groups : 4;
            kMultiply[done - 1](n_blocks, s, bs, static_cast<const block_q4_0x8 *>(vx), y, nc);
            s += 4 * done * bs;
            y += done * n_blocks;
        }
        return;
    }
#endif
    ggml_gemm_q4_0_8x8_q8_0(n, s, bs, vx, vy, nr, nc);
}

void cyllama_gemv_q4_0_8x8_q8_0(int n, float * s, size_t bs, const void * vx, const void * vy, int nr, int nc) {
#ifdef CYLLAMA_VNNI
    if (nr == 1 && n / QK8_0 <= kMaxBlocks) {
        multiply_row(n / QK8_0, s, static_cast<const block_q4_0x8 *>(vx), static_cast<const block_q8_0 *>(vy), nc);
        return;
    }
#endif
    ggml_gemv_q4_0_8x8_q8_0(n, s, bs, vx, vy, nr, nc);
}
