// The C interface of the CPU core, and the types its parts share.
//
// The core keeps no state but its thread pool. Python owns all memory: every pointer is a buffer of the
// size given here, and nothing is read before or behind it. ../reference.py defines the bits.

#pragma once

#include <cstdint>

namespace pmexp {

// Elements that one call of the generator covers: eight counters of four words, and whole mask bytes at
// every width. Work is only ever split at multiples of it.
constexpr int64_t kBlock = 32;

// A function in cells of equal width, linear in each: ../../systems/tempo/gelu_derivative.py says what of.
struct LineTable {
    float minimum;
    float q0;
    float first;
    float cells_a_unit;
    float smallest_square;
    float largest_square;
    int32_t cells;
    const float* lines;  // intercept and slope of each cell
};

// LayerNorm's backward from its output, rows of `columns` elements; `parameters` is in whole blocks, each column
// behind `columns` with the weight 1 and the bias 0.
struct NormJob {
    const void* grad;        // (rows, columns)
    const void* output;      // (rows, columns)
    const float* rstd;       // (rows,)
    void* grad_input;        // (rows, columns)
    const float* weight;     // (whole_columns(columns),)
    const float* bias;       // (whole_columns(columns),)
    int64_t rows;
    int64_t columns;
    const int64_t* kept_at;  // (kept_columns,), rising: where the output says too little
    const void* kept;        // (rows, kept_columns): the centred input of these columns
    int64_t kept_columns;
};

constexpr int64_t whole_columns(int64_t columns) { return (columns + kBlock - 1) / kBlock * kBlock; }

// What a stretch of rows writes: the sums over its rows, and room for one row. Each is (whole_columns(columns),).
struct NormScratch {
    float* grad_weight;
    float* grad_bias;
    float* normalised;  // values of the row at hand
};

constexpr int kNormBuffers = 3;

// One operation on whole buffers; each operation uses the members it needs.
struct Job {
    const void* x;       // elements read; for pack: one byte a mask value
    void* y;             // elements written; for unpack: one byte a mask value, 0 or 1
    uint8_t* packed;     // ceil(numel * width / 8) bytes of mask; null where the mask is not kept
    int64_t numel;
    int width;           // bits a mask value: 1, 2 or 4; to apply a mask also 8, a Boolean byte
    double scale;        // 1 / (1 - p), or another factor of kept elements; float kernels round it to float
    uint64_t seed;
    uint64_t threshold;  // an element is kept iff its random word is below; 0 to 2^32
    const void* bias = nullptr;      // `columns` elements, one for each column of the rows of x; null for none
    int64_t columns = 0;
    const void* residual = nullptr;  // numel elements
    const void* output = nullptr;    // numel elements
    LineTable curve = {};
};

// Does elements [begin, end) of a job: begin is a multiple of kBlock, end is one too or is job.numel.
using Kernel = void (*)(Job job, int64_t begin, int64_t end);

// Does rows [begin, end) of a job.
using NormKernel = void (*)(const NormJob& job, int64_t begin, int64_t end, const NormScratch& scratch);

enum DType { kFloat32, kFloat64, kBFloat16, kFloat16, kDTypes };

// The kernels of one instruction set.
struct Backend {
    const char* name;
    bool (*usable)();  // whether this processor runs them
    Kernel dropout[kDTypes];
    Kernel bias_dropout_add[kDTypes];
    Kernel apply[kDTypes];
    Kernel gelu_backward[kDTypes];  // this and the next two: null for float64
    Kernel below[kDTypes];
    NormKernel layer_norm_backward[kDTypes];
    Kernel pack;
    Kernel unpack;
};

extern const Backend scalar_backend;
#if defined(__x86_64__) && !defined(__clang__)  // clang has no `#pragma GCC target`
#define PMEXP_X86_VECTORS
extern const Backend avx2_backend;
extern const Backend avx512_backend;
#elif defined(__aarch64__)
extern const Backend neon_backend;
#endif

}  // namespace pmexp

#define PMEXP_EXPORT extern "C" __attribute__((visibility("default")))

// Name of the index-th backend this processor runs, best first; null past the last.
PMEXP_EXPORT const char* pmexp_backend_name(int index);

// Runs all further work on the team of an OpenMP runtime, given its GOMP_parallel; null for own threads.
PMEXP_EXPORT void pmexp_use_openmp(void* gomp_parallel);

// y = x * keep / (1 - p) with the mask of `seed`, whose bits go to `packed` unless that is null.
PMEXP_EXPORT void pmexp_dropout(int backend, int dtype, const void* x, void* y, uint8_t* packed,
                                int64_t numel, const int64_t* seed, uint64_t threshold, double scale,
                                int width, int threads);

// y = residual + (x + bias) * keep / (1 - p), rounded after each step; bias is null or has `columns` elements.
PMEXP_EXPORT void pmexp_bias_dropout_add(int backend, int dtype, const void* x, const void* bias,
                                         int64_t columns, const void* residual, void* y, uint8_t* packed,
                                         int64_t numel, const int64_t* seed, uint64_t threshold, double scale,
                                         int width, int threads);

// y = x * keep * scale with the mask in `packed`.
PMEXP_EXPORT void pmexp_scale_by_mask(int backend, int dtype, const void* x, void* y, uint8_t* packed,
                                      int64_t numel, double scale, int width, int threads);

// y = x * GELU'(input), where `output` is GELU's and `falling` has a bit for each input below that of its minimum.
PMEXP_EXPORT void pmexp_gelu_backward(int backend, int dtype, const void* x, const void* output, uint8_t* falling,
                                      void* y, int64_t numel, const pmexp::LineTable* curve, int threads);

// A bit for each element of x that is below `limit`.
PMEXP_EXPORT void pmexp_below(int backend, int dtype, const void* x, uint8_t* packed, int64_t numel, double limit,
                              int threads);

// Rows are split as torch splits them, one stretch a thread. `scratch` has kNormBuffers * whole_columns(columns)
// floats a thread; its first two buffers are then the gradients of weight and bias.
PMEXP_EXPORT void pmexp_layer_norm_backward(int backend, int dtype, const pmexp::NormJob* job, float* scratch,
                                            int threads);

// Boolean bytes to packed bits, and back.
PMEXP_EXPORT void pmexp_pack(int backend, const void* mask, uint8_t* packed, int64_t numel, int width,
                             int threads);
PMEXP_EXPORT void pmexp_unpack(int backend, uint8_t* packed, void* mask, int64_t numel, int width,
                               int threads);
