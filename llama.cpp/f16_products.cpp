// Products of matrices of 16-bit floats with two rows (tokens) or more, for processors with AVX2 or more. They are compiled into
// ggml-cpu, and called by quantized_products.cpp. Other types and shapes go on to ggml's functions.
//
// ggml multiplies four columns of the matrix with up to six rows, but waits for memory meanwhile: the processor does not read
// far enough ahead of four streams. Here, the columns behind them are fetched in the order of memory.

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "ggml-cpu-impl.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define CYLLAMA_HALVES

namespace {

// ---- types of numbers: `load` reads kLanes of them, `add_product` adds products to 32-bit sums

#if defined(__AVX512F__)

using Floats = __m512;

inline Floats zero() { return _mm512_setzero_ps(); }
inline __m256i load_16(const uint16_t * p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)); }

// Adds the upper half to the lower one.
inline __m256 fold(Floats a) {
    const __m256d upper = _mm512_extractf64x4_pd(_mm512_castps_pd(a), 1);
    return _mm256_add_ps(_mm512_castps512_ps256(a), _mm256_castpd_ps(upper));
}

struct F16 {
    static constexpr int kLanes = 16;
    static Floats load(const uint16_t * p) { return _mm512_cvtph_ps(load_16(p)); }
    static Floats add_product(Floats a, Floats b, Floats sum) { return _mm512_fmadd_ps(a, b, sum); }
};

#if defined(__AVX512BF16__)
struct BF16 {
    static constexpr int kLanes = 32;
    static __m512i load(const uint16_t * p) { return _mm512_loadu_si512(p); }
    static Floats add_product(__m512i a, __m512i b, Floats sum) { return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }
};
#else
struct BF16 : F16 {
    static Floats load(const uint16_t * p) {
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load_16(p)), 16));
    }
};
#endif

#else

using Floats = __m256;

inline Floats zero() { return _mm256_setzero_ps(); }
inline __m128i load_8(const uint16_t * p) { return _mm_loadu_si128(reinterpret_cast<const __m128i *>(p)); }
inline __m256 fold(Floats a) { return a; }

struct F16 {
    static constexpr int kLanes = 8;
    static Floats load(const uint16_t * p) { return _mm256_cvtph_ps(load_8(p)); }
    static Floats add_product(Floats a, Floats b, Floats sum) { return _mm256_fmadd_ps(a, b, sum); }
};

struct BF16 : F16 {
    static Floats load(const uint16_t * p) {
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load_8(p)), 16));
    }
};

#endif

// ---- products

constexpr int kLine = 32;            // numbers of a line of the cache
constexpr size_t kAhead = 16 * 1024; // how many numbers ahead memory is fetched, or the next columns if they are longer

inline __m256 add_pairs(Floats a, Floats b) {
    const __m256 low = _mm256_unpacklo_ps(fold(a), fold(b)), high = _mm256_unpackhi_ps(fold(a), fold(b));
    return _mm256_add_ps(low, high);
}

// Returns the sum of the lanes of each of four vectors.
inline __m128 sums_of(const Floats * x) {
    const __m256d ab = _mm256_castps_pd(add_pairs(x[0], x[1])), cd = _mm256_castps_pd(add_pairs(x[2], x[3]));
    const __m256d low = _mm256_unpacklo_pd(ab, cd), high = _mm256_unpackhi_pd(ab, cd);
    const __m256 sums = _mm256_add_ps(_mm256_castpd_ps(low), _mm256_castpd_ps(high));
    return _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps(sums, 1));
}

// A matrix and rows of n numbers, and where the products of the first row are: `next` numbers before those of the second.
struct Product {
    int64_t n;
    const uint16_t * x;
    size_t stride;
    const uint16_t * rows;
    float * s;
    size_t next;
    const uint16_t * end;   // of the columns that a thread multiplies,
    const uint16_t * after; // and those that it multiplies afterwards
};

