// Flash attention for batches of many sequences that share one KV cache. It is compiled into ggml-cpu, whose dispatch calls
// it instead of ggml's own function (see CMakeLists.txt). Cases that it does not handle go to ggml's function.
//
// ggml reads the mask of every cell of the cache for each token and head, and most cells belong to other sequences: R
// sequences of L tokens cost R * R * L reads per head, and a read costs a tenth of an attention. If a tile has tokens of
// several sequences, ggml even computes all cells for all tokens. Here, a tile consists of successive tokens of one
// sequence, and of the heads that share their keys. It reads the mask once, 32 cells at a time, and gathers the cells of
// its sequence. Keys and values are converted once for all those heads, too.
//
// Cells are taken in their order, and every block is filled. So the rounding of a result depends on the order of the
// sequence's cells, and not on where they lie or what lies between them.
//
// The softmax is the usual online one (https://arxiv.org/abs/2205.14135), in blocks of kBlock cells.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "common.h"
#include "ops.h"
#include "simd-gemm.h"
#include "vec.h"

namespace {

constexpr int kBlock = GGML_FA_TILE_KV; // cells at a time
constexpr int kTile = GGML_FA_TILE_Q;   // most pairs of a token and a head that a tile has
constexpr int kLook = 32;               // cells of the mask that are read together; divides kBlock
#if defined(GGML_SIMD) && !defined(__ARM_FEATURE_SVE) && !defined(__riscv_v_intrinsic) // as in simd-gemm.h
#define CYLLAMA_VECTORS
constexpr int kVector = GGML_F32_EPR; // floats of a vector register; pairs are padded to a multiple of it
constexpr int kVectors = GEMM_RN;     // vectors of a row of values that are multiplied together
#else
constexpr int kVector = 8;
#endif
constexpr int kAhead = 16;           // rows of keys or values that are fetched before they are read
constexpr int kRows = 4;             // rows of scores that softmax reads together; divides kBlock
constexpr int kPairs = 4;            // pairs whose results are computed together; divides kVector
constexpr uint16_t kMasked = 0xFC00; // -inf

// A tile: tokens of one sequence, and heads with the same keys and values.
struct Tile {
    int64_t token, n_tokens, head, n_heads;
};

// The cells of a tile that were found and not used yet, in order.
struct Gathered {
    int32_t cells[kBlock + kLook];
    int n = 0;
    int64_t next = 0;         // the first cell whose mask was not read
    bool masked = false;      // whether a token of the tile does not attend to one of the cells
    bool last_masked = false; // the same for the cells that the last read of kLook cells found
};

// The memory of one thread, within the work buffer that ggml's own flash attention plans.
struct Scratch {
    float * queries; // [DK, pairs]: all heads of the first token, then those of the second
    float * scores;  // [cells, pairs]; softmax replaces them by weights
    float * result;  // [pairs, DV]; DV is padded to whole vectors here and below
    float * keys;    // [cells, DK]
    float * values;  // [cells, DV]

    // In floats, a multiple of CACHE_LINE_SIZE_F32.
    static int64_t size(int64_t dk, int64_t dv) {
        return kTile * dk + kTile * kBlock + kTile * dv + kBlock * dv + kBlock * dk;
    }

    Scratch(const ggml_compute_params * params, int64_t dk, int64_t dv) {
        // Access to a vector in two cache lines takes twice as long.
        const auto begin = reinterpret_cast<uintptr_t>(params->wdata);
        queries = reinterpret_cast<float *>(GGML_PAD(begin, CACHE_LINE_SIZE)) + params->ith * size(dk, dv);
        scores = queries + kTile * dk;
        result = scores + kTile * kBlock;
        keys = result + kTile * dv;
        values = keys + kBlock * dk;
    }
};

class Attention {
  public:
    explicit Attention(ggml_tensor * dst)
        : q_(dst->src[0]), k_(dst->src[1]), v_(dst->src[2]), mask_(dst->src[3]), dst_(dst), dk_(k_->ne[0]),
          dv_(padded(v_->ne[0])), n_tokens_(q_->ne[1]), n_cells_(k_->ne[1]), group_(q_->ne[2] / k_->ne[2]) {
        std::memcpy(&scale_, dst->op_params, sizeof(scale_));
    }

