// LayerNorm's backward from its output, one pass over the rows: ../../systems/tempo/layer_norm.py says what and how
// exactly. All is computed in float32. A row's sums have kBlock lanes, added in one order, so that their bits are
// the same on every instruction set; the loops are plain, each instruction set's compiler makes vectors of them.

#pragma once

#include <cstring>
#include <type_traits>

#include "core.h"
#include "elements.h"

namespace pmexp {
namespace {

inline float sum_of(const float* lanes) {
    float half[kBlock / 2];
    for (int i = 0; i < kBlock / 2; ++i) half[i] = lanes[i] + lanes[i + kBlock / 2];
    for (int n = kBlock / 4; n > 0; n /= 2) {
        for (int i = 0; i < n; ++i) half[i] += half[i + n];
    }
    return half[0];
}

// kBlock elements of a row from column `c` on in float32, zeros behind the row's end; float32 is read where it lies.
template <class Isa, class T>
inline const float* block_of(const T* row, int64_t c, int64_t columns, float* wide) {
    if (c + kBlock <= columns) {
        if constexpr (std::is_same_v<T, float>) return row + c;
        Isa::to_floats(row + c, wide);
    } else {
        T tail[kBlock] = {};
        std::memcpy(tail, row + c, (columns - c) * sizeof(T));
        Isa::to_floats(tail, wide);
    }
    return wide;
}

inline void normalise(const float* __restrict output, const float* __restrict bias, const float* __restrict weight,
                      float* __restrict value) {
    for (int i = 0; i < kBlock; ++i) value[i] = (output[i] - bias[i]) / weight[i];
}

// Adds a block of grad * weight to the lanes of its row's mean, and its product with the normalised values to
// those of the other mean.
inline void add_to_row(const float* __restrict grad, const float* __restrict weight, const float* __restrict value,
                       float* __restrict mean, float* __restrict product) {
    for (int i = 0; i < kBlock; ++i) {
        const float weighted = grad[i] * weight[i];
        mean[i] += weighted;
        product[i] += weighted * value[i];
    }
}

inline void add_to_columns(const float* __restrict grad, const float* __restrict value,
                           float* __restrict of_weight, float* __restrict of_bias) {
    for (int i = 0; i < kBlock; ++i) {
        of_weight[i] += grad[i] * value[i];
        of_bias[i] += grad[i];
    }
}

inline void input_gradient(const float* __restrict grad, const float* __restrict weight,
                           const float* __restrict value, float rstd, float mean, float product,
                           float* __restrict result) {
    for (int i = 0; i < kBlock; ++i) result[i] = rstd * (grad[i] * weight[i] - mean - value[i] * product);
}

template <class Isa, class T>
inline void row_backward(const NormJob& job, int64_t row, const NormScratch& scratch) {
    const T* grad = static_cast<const T*>(job.grad) + row * job.columns;
    const T* output = static_cast<const T*>(job.output) + row * job.columns;
    const T* kept = static_cast<const T*>(job.kept) + row * job.kept_columns;
    T* grad_input = static_cast<T*>(job.grad_input) + row * job.columns;
    const float rstd = job.rstd[row];
    float wide[kBlock], wide_grad[kBlock];
    int64_t k = 0;
    float mean_lanes[kBlock] = {}, product_lanes[kBlock] = {};
    for (int64_t c = 0; c < job.columns; c += kBlock) {
        const float* y = block_of<Isa>(output, c, job.columns, wide);
        float* value = scratch.normalised + c;
        normalise(y, job.bias + c, job.weight + c, value);
        for (; k < job.kept_columns && job.kept_at[k] < c + kBlock; ++k) {
            scratch.normalised[job.kept_at[k]] = widen(kept[k]) * rstd;
        }
        const float* g = block_of<Isa>(grad, c, job.columns, wide_grad);
        add_to_row(g, job.weight + c, value, mean_lanes, product_lanes);
        add_to_columns(g, value, scratch.grad_weight + c, scratch.grad_bias + c);
    }
    const float columns = static_cast<float>(job.columns);
    const float mean = sum_of(mean_lanes) / columns, product = sum_of(product_lanes) / columns;
    for (int64_t c = 0; c < job.columns; c += kBlock) {
        const float* g = block_of<Isa>(grad, c, job.columns, wide_grad);
        const float* value = scratch.normalised + c;
        input_gradient(g, job.weight + c, value, rstd, mean, product, wide);
        if (c + kBlock <= job.columns) {
            Isa::from_floats(wide, grad_input + c);
        } else {
            T tail[kBlock];
            Isa::from_floats(wide, tail);
            std::memcpy(grad_input + c, tail, (job.columns - c) * sizeof(T));
        }
    }
}

template <class Isa, class T>
void layer_norm_backward(const NormJob& job, int64_t begin, int64_t end, const NormScratch& scratch) {
    const size_t bytes = whole_columns(job.columns) * sizeof(float);
    std::memset(scratch.grad_weight, 0, bytes);
    std::memset(scratch.grad_bias, 0, bytes);
    for (int64_t row = begin; row < end; ++row) row_backward<Isa, T>(job, row, scratch);
}

}  // namespace
}  // namespace pmexp
