// The C interface: picks the kernel and spreads it over threads.

#include "core.h"

#include <algorithm>

#include "pool.h"

namespace pmexp {
namespace {

const Backend* const kBackends[] = {  // best first
#if defined(PMEXP_X86_VECTORS)
    &avx512_backend,
    &avx2_backend,
#elif defined(__aarch64__)
    &neon_backend,
#endif
    &scalar_backend,
};

const Backend* usable_backend(int index) {
    for (const Backend* backend : kBackends) {
        if (backend->usable() && index-- == 0) return backend;
    }
    return nullptr;
}

// Elements in the smallest chunk of work. To hand one to a thread takes 1 us where that one spins and 10 us where it
// sleeps, but milliseconds where another process keeps its core busy. Then a small mask had better been made alone: to
// draw takes 0.3 to 1 ns an element, to scale a quarter of it. torch hands on no fewer elements either.
constexpr int64_t kChunk = 32768;
constexpr int64_t kGeluChunk = 16384;  // whose elements take longer
static_assert(kChunk % kBlock == 0 && kGeluChunk % kBlock == 0);

// More chunks than threads, so that a thread which starts late or is interrupted does not hold up the rest.
constexpr int64_t kChunksPerThread = 8;

void run(Kernel kernel, const Job& job, int threads, int64_t smallest_chunk = kChunk) {
    if (job.numel < 2 * smallest_chunk) return kernel(job, 0, job.numel);
    const int64_t even_share = job.numel / (std::max(threads, 1) * kChunksPerThread);
    const int64_t chunk = std::max(even_share / smallest_chunk, int64_t{1}) * smallest_chunk;
    parallel_for((job.numel + chunk - 1) / chunk, threads, [&](int64_t i) {
        kernel(job, i * chunk, std::min((i + 1) * chunk, job.numel));
    });
}

}  // namespace
}  // namespace pmexp

using pmexp::Job;
using pmexp::run;
using pmexp::usable_backend;

const char* pmexp_backend_name(int index) {
    const pmexp::Backend* backend = usable_backend(index);
    return backend == nullptr ? nullptr : backend->name;
}

void pmexp_use_openmp(void* gomp_parallel) { pmexp::use_openmp(gomp_parallel); }

void pmexp_dropout(int backend, int dtype, const void* x, void* y, uint8_t* packed, int64_t numel,
                   const int64_t* seed, uint64_t threshold, double scale, int width, int threads) {
    const Job job = {x, y, packed, numel, width, scale, static_cast<uint64_t>(*seed), threshold};
    run(usable_backend(backend)->dropout[dtype], job, threads);
}

void pmexp_bias_dropout_add(int backend, int dtype, const void* x, const void* bias, int64_t columns,
                            const void* residual, void* y, uint8_t* packed, int64_t numel,
                            const int64_t* seed, uint64_t threshold, double scale, int width, int threads) {
    const Job job = {x,         y,    packed,  numel,   width, scale, static_cast<uint64_t>(*seed),
                     threshold, bias, columns, residual};
    run(usable_backend(backend)->bias_dropout_add[dtype], job, threads);
}

void pmexp_scale_by_mask(int backend, int dtype, const void* x, void* y, uint8_t* packed, int64_t numel,
                         double scale, int width, int threads) {
    run(usable_backend(backend)->apply[dtype], {x, y, packed, numel, width, scale, 0, 0}, threads);
}

void pmexp_gelu_backward(int backend, int dtype, const void* x, const void* output, uint8_t* falling, void* y,
                         int64_t numel, const pmexp::LineTable* curve, int threads) {
    Job job = {x, y, falling, numel, 1, 0, 0, 0};
    job.output = output;
    job.curve = *curve;
    run(usable_backend(backend)->gelu_backward[dtype], job, threads, pmexp::kGeluChunk);
}

void pmexp_below(int backend, int dtype, const void* x, uint8_t* packed, int64_t numel, double limit, int threads) {
    run(usable_backend(backend)->below[dtype], {x, nullptr, packed, numel, 1, limit, 0, 0}, threads);
}

void pmexp_layer_norm_backward(int backend, int dtype, const pmexp::NormJob* job, float* scratch, int threads) {
    const pmexp::NormKernel kernel = usable_backend(backend)->layer_norm_backward[dtype];
    const int64_t width = pmexp::whole_columns(job->columns);
    const int64_t rows = std::max((job->rows + threads - 1) / threads, int64_t{1});
    const int64_t chunks = std::max((job->rows + rows - 1) / rows, int64_t{1});  // one clears the sums of no rows
    pmexp::parallel_for(chunks, threads, [&](int64_t i) {
        float* own = scratch + i * pmexp::kNormBuffers * width;
        const pmexp::NormScratch buffers = {own, own + width, own + 2 * width};
        kernel(*job, i * rows, std::min((i + 1) * rows, job->rows), buffers);
    });
    for (int64_t i = 1; i < chunks; ++i) {
        const float* own = scratch + i * pmexp::kNormBuffers * width;
        for (int64_t j = 0; j < 2 * width; ++j) scratch[j] += own[j];
    }
}

void pmexp_pack(int backend, const void* mask, uint8_t* packed, int64_t numel, int width, int threads) {
    run(usable_backend(backend)->pack, {mask, nullptr, packed, numel, width, 0, 0, 0}, threads);
}

void pmexp_unpack(int backend, uint8_t* packed, void* mask, int64_t numel, int width, int threads) {
    run(usable_backend(backend)->unpack, {nullptr, mask, packed, numel, width, 0, 0, 0}, threads);
}