    // Whether this kernel handles the case: a mask, no attention sinks, no ALiBi, no soft cap, one stream.
    static bool handles(const ggml_compute_params * params, const ggml_tensor * dst) {
        const ggml_tensor *q = dst->src[0], *k = dst->src[1], *v = dst->src[2], *mask = dst->src[3];
        float max_bias, softcap;
        std::memcpy(&max_bias, reinterpret_cast<const float *>(dst->op_params) + 1, sizeof(float));
        std::memcpy(&softcap, reinterpret_cast<const float *>(dst->op_params) + 2, sizeof(float));
        if (params->use_ref || !mask || dst->src[4] || max_bias != 0 || softcap != 0) {
            return false;
        }
        const bool types =
            q->type == GGML_TYPE_F32 && k->type == GGML_TYPE_F16 && v->type == GGML_TYPE_F16 && mask->type == GGML_TYPE_F16;
        const bool rows = q->nb[0] == sizeof(float) && k->nb[0] == sizeof(ggml_fp16_t) && v->nb[0] == k->nb[0];
        const bool shapes = q->ne[3] == 1 && k->ne[3] == 1 && k->ne[2] == v->ne[2] && q->ne[2] % k->ne[2] == 0 &&
                            mask->ne[2] == 1 && mask->ne[3] == 1 && mask->ne[0] >= k->ne[1] && mask->ne[1] >= q->ne[1];
        const int64_t n_floats = CACHE_LINE_SIZE_F32 + params->nth * Scratch::size(k->ne[0], padded(v->ne[0]));
        return types && rows && shapes && n_floats * sizeof(float) <= params->wsize;
    }

    // Computes tiles until all are taken: this thread takes the next one whenever it has finished one.
    void compute(const ggml_compute_params * params) const {
        const int64_t n_rows = n_tokens_ * k_->ne[2];
        const int64_t n_parts = std::clamp<int64_t>((params->nth + n_rows - 1) / n_rows, 1, group_);
        const int64_t n_heads = std::min<int64_t>((group_ + n_parts - 1) / n_parts, kTile);
        const Scratch scratch(params, dk_, dv_);
        if (dv_ > v_->ne[0]) { // the padding of values stays 0
            std::memset(scratch.values, 0, static_cast<size_t>(kBlock * dv_) * sizeof(float));
        }
        int64_t mine = params->ith, index = 0;
        for (int64_t token = 0, n; token < n_tokens_; token += n) {
            n = same_sequence(token, std::max<int64_t>(kTile / n_heads, 1));
            for (int64_t head = 0; head < q_->ne[2]; head += group_) {
                for (int64_t part = 0; part < group_; part += n_heads) {
                    if (index++ == mine) {
                        compute({token, n, head + part, std::min(n_heads, group_ - part)}, scratch);
                        mine = ggml_threadpool_chunk_add(params->threadpool, 1);
                    }
                }
            }
        }
    }

  private:
    static int64_t padded(int64_t n) { return GGML_PAD(n, kVector); }

    const uint16_t * mask(int64_t token) const {
        return reinterpret_cast<const uint16_t *>(static_cast<const char *>(mask_->data) + token * mask_->nb[1]);
    }

    static bool any(const uint16_t * mask, int64_t n) {
        uint16_t found = 0;
        for (int64_t i = 0; i < n; ++i) {
            found |= static_cast<uint16_t>(mask[i] ^ kMasked);
        }
        return found != 0;
    }

    // The last cell that a token attends to; with causal attention, its own. -1 if it attends to none.
    int64_t last_cell(int64_t token) const {
        const uint16_t * m = mask(token);
        int64_t end = n_cells_;
        while (end % kLook == 0 && end > 0 && !any(m + end - kLook, kLook)) {
            end -= kLook;
        }
        while (end > 0 && m[end - 1] == kMasked) {
            --end;
        }
        return end - 1;
    }

    // Number of tokens from this one on, at most `limit`, that belong to one sequence: each attends to the one before.
    int64_t same_sequence(int64_t token, int64_t limit) const {
        const int64_t end = std::min(n_tokens_, token + limit);
        int64_t next = token + 1;
        for (; next < end; ++next) {
            const int64_t last = last_cell(next - 1);
            if (last < 0 || mask(next)[last] == kMasked) {
                break;
            }
        }
        return next - token;
    }

    // Finds the next cells that a token of the tile attends to; returns their number, at most kBlock.
    int gather(const Tile & tile, Gathered & found) const {
        while (found.next < n_cells_ && found.n < kBlock) {
            const int n_look = static_cast<int>(std::min<int64_t>(kLook, n_cells_ - found.next));
            uint16_t seen[kLook] = {}, hidden[kLook] = {};
            uint16_t any_seen = 0;
            for (int64_t t = 0; t < tile.n_tokens; ++t) {
                const uint16_t * m = mask(tile.token + t) + found.next;
                for (int i = 0; i < n_look; ++i) {
                    seen[i] |= static_cast<uint16_t>(m[i] ^ kMasked);
                    hidden[i] |= m[i];
                }
            }
            for (int i = 0; i < kLook; ++i) {
                any_seen |= seen[i];
            }
            bool masked = false;
            for (int i = 0; any_seen && i < n_look; ++i) {
                found.cells[found.n] = static_cast<int32_t>(found.next) + i;
                found.n += seen[i] != 0;
                masked |= seen[i] != 0 && hidden[i] != 0;
            }
            found.masked |= masked;
            found.last_masked = masked;
            found.next += n_look;
        }
        return std::min(found.n, kBlock);
    }

