// AVX2 and F16C: eight counters in two vectors of four 64-bit lanes.

#include <cstdint>
#include <cstring>

#include "core.h"

#ifdef PMEXP_X86_VECTORS
#pragma GCC target("avx2,f16c")
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12's own intrinsics: `__m256d __Y = __Y;`
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>

#include "kernels.h"

namespace pmexp {
namespace {

struct Avx2 {
    struct Lanes {
        using Vector = __m256i;
        static Vector broadcast(uint32_t word) { return _mm256_set1_epi64x(word); }
        static Vector multiply(Vector a, Vector b) { return _mm256_mul_epu32(a, b); }
        static Vector high_half(Vector a) { return _mm256_srli_epi64(a, 32); }
        static Vector exclusive_or(Vector a, Vector b) { return _mm256_xor_si256(a, b); }
    };

    static uint32_t draw(const Philox<Lanes>& philox, uint64_t block, uint32_t last) {
        const __m256i base = _mm256_set1_epi64x(static_cast<long long>(8 * block));
        const __m256i even_odd[2] = {_mm256_add_epi64(base, _mm256_setr_epi64x(0, 2, 4, 6)),
                                     _mm256_add_epi64(base, _mm256_setr_epi64x(1, 3, 5, 7))};
        const auto drawn = philox(even_odd);
        const __m256i limit = _mm256_set1_epi32(static_cast<int>(last));
        uint32_t keep = 0;
        for (int w = 0; w < 4; ++w) {
            const __m256i odd = _mm256_slli_epi64(drawn.word[w][1], 32);
            const __m256i words = _mm256_blend_epi32(drawn.word[w][0], odd, 0b10101010);
            // AVX2 has no unsigned comparison: a <= b is min(a, b) == a.
            const __m256i kept = _mm256_cmpeq_epi32(_mm256_min_epu32(words, limit), words);
            keep |= static_cast<uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(kept))) << (8 * w);
        }
        return keep;
    }

    template <class T>
    static void scale(const T* x, T* y, uint32_t keep, double scale) {
        const __m256i mask = _mm256_set1_epi32(static_cast<int>(keep));
        const __m256 factor = _mm256_set1_ps(static_cast<float>(scale));
        __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
        for (int i = 0; i < kBlock; i += 8) {
            store(y + i, _mm256_mul_ps(load(x + i), choose(factor, mask, bit)));
            bit = _mm256_slli_epi32(bit, 8);
        }
    }

    // Each 32-bit lane holds an even element in its low half and the next one in its high half.
    static void scale(const BFloat16* x, BFloat16* y, uint32_t keep, double scale) {
        const __m256i mask = _mm256_set1_epi32(static_cast<int>(keep));
        const __m256 factor = _mm256_set1_ps(static_cast<float>(scale));
        const __m256i high_half = _mm256_set1_epi32(static_cast<int>(0xFFFF0000));
        __m256i bit = _mm256_setr_epi32(1, 4, 16, 64, 256, 1024, 4096, 16384);
        for (int i = 0; i < kBlock; i += 16) {
            const __m256i pairs = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + i));
            const __m256 even = _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
            const __m256 odd = _mm256_castsi256_ps(_mm256_and_si256(pairs, high_half));
            const __m256i odd_bit = _mm256_add_epi32(bit, bit);
            const __m256i low = round_to_high_half(_mm256_mul_ps(even, choose(factor, mask, bit)));
            const __m256i high = round_to_high_half(_mm256_mul_ps(odd, choose(factor, mask, odd_bit)));
            const __m256i result = _mm256_blend_epi16(_mm256_srli_epi32(low, 16), high, 0b10101010);
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(y + i), result);
            bit = _mm256_slli_epi32(bit, 16);
        }
    }

    static void scale(const double* x, double* y, uint32_t keep, double scale) {
        const __m256i mask = _mm256_set1_epi64x(keep);
        const __m256d factor = _mm256_set1_pd(scale);
        __m256i bit = _mm256_setr_epi64x(1, 2, 4, 8);
        for (int i = 0; i < kBlock; i += 4) {
            const __m256i chosen = _mm256_cmpeq_epi64(_mm256_and_si256(mask, bit), bit);
            const __m256d kept = _mm256_and_pd(factor, _mm256_castsi256_pd(chosen));
            _mm256_storeu_pd(y + i, _mm256_mul_pd(_mm256_loadu_pd(x + i), kept));
            bit = _mm256_slli_epi64(bit, 4);
        }
    }

    template <class T>
    static void to_floats(const T* x, float* wide) {
        for (int i = 0; i < kBlock; i += 8) _mm256_storeu_ps(wide + i, load(x + i));
    }

    template <class T>
    static void from_floats(const float* wide, T* y) {
        for (int i = 0; i < kBlock; i += 8) store(y + i, _mm256_loadu_ps(wide + i));
    }

    static void from_floats(const float* wide, BFloat16* y) {
        for (int i = 0; i < kBlock; ++i) narrow(wide[i], y + i);
    }

    static uint32_t below(const float* x, float limit) {
        const __m256 most = _mm256_set1_ps(limit);
        uint32_t bits = 0;
        for (int i = 0; i < kBlock; i += 8) {
            bits |= static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(load(x + i), most, _CMP_LT_OQ))) << i;
        }
        return bits;
    }

    static void look_up(const float* lines, const int32_t* cell, float* line) {
        for (int i = 0; i < kBlock; i += 4) {
            const __m128i places = _mm_loadu_si128(reinterpret_cast<const __m128i*>(cell + i));
            const __m256d pairs = _mm256_i32gather_pd(reinterpret_cast<const double*>(lines), places, 8);
            _mm256_storeu_pd(reinterpret_cast<double*>(line + 2 * i), pairs);
        }
    }

    static uint32_t pack(const uint8_t* mask) {
        const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(mask));
        return ~static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(bytes, _mm256_setzero_si256())));
    }

    static void unpack(uint32_t keep, uint8_t* mask) {
        const __m256i byte_of =
            _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
        const __m256i bit = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201));
        const __m256i bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(static_cast<int>(keep)), byte_of);
        const __m256i chosen = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(mask), _mm256_and_si256(chosen, _mm256_set1_epi8(1)));
    }

private:
    // factor where the mask has the bit of a lane, else 0.
    static __m256 choose(__m256 factor, __m256i mask, __m256i bit) {
        const __m256i chosen = _mm256_cmpeq_epi32(_mm256_and_si256(mask, bit), bit);
        return _mm256_and_ps(factor, _mm256_castsi256_ps(chosen));
    }

    static __m256 load(const float* x) { return _mm256_loadu_ps(x); }
    static __m256 load(const Float16* x) {
        return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x)));
    }
    static __m256 load(const BFloat16* x) {
        const __m128i words = _mm_loadu_si128(reinterpret_cast<const __m128i*>(x));
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(words), 16));
    }
    static void store(float* y, __m256 value) { _mm256_storeu_ps(y, value); }
    static void store(Float16* y, __m256 value) {
        const __m128i halves = _mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(y), halves);
    }

    // Rounded to the nearest even BFloat16, which is the high half of each lane. The low half of a NaN is
    // empty here, since each comes from a BFloat16 or is the processor's own, so rounding leaves it a NaN.
    static __m256i round_to_high_half(__m256 value) {
        const __m256i bits = _mm256_castps_si256(value);
        const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
        return _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
    }
};

bool usable() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c"); }

}  // namespace

const Backend avx2_backend = make_backend<Avx2>("avx2", usable);

}  // namespace pmexp
#endif
