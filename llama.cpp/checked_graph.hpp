// Included before mtmd's sources. A projector's file may lack a tensor, or have one of another type or size than its metadata
// says. mtmd uses most tensors without a check: a missing one would be a null pointer in an operation of ggml, and others would
// fail a check while threads compute, which ends the process. Both throw std::runtime_error here, before anything is computed.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "ggml-backend.h"
#include "ggml.h"

inline ggml_tensor * cyllama_present(ggml_tensor * tensor) {
    return tensor ? tensor : throw std::runtime_error("a tensor is missing");
}

namespace cyllama {

inline bool is_float(ggml_type type) { return type == GGML_TYPE_F32 || type == GGML_TYPE_F16 || type == GGML_TYPE_BF16; }

// Whether the CPU computes a node of these types; other backends are asked for what they support, and the CPU does the rest.
inline bool computes(const ggml_tensor * node) {
    const ggml_tensor * a = node->src[0];
    const ggml_tensor * b = node->src[1];
    switch (node->op) {
        case GGML_OP_ADD:
        case GGML_OP_SUB:
        case GGML_OP_MUL:
        case GGML_OP_DIV: return is_float(a->type) && (b->type == a->type || b->type == GGML_TYPE_F32);
        case GGML_OP_CONCAT: return a->type == b->type;
        case GGML_OP_IM2COL: return (node->type == GGML_TYPE_F32 || node->type == GGML_TYPE_F16) && is_float(b->type);
        case GGML_OP_CONV_2D:
        case GGML_OP_CONV_2D_DW: return a->type == GGML_TYPE_F32 || a->type == GGML_TYPE_F16;
        case GGML_OP_MUL_MAT: return b->type == GGML_TYPE_F32 && (is_float(a->type) || ggml_is_quantized(a->type));
        case GGML_OP_GET_ROWS: return b->type == GGML_TYPE_I32 && (is_float(a->type) || ggml_is_quantized(a->type));
        case GGML_OP_NORM:
        case GGML_OP_RMS_NORM:
        case GGML_OP_SOFT_MAX:
        case GGML_OP_POOL_2D:
        case GGML_OP_UPSCALE: return a->type == GGML_TYPE_F32;
        default: return true;
    }
}

// Throws unless the rows that an input asks for exist.
inline void check_rows(const ggml_tensor * node) {
    const ggml_tensor * rows = node->src[1];
    if (!(rows->flags & GGML_TENSOR_FLAG_INPUT)) {
        return;
    }
    std::vector<int32_t> indices(static_cast<size_t>(ggml_nelements(rows)));
    ggml_backend_tensor_get(rows, indices.data(), 0, indices.size() * sizeof(int32_t));
    for (const int32_t i : indices) {
        if (i < 0 || i >= node->src[0]->ne[1]) {
            throw std::runtime_error(std::string("row ") + std::to_string(i) + " of " + node->src[0]->name +
                                     " is used, which has " + std::to_string(node->src[0]->ne[1]) + " rows");
        }
    }
}

inline ggml_status checked_compute(ggml_backend_sched_t sched, ggml_cgraph * graph) {
    for (int i = 0; i < ggml_graph_n_nodes(graph); ++i) {
        const ggml_tensor * node = ggml_graph_node(graph, i);
        if (!computes(node)) {
            std::string text = std::string(ggml_op_name(node->op)) + " cannot be computed with these types:";
            for (int s = 0; s < 2 && node->src[s]; ++s) {
                text += std::string(s ? ", " : " ") + ggml_type_name(node->src[s]->type) + " " + node->src[s]->name;
            }
            throw std::runtime_error(text);
        }
        if (node->op == GGML_OP_GET_ROWS) {
            check_rows(node);
        }
    }
    return ggml_backend_sched_graph_compute(sched, graph);
}

} // namespace cyllama

#define ggml_backend_sched_graph_compute(sched, graph) cyllama::checked_compute(sched, graph)

// The operations that mtmd gives weights to.
#define ggml_add(ctx, a, b) ggml_add(ctx, cyllama_present(a), cyllama_present(b))
#define ggml_sub(ctx, a, b) ggml_sub(ctx, cyllama_present(a), cyllama_present(b))
#define ggml_mul(ctx, a, b) ggml_mul(ctx, cyllama_present(a), cyllama_present(b))
#define ggml_div(ctx, a, b) ggml_div(ctx, cyllama_present(a), cyllama_present(b))
#define ggml_mul_mat(ctx, a, b) ggml_mul_mat(ctx, cyllama_present(a), cyllama_present(b))
#define ggml_mul_mat_id(ctx, a, b, ids) ggml_mul_mat_id(ctx, cyllama_present(a), b, ids)
#define ggml_get_rows(ctx, a, b) ggml_get_rows(ctx, cyllama_present(a), cyllama_present(b))
#define ggml_concat(ctx, a, b, dim) ggml_concat(ctx, cyllama_present(a), cyllama_present(b), dim)
#define ggml_conv_2d(ctx, a, ...) ggml_conv_2d(ctx, cyllama_present(a), __VA_ARGS__)
#define ggml_conv_2d_direct(ctx, a, ...) ggml_conv_2d_direct(ctx, cyllama_present(a), __VA_ARGS__)
#define ggml_conv_2d_dw(ctx, a, ...) ggml_conv_2d_dw(ctx, cyllama_present(a), __VA_ARGS__)
#define ggml_conv_2d_dw_direct(ctx, a, ...) ggml_conv_2d_dw_direct(ctx, cyllama_present(a), __VA_ARGS__)
#define ggml_permute(ctx, a, ...) ggml_permute(ctx, cyllama_present(a), __VA_ARGS__)
#define ggml_transpose(ctx, a) ggml_transpose(ctx, cyllama_present(a))
#define ggml_cont(ctx, a) ggml_cont(ctx, cyllama_present(a))
#define ggml_cast(ctx, a, type) ggml_cast(ctx, cyllama_present(a), type)
#define ggml_reshape_2d(ctx, a, ...) ggml_reshape_2d(ctx, cyllama_present(a), __VA_ARGS__)
#define ggml_reshape_3d(ctx, a, ...) ggml_reshape_3d(ctx, cyllama_present(a), __VA_ARGS__)
#define ggml_reshape_4d(ctx, a, ...) ggml_reshape_4d(ctx, cyllama_present(a), __VA_ARGS__)
#define ggml_repeat_4d(ctx, a, ...) ggml_repeat_4d(ctx, cyllama_present(a), __VA_ARGS__)