    // Removes the first `n` cells, which were used.
    static void drop(Gathered & found, int n) {
        std::copy(found.cells + n, found.cells + found.n, found.cells);
        found.n -= n;
        found.masked = found.n > 0 && found.last_masked; // the other cells are of the last read
    }

    static const char * row(const ggml_tensor * tensor, int64_t head, int32_t cell) {
        return static_cast<const char *>(tensor->data) + head * tensor->nb[2] + cell * tensor->nb[1];
    }

    // Begins to read a row into the processor's cache. Rows of other heads lie between those of two cells, so it does not
    // do so by itself.
    static void fetch(const ggml_tensor * tensor, int64_t head, int32_t cell) {
#ifdef __GNUC__
        const char * begin = row(tensor, head, cell);
        for (size_t i = 0; i < tensor->ne[0] * sizeof(ggml_fp16_t); i += CACHE_LINE_SIZE) {
            __builtin_prefetch(begin + i);
        }
#endif
    }

    // Writes rows of keys or values as float; a row begins `width` floats behind the one before. Meanwhile fetches the
    // next ones: those of these cells, and then kAhead of `after`.
    static void load(const ggml_tensor * tensor, int64_t head, const int32_t * cells, int n, int64_t width, float * rows,
                     const ggml_tensor * after, const int32_t * cells_after) {
        for (int i = 0; i < n; ++i) {
            const int next = i + kAhead;
            next < n ? fetch(tensor, head, cells[next]) : fetch(after, head, cells_after[next - n]);
            ggml_cpu_fp16_to_fp32(reinterpret_cast<const ggml_fp16_t *>(row(tensor, head, cells[i])), rows + i * width,
                                  tensor->ne[0]);
        }
    }

    // Loads the keys and values of a block, and fetches the first keys of what is probably the next one.
    void load_block(const Tile & tile, const Gathered & found, int n, const Scratch & scratch) const {
        const int64_t head = tile.head / group_;
        int32_t first[kAhead], next[kAhead];
        for (int i = 0; i < kAhead; ++i) {
            const int64_t guess = std::min<int64_t>(found.cells[found.n - 1] + 1 + i, n_cells_ - 1);
            first[i] = found.cells[std::min(i, n - 1)];
            next[i] = n + i < found.n ? found.cells[n + i] : static_cast<int32_t>(guess);
        }
        load(k_, head, found.cells, n, dk_, scratch.keys, v_, first);
        load(v_, head, found.cells, n, dv_, scratch.values, k_, next);
    }

    void load_queries(const Tile & tile, int64_t n_pairs, float * queries) const {
        std::memset(queries, 0, static_cast<size_t>(dk_ * n_pairs) * sizeof(float));
        for (int64_t t = 0, pair = 0; t < tile.n_tokens; ++t) {
            for (int64_t h = 0; h < tile.n_heads; ++h, ++pair) {
                const auto * row = reinterpret_cast<const float *>(
                    static_cast<const char *>(q_->data) + (tile.token + t) * q_->nb[1] + (tile.head + h) * q_->nb[2]);
                for (int64_t d = 0; d < dk_; ++d) {
                    queries[d * n_pairs + pair] = row[d] * scale_;
                }
            }
        }
    }

    // Adds the products of keys and queries to the scores.
    static void multiply(float * scores, const float * keys, const float * queries, int n, int dk, int n_pairs) {
#ifdef CYLLAMA_VECTORS
        constexpr int kTall = 8; // rows at a time; of rows of one vector, simd_gemm takes too few
        for (; n_pairs == kVector && n >= kTall; n -= kTall, keys += kTall * dk, scores += kTall * n_pairs) {
            simd_gemm_ukernel<kTall, 1>(scores, keys, queries, dk, n_pairs);
        }
#endif
        simd_gemm(scores, keys, queries, n, dk, n_pairs);
    }

