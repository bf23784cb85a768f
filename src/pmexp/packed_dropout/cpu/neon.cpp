// NEON: eight counters in four vectors of two 64-bit lanes.

#include "core.h"

#ifdef __aarch64__
#include <arm_neon.h>

#include "kernels.h"

namespace pmexp {
namespace {

struct Neon {
    struct Lanes {
        using Vector = uint64x2_t;
        static Vector broadcast(uint32_t word) { return vdupq_n_u64(word); }
        static Vector multiply(Vector a, Vector b) { return vmull_u32(vmovn_u64(a), vmovn_u64(b)); }
        static Vector high_half(Vector a) { return vshrq_n_u64(a, 32); }
        static Vector exclusive_or(Vector a, Vector b) { return veorq_u64(a, b); }
    };

    static uint32_t draw(const Philox<Lanes>& philox, uint64_t block, uint32_t last) {
        const uint32_t bits[4] = {1, 2, 4, 8};
        const uint32x4_t limit = vdupq_n_u32(last);
        uint32_t keep = 0;
        uint64x2_t counters[4];  // 0 and 2, 1 and 3, 4 and 6, 5 and 7
        for (int v = 0; v < 4; ++v) {
            const uint64_t first = 8 * block + v + (v & 2);
            counters[v] = vcombine_u64(vcreate_u64(first), vcreate_u64(first + 2));
        }
        const auto drawn = philox(counters);
        for (int w = 0; w < 4; ++w) {
            for (int v = 0; v < 4; v += 2) {
                const uint64x2_t pairs = vsliq_n_u64(drawn.word[w][v], drawn.word[w][v + 1], 32);
                const uint32x4_t kept = vcleq_u32(vreinterpretq_u32_u64(pairs), limit);
                keep |= vaddvq_u32(vandq_u32(kept, vld1q_u32(bits))) << (8 * w + 2 * v);
            }
        }
        return keep;
    }

    template <class T>
    static void scale(const T* x, T* y, uint32_t keep, double scale) {
        const uint32_t bits[4] = {1, 2, 4, 8};
        const uint32x4_t mask = vdupq_n_u32(keep);
        const uint32x4_t factor = vreinterpretq_u32_f32(vdupq_n_f32(static_cast<float>(scale)));
        uint32x4_t bit = vld1q_u32(bits);
        for (int i = 0; i < kBlock; i += 4) {
            const float32x4_t kept = vreinterpretq_f32_u32(vandq_u32(factor, vtstq_u32(mask, bit)));
            store(y + i, vmulq_f32(load(x + i), kept));
            bit = vshlq_n_u32(bit, 4);
        }
    }

    static void scale(const double* x, double* y, uint32_t keep, double scale) {
        const uint64_t bits[2] = {1, 2};
        const uint64x2_t mask = vdupq_n_u64(keep);
        const uint64x2_t factor = vreinterpretq_u64_f64(vdupq_n_f64(scale));
        uint64x2_t bit = vld1q_u64(bits);
        for (int i = 0; i < kBlock; i += 2) {
            const float64x2_t kept = vreinterpretq_f64_u64(vandq_u64(factor, vtstq_u64(mask, bit)));
            vst1q_f64(y + i, vmulq_f64(vld1q_f64(x + i), kept));
            bit = vshlq_n_u64(bit, 2);
        }
    }

    template <class T>
    static void to_floats(const T* x, float* wide) {
        for (int i = 0; i < kBlock; i += 4) vst1q_f32(wide + i, load(x + i));
    }

    template <class T>
    static void from_floats(const float* wide, T* y) {
        for (int i = 0; i < kBlock; i += 4) store(y + i, vld1q_f32(wide + i));
    }

    static uint32_t below(const float* x, float limit) {
        const uint32_t powers[4] = {1, 2, 4, 8};
        const uint32x4_t bit = vld1q_u32(powers);
        const float32x4_t most = vdupq_n_f32(limit);
        uint32_t bits = 0;
        for (int i = 0; i < kBlock; i += 4) bits |= vaddvq_u32(vandq_u32(vcltq_f32(load(x + i), most), bit)) << i;
        return bits;
    }

    static void look_up(const float* lines, const int32_t* cell, float* line) {
        for (int i = 0; i < kBlock; ++i) vst1_f32(line + 2 * i, vld1_f32(lines + 2 * cell[i]));
    }

    static uint32_t pack(const uint8_t* mask) {
        uint32_t keep = 0;
        for (int i = 0; i < kBlock; i += 8) {
            const uint8x8_t bytes = vld1_u8(mask + i);
            keep |= static_cast<uint32_t>(vaddv_u8(vand_u8(vtst_u8(bytes, bytes), byte_bits()))) << i;
        }
        return keep;
    }

    static void unpack(uint32_t keep, uint8_t* mask) {
        for (int i = 0; i < kBlock; i += 8) {
            const uint8x8_t chosen = vtst_u8(vdup_n_u8(static_cast<uint8_t>(keep >> i)), byte_bits());
            vst1_u8(mask + i, vand_u8(chosen, vdup_n_u8(1)));
        }
    }

private:
    static uint8x8_t byte_bits() { return vcreate_u8(0x8040201008040201); }

    static float32x4_t load(const float* x) { return vld1q_f32(x); }
    static float32x4_t load(const Float16* x) {
        return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&x->bits)));
    }
    static float32x4_t load(const BFloat16* x) {
        return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(&x->bits), 16));
    }

    static void store(float* y, float32x4_t value) { vst1q_f32(y, value); }
    static void store(Float16* y, float32x4_t value) {
        vst1_u16(&y->bits, vreinterpret_u16_f16(vcvt_f16_f32(value)));
    }
    static void store(BFloat16* y, float32x4_t value) {
        const uint32x4_t bits = vreinterpretq_u32_f32(value);
        const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
        const uint32x4_t bias = vaddq_u32(odd, vdupq_n_u32(0x7FFF));
        vst1_u16(&y->bits, vshrn_n_u32(vaddq_u32(bits, bias), 16));
    }
};

bool usable() { return true; }

}  // namespace

const Backend neon_backend = make_backend<Neon>("neon", usable);

}  // namespace pmexp
#endif
