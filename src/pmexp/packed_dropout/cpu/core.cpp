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

// A chunk is large enough to pay for waking a thread, and small enough that threads end together.
constexpr int64_t kSmallestChunk = 16384;
constexpr int64_t kChunksPerThread = 8;
static_assert(kSmallestChunk % kBlock == 0);

void run(Kernel kernel, const Job& job, int threads) {
    const int64_t even_share = job.numel / (std::max(threads, 1) * kChunksPerThread);
    const int64_t chunk = std::max(even_share / kSmallestChunk, int64_t{1}) * kSmallestChunk;
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

void pmexp_dropout(int backend, int dtype, const void* x, void* y, uint8_t* packed, int64_t numel,
                   const int64_t* seed, uint64_t threshold, double scale, int width, int threads) {
    const Job job = {x, y, packed, numel, width, scale, static_cast<uint64_t>(*seed), threshold};
    run(usable_backend(backend)->dropout[dtype], job, threads);
}

void pmexp_apply_mask(int backend, int dtype, const void* x, void* y, uint8_t* packed, int64_t numel,
                      double scale, int width, int threads) {
    run(usable_backend(backend)->apply[dtype], {x, y, packed, numel, width, scale, 0, 0}, threads);
}

void pmexp_pack(int backend, const void* mask, uint8_t* packed, int64_t numel, int width, int threads) {
    run(usable_backend(backend)->pack, {mask, nullptr, packed, numel, width, 0, 0, 0}, threads);
}

void pmexp_unpack(int backend, uint8_t* packed, void* mask, int64_t numel, int width, int threads) {
    run(usable_backend(backend)->unpack, {nullptr, mask, packed, numel, width, 0, 0, 0}, threads);
}