    // Multiplies the results of kPairs pairs by their factors, and adds the products of their weights and the values.
    static void accumulate(float * result, const float * factor, const float * weights, const float * values, int n, int dv,
                           int n_pairs) {
#ifdef CYLLAMA_VECTORS
        int d = 0;
        for (; d + kVectors * kVector <= dv; d += kVectors * kVector) {
            accumulate_vectors<kVectors>(result + d, factor, weights, values + d, n, dv, n_pairs);
        }
        for (; d < dv; d += kVector) {
            accumulate_vectors<1>(result + d, factor, weights, values + d, n, dv, n_pairs);
        }
#else
        for (int pair = 0; pair < kPairs; ++pair) {
            ggml_vec_scale_f32(dv, result + pair * dv, factor[pair]);
            for (int i = 0; i < n; ++i) {
                ggml_vec_mad_f32(dv, result + pair * dv, values + i * dv, weights[i * n_pairs + pair]);
            }
        }
#endif
    }

#ifdef CYLLAMA_VECTORS
    template <int N>
    static void accumulate_vectors(float * result, const float * factor, const float * weights, const float * values, int n,
                                   int dv, int n_pairs) {
        GGML_F32_VEC sums[kPairs][N];
        for (int pair = 0; pair < kPairs; ++pair) {
            for (int v = 0; v < N; ++v) {
                sums[pair][v] =
                    GGML_F32_VEC_MUL(GGML_F32_VEC_LOAD(result + pair * dv + v * kVector), GGML_F32_VEC_SET1(factor[pair]));
            }
        }
        for (int i = 0; i < n; ++i) {
            GGML_F32_VEC row[N];
            for (int v = 0; v < N; ++v) {
                row[v] = GGML_F32_VEC_LOAD(values + i * dv + v * kVector);
            }
            for (int pair = 0; pair < kPairs; ++pair) {
                const GGML_F32_VEC weight = GGML_F32_VEC_SET1(weights[i * n_pairs + pair]);
                for (int v = 0; v < N; ++v) {
                    sums[pair][v] = GGML_F32_VEC_FMA(sums[pair][v], row[v], weight);
                }
            }
        }
        for (int pair = 0; pair < kPairs; ++pair) {
            for (int v = 0; v < N; ++v) {
                GGML_F32_VEC_STORE(result + pair * dv + v * kVector, sums[pair][v]);
            }
        }
    }
#endif

    void add_mask(const Tile & tile, const int32_t * cells, int n, int64_t n_pairs, float * scores) const {
        for (int64_t t = 0; t < tile.n_tokens; ++t) {
            const uint16_t * m = mask(tile.token + t);
            for (int i = 0; i < n; ++i) {
                const uint16_t value = m[cells[i]];
                float * row = scores + i * n_pairs + t * tile.n_heads;
                for (int64_t h = 0; value && h < tile.n_heads; ++h) {
                    row[h] += GGML_CPU_FP16_TO_FP32(value);
                }
            }
        }
    }

    void compute(const Tile & tile, const Scratch & scratch) const {
        const int n_used = static_cast<int>(tile.n_tokens * tile.n_heads), n_pairs = static_cast<int>(padded(n_used));
        const int dk = static_cast<int>(dk_), dv = static_cast<int>(dv_);
        float max[kTile], sum[kTile], factor[kTile];
        std::fill(max, max + kTile, -INFINITY);
        std::fill(sum, sum + kTile, 0.0f);
        std::memset(scratch.result, 0, static_cast<size_t>(n_pairs * dv) * sizeof(float));
        load_queries(tile, n_pairs, scratch.queries);
        Gathered found;
        while (const int n = gather(tile, found)) {
            load_block(tile, found, n, scratch);
            std::memset(scratch.scores, 0, static_cast<size_t>(n * n_pairs) * sizeof(float));
            multiply(scratch.scores, scratch.keys, scratch.queries, n, dk, n_pairs);
            if (found.masked) {
                add_mask(tile, found.cells, n, n_pairs, scratch.scores);
            }
            softmax(n, n_pairs, scratch.scores, max, sum, factor);
            for (int pair = 0; pair < n_used; pair += kPairs) {
                accumulate(scratch.result + pair * dv, factor + pair, scratch.scores + pair, scratch.values, n, dv,
                           n_pairs);
            }
            drop(found, n);
        }
        store(tile, scratch.result, sum);
    }