// Adds the products of kLanes numbers of some columns and rows. The columns or the rows, whichever are fewer, are kept in
// registers.
template <class Type, int kColumns, int kRows>
inline void add_products(Floats (&sums)[kRows][kColumns], const Product & p, const uint16_t * x, const uint16_t * rows) {
    using Vector = decltype(Type::load(x));
    constexpr bool kKeepsRows = kRows < kColumns;
    constexpr int kKept = kKeepsRows ? kRows : kColumns, kOthers = kKeepsRows ? kColumns : kRows;
    Vector kept[kKept];
#pragma GCC unroll 8
    for (int i = 0; i < kKept; ++i) {
        kept[i] = Type::load(kKeepsRows ? rows + i * p.n : x + i * p.stride);
    }
#pragma GCC unroll 8
    for (int j = 0; j < kOthers; ++j) {
        const Vector other = Type::load(kKeepsRows ? x + j * p.stride : rows + j * p.n);
#pragma GCC unroll 8
        for (int i = 0; i < kKept; ++i) {
            Floats & sum = kKeepsRows ? sums[i][j] : sums[j][i];
            sum = Type::add_product(kept[i], other, sum);
        }
    }
}

// Stores the sums of the lanes of three or four vectors.
inline void store_sums(float * s, const Floats (&sums)[4]) { _mm_storeu_ps(s, sums_of(sums)); }
inline void store_sums(float * s, const Floats (&sums)[3]) {
    const Floats four[4] = {sums[0], sums[1], sums[2], zero()};
    const __m128 three = sums_of(four);
    _mm_storel_pi(reinterpret_cast<__m64 *>(s), three);
    _mm_store_ss(s + 2, _mm_movehl_ps(three, three));
}

// Multiplies kColumns columns with kRows rows from `row` on.
template <class Type, int kColumns, int kRows>
void multiply_rows(const Product & p, int64_t column, int64_t row, bool fetches) {
    const uint16_t * x = p.x + column * p.stride;
    const uint16_t * rows = p.rows + row * p.n;
    const uint16_t * ahead = x + std::max(kAhead, kColumns * p.stride);
    if (ahead >= p.end) {
        ahead = p.after + (ahead - p.end);
    }
    Floats sums[kRows][kColumns];
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
        for (int j = 0; j < kColumns; ++j) {
            sums[i][j] = zero();
        }
    }
    int64_t k = 0;
    for (; k + kLine <= p.n; k += kLine) {
        if (fetches) {
#pragma GCC unroll 8
            for (int j = 0; j < kColumns; ++j, ahead += kLine) {
                _mm_prefetch(reinterpret_cast<const char *>(ahead), _MM_HINT_T1);
            }
        }
#pragma GCC unroll 1 // else the compiler mixes several steps, which need more registers than there are
        for (int i = 0; i < kLine; i += Type::kLanes) {
            add_products<Type, kColumns, kRows>(sums, p, x + k + i, rows + k + i);
        }
    }
    for (; k < p.n; k += Type::kLanes) {
        add_products<Type, kColumns, kRows>(sums, p, x + k, rows + k);
    }
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
        store_sums(p.s + (row + i) * p.next + column, sums[i]);
    }
}

using Function = void (*)(const Product &, int64_t column, int64_t row, bool fetches);

template <class Type, int kColumns, int kMostRows> Function function_for(int64_t n_rows) {
    if constexpr (kMostRows > 1) {
        if (n_rows < kMostRows) {
            return function_for<Type, kColumns, kMostRows - 1>(n_rows);
        }
    }
    return multiply_rows<Type, kColumns, kMostRows>;
}

