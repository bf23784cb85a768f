// AVX-512: eight counters in one vector of eight 64-bit lanes, and masks in mask registers.

#include <cstdint>
#include <cstring>

#include "core.h"

#ifdef PMEXP_X86_VECTORS
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,f16c")
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12's own intrinsics: `__m512i __Y = __Y;`
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>

#include "kernels.h"

namespace pmexp {
namespace {

struct Avx512 {
    struct Lanes {
        using Vector = __m512i;
        static Vector broadcast(uint32_t word) { return _mm512_set1_epi64(word); }
        static Vector multiply(Vector a, Vector b) { return _mm512_mul_epu32(a, b); }
        static Vector high_half(Vector a) { return _mm512_srli_epi64(a, 32); }
        static Vector exclusive_or(Vector a, Vector b) { return _mm512_xor_si512(a, b); }
    };

    static uint32_t draw(const Philox<Lanes>& philox, uint64_t block, uint32_t last) {
        const __m512i lanes = _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7);
        const __m512i base = _mm512_set1_epi64(static_cast<long long>(8 * block));
        const __m512i counters[1] = {_mm512_add_epi64(base, lanes)};
        const auto drawn = philox(counters);
        // Words lie in the low halves of their lanes: one permutation gathers those of 16 elements.
        const __m512i low_halves = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        const __m512i limit = _mm512_set1_epi32(static_cast<int>(last));
        uint32_t keep = 0;
        for (int w = 0; w < 4; w += 2) {
            const __m512i words = _mm512_permutex2var_epi32(drawn.word[w][0], low_halves, drawn.word[w + 1][0]);
            keep |= static_cast<uint32_t>(_mm512_cmple_epu32_mask(words, limit)) << (8 * w);
        }
        return keep;
    }

    template <class T>
    static void scale(const T* x, T* y, uint32_t keep, double scale) {
        const __m512 factor = _mm512_set1_ps(static_cast<float>(scale));
        for (int i = 0; i < kBlock; i += 16) {
            const __m512 kept = _mm512_maskz_mov_ps(static_cast<__mmask16>(keep >> i), factor);
            store(y + i, _mm512_mul_ps(load(x + i), kept));
        }
    }

    static void scale(const double* x, double* y, uint32_t keep, double scale) {
        const __m512d factor = _mm512_set1_pd(scale);
        for (int i = 0; i < kBlock; i += 8) {
            const __m512d kept = _mm512_maskz_mov_pd(static_cast<__mmask8>(keep >> i), factor);
            _mm512_storeu_pd(y + i, _mm512_mul_pd(_mm512_loadu_pd(x + i), kept));
        }
    }

    template <class T>
    static void to_floats(const T* x, float* wide) {
        for (int i = 0; i < kBlock; i += 16) _mm512_storeu_ps(wide + i, load(x + i));
    }

    template <class T>
    static void from_floats(const float* wide, T* y) {
        for (int i = 0; i < kBlock; i += 16) store(y + i, _mm512_loadu_ps(wide + i));
    }

    static uint32_t below(const float* x, float limit) {
        const __m512 most = _mm512_set1_ps(limit);
        const uint32_t low = _mm512_cmp_ps_mask(load(x), most, _CMP_LT_OQ);
        return low | static_cast<uint32_t>(_mm512_cmp_ps_mask(load(x + 16), most, _CMP_LT_OQ)) << 16;
    }

    static void look_up(const float* lines, const int32_t* cell, float* line) {
        for (int i = 0; i < kBlock; i += 8) {
            _mm512_storeu_si512(line + 2 * i, _mm512_i32gather_epi64(load_words(cell + i), lines, 8));
        }
    }

    static uint32_t pack(const uint8_t* mask) {
        const __m256i bytes = load_words(mask);
        return _mm256_test_epi8_mask(bytes, bytes);
    }

    static void unpack(uint32_t keep, uint8_t* mask) { store_words(mask, _mm256_maskz_set1_epi8(keep, 1)); }

private:
    static __m256i load_words(const void* source) {
        return _mm256_loadu_si256(static_cast<const __m256i*>(source));
    }
    static void store_words(void* target, __m256i words) {
        _mm256_storeu_si256(static_cast<__m256i*>(target), words);
    }

    static __m512 load(const float* x) { return _mm512_loadu_ps(x); }
    static __m512 load(const Float16* x) { return _mm512_cvtph_ps(load_words(x)); }
    static __m512 load(const BFloat16* x) {
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load_words(x)), 16));
    }

    static void store(float* y, __m512 value) { _mm512_storeu_ps(y, value); }
    static void store(Float16* y, __m512 value) {
        store_words(y, _mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    }
    static void store(BFloat16* y, __m512 value) {
        const __m512i bits = _mm512_castps_si512(value);
        const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
        const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
        store_words(y, _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16)));
    }
};

bool usable() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("f16c");
}

}  // namespace

const Backend avx512_backend = make_backend<Avx512>("avx512", usable);

}  // namespace pmexp
#endif