    // e^x for x <= 0, as 2^n e^rest with |rest| <= ln 2 / 2: arithmetic that compilers turn into vector instructions.
    static float exp_of_negative(float x) {
        constexpr float kLeast = -87.0f;    // e^-87 is the smallest power of e that is a normal number
        constexpr float kRound = 0x1.8p23f; // the last bit of a float of this size is 1
        const float bounded = std::max(x, kLeast);
        const float shifted = bounded * 0x1.715476p+0f + kRound;
        const float n = shifted - kRound;
        const float rest = bounded - n * 0x1.62e4p-1f - n * 0x1.7f7d1cp-20f; // ln 2 in two parts
        float value = 0x1.6c16c2p-10f;                                       // 1 / 6!, and so on: the Taylor series
        value = value * rest + 0x1.111112p-7f;
        value = value * rest + 0x1.555556p-5f;
        value = value * rest + 0x1.555556p-3f;
        value = value * rest + 0.5f;
        value = value * rest + 1.0f;
        value = value * rest + 1.0f;
        uint32_t bits;
        std::memcpy(&bits, &shifted, sizeof(bits));
        bits = (bits << 23) + 0x3F800000; // n as an exponent
        float power;
        std::memcpy(&power, &bits, sizeof(power));
        return x < kLeast ? 0.0f : value * power;
    }

    static float larger(float a, float b) { return a < b ? b : a; } // std::max takes references: no vectors

    // Turns a block's scores into weights, relative to the largest score so far. `factor`: multiply earlier weights by it.
    // It takes kRows rows at a time, because each step of a maximum or a sum waits for the one before.
    static void softmax(int n, int n_pairs, float * GGML_RESTRICT scores, float * GGML_RESTRICT max,
                        float * GGML_RESTRICT sum, float * GGML_RESTRICT factor) {
        const int n_rows = GGML_PAD(n, kRows);
        std::fill(scores + n * n_pairs, scores + n_rows * n_pairs, -INFINITY);
        float base[kTile];
        std::copy(max, max + n_pairs, base);
        for (int i = 0; i < n_rows; i += kRows) {
            const float * row = scores + i * n_pairs;
            for (int pair = 0; pair < n_pairs; ++pair) {
                const float a = larger(row[pair], row[pair + n_pairs]);
                const float b = larger(row[pair + 2 * n_pairs], row[pair + 3 * n_pairs]);
                base[pair] = larger(base[pair], larger(a, b));
            }
        }
        for (int pair = 0; pair < n_pairs; ++pair) {
            const float largest = base[pair];
            base[pair] = largest == -INFINITY ? 0.0f : largest;
            factor[pair] = exp_of_negative(max[pair] - base[pair]);
            max[pair] = largest;
            sum[pair] *= factor[pair];
        }
        for (int i = 0; i < n_rows; i += kRows) {
            float * row = scores + i * n_pairs;
            for (int pair = 0; pair < n_pairs; ++pair) {
                const float a = row[pair] = exp_of_negative(row[pair] - base[pair]);
                const float b = row[pair + n_pairs] = exp_of_negative(row[pair + n_pairs] - base[pair]);
                const float c = row[pair + 2 * n_pairs] = exp_of_negative(row[pair + 2 * n_pairs] - base[pair]);
                const float d = row[pair + 3 * n_pairs] = exp_of_negative(row[pair + 3 * n_pairs] - base[pair]);
                sum[pair] += (a + b) + (c + d);
            }
        }
    }

    void store(const Tile & tile, const float * result, const float * sum) const {
        for (int64_t t = 0, pair = 0; t < tile.n_tokens; ++t) {
            for (int64_t h = 0; h < tile.n_heads; ++h, ++pair) {
                const int64_t row = (tile.token + t) * dst_->ne[1] + tile.head + h;
                auto * target = reinterpret_cast<float *>(static_cast<char *>(dst_->data) + row * dst_->nb[1]);
                const float factor = sum[pair] == 0 ? 0.0f : 1 / sum[pair];
                for (int64_t d = 0; d < v_->ne[0]; ++d) {
                    target[d] = result[pair * dv_ + d] * factor;
                }
            }
        }
    }

    const ggml_tensor *q_, *k_, *v_, *mask_;
    ggml_tensor * dst_;
    int64_t dk_, dv_, n_tokens_, n_cells_;
    int64_t group_; // number of heads that share their keys and values
    float scale_;
};

} // namespace

extern "C" void cyllama_flash_attn_ext(const ggml_compute_params * params, ggml_tensor * dst);

extern "C" void cyllama_flash_attn_ext(const ggml_compute_params * params, ggml_tensor * dst) {
    if (!Attention::handles(params, dst)) {
        ggml_compute_forward_flash_attn_ext(params, dst);
        return;
    }
    if (params->ith == 0) {
        ggml_threadpool_chunk_set(params->threadpool, params->nth);
    }
    ggml_barrier(params->threadpool);
    Attention(dst).compute(params);
}