// Multiplies the columns from `begin` to `end`, of which there are kColumns or more, with all rows, in passes of about equal
// size. A few passes go over all columns before the next ones do, so that their rows stay in the second cache. The first pass
// fetches what follows.
template <class Type, int kColumns, int kMostRows>
void multiply(const Product & p, int64_t n_rows, int64_t begin, int64_t end) {
    constexpr int64_t kTogether = 32 / kMostRows; // passes
    const int64_t n_passes = (n_rows + kMostRows - 1) / kMostRows, least = n_rows / n_passes, n_longer = n_rows % n_passes;
    const Function function = function_for<Type, kColumns, kMostRows>(least);
    const Function longer = function_for<Type, kColumns, kMostRows>(least + 1);
    for (int64_t next = 0; next < n_passes; next += kTogether) {
        const int64_t last = std::min(next + kTogether, n_passes);
        for (int64_t first = begin; first < end; first += kColumns) {
            const int64_t column = std::min(first, end - kColumns); // the last ones may be computed twice
            for (int64_t pass = next; pass < last; ++pass) {
                const int64_t row = pass * least + std::min(pass, n_longer);
                (pass < n_longer ? longer : function)(p, column, row, pass == 0);
            }
        }
    }
}

// Of the columns, each thread takes some after the others. It knows the next ones before it multiplies these, and fetches them.
template <class Type, int kColumns, int kMostRows> bool multiply(const ggml_compute_params * params, ggml_tensor * dst) {
    constexpr size_t kChunk = 256 * 1024; // bytes of columns that a thread multiplies before it takes others
    const ggml_tensor * matrix = dst->src[0];
    const ggml_tensor * rows = dst->src[1];
    const int64_t n = matrix->ne[0], n_columns = matrix->ne[1], n_rows = rows->ne[1], n_groups = n_columns / kColumns;
    if (rows->type != GGML_TYPE_F32 || n % Type::kLanes || n_groups == 0 || n_rows < 2 ||
        matrix->ne[2] * matrix->ne[3] != 1 || rows->ne[2] * rows->ne[3] != 1) {
        return false;
    }
    const auto * x = static_cast<const uint16_t *>(matrix->data);
    const size_t stride = matrix->nb[1] / sizeof(*x);
    const int64_t n_chunks = std::min<int64_t>(n_groups, std::max<int64_t>(4 * params->nth, ggml_nbytes(matrix) / kChunk));
    const auto begin_of = [&](int64_t chunk) {
        return chunk < n_chunks ? n_groups * chunk / n_chunks * kColumns : n_columns;
    };
    Product product{n,
                    x,
                    stride,
                    static_cast<const uint16_t *>(params->wdata),
                    static_cast<float *>(dst->data),
                    dst->nb[1] / sizeof(float),
                    nullptr,
                    nullptr};
    for (int64_t chunk = params->ith, next; chunk < n_chunks; chunk = next) {
        next = ggml_threadpool_chunk_add(params->threadpool, 1);
        const int64_t begin = begin_of(chunk), end = begin_of(chunk + 1);
        product.end = x + end * stride;
        product.after = x + begin_of(next) * stride;
        multiply<Type, kColumns, kMostRows>(product, n_rows, begin, end);
    }
    return true;
}

// Takes as many columns and rows in a pass as there are registers for their sums.
template <class Type> bool multiply(const ggml_compute_params * params, ggml_tensor * dst) {
#if defined(__AVX512F__)
    const int64_t n_rows = dst->src[1]->ne[1]; // up to 8 are multiplied in one pass, more are faster with four columns
    return n_rows > 4 && n_rows <= 8 ? multiply<Type, 3, 8>(params, dst) : multiply<Type, 4, 6>(params, dst);
#else
    return multiply<Type, 3, 4>(params, dst);
#endif
}

} // namespace

#endif

extern "C" bool cyllama_multiply_halves(const ggml_compute_params * params, ggml_tensor * dst);

// Computes a product whose rows are in params->wdata, as numbers of the matrix's type. Returns false if ggml's functions have to.
bool cyllama_multiply_halves(const ggml_compute_params * params, ggml_tensor * dst) {
#ifdef CYLLAMA_HALVES
    switch (dst->src[0]->type) {
        case GGML_TYPE_F16: return multiply<F16>(params, dst);
        case GGML_TYPE_BF16: return multiply<BF16>(params, dst);
        default: return false;
    }
#else
    GGML_UNUSED(params);
    GGML_UNUSED(dst);
    return false;
#endif
}
