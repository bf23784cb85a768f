// Portable C++: what every processor runs, and the plainest reading of the kernels' contract.

#include "kernels.h"

namespace pmexp {
namespace {

uint32_t as_bits(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

float as_float(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

float widen(float value) { return value; }
double widen(double value) { return value; }
float widen(BFloat16 value) { return as_float(static_cast<uint32_t>(value.bits) << 16); }

float widen(Float16 value) {
    const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000) << 16;
    const uint32_t magnitude = value.bits & 0x7FFF;
    if (magnitude >= 0x7C00) {  // infinity, or a NaN, which becomes quiet
        return as_float(sign | 0x7F800000 | (magnitude & 0x3FF) << 13 | (magnitude > 0x7C00) << 22);
    }
    if (magnitude < 0x400) {  // subnormal: a multiple of 2^-24
        const float value = static_cast<float>(magnitude) * 0x1p-24f;
        return sign ? -value : value;
    }
    return as_float(sign | ((magnitude << 13) + (112u << 23)));
}

void narrow(float value, float* target) { *target = value; }
void narrow(double value, double* target) { *target = value; }

void narrow(float value, BFloat16* target) {
    const uint32_t bits = as_bits(value);
    // The low half of a NaN is empty here: it comes from a BFloat16 or is the processor's own.
    target->bits = static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

void narrow(float value, Float16* target) {
    const uint32_t bits = as_bits(value);
    const uint32_t sign = bits >> 16 & 0x8000;
    const uint32_t magnitude = bits & 0x7FFFFFFF;
    uint32_t half;
    if (magnitude > 0x7F800000) {
        half = 0x7E00 | (magnitude >> 13 & 0x3FF);
    } else if (magnitude >= 0x477FF000) {  // 65520 and above round to infinity
        half = 0x7C00;
    } else if (magnitude < 0x38800000) {  // below 2^-14: + 0.5 leaves a multiple of 2^-24, rounded to even
        half = as_bits(as_float(magnitude) + 0.5f) - as_bits(0.5f);
    } else {
        half = (magnitude - (112u << 23) + 0xFFF + (magnitude >> 13 & 1)) >> 13;
    }
    target->bits = static_cast<uint16_t>(sign | half);
}

struct Scalar {
    struct Lanes {
        using Vector = uint64_t;
        static Vector broadcast(uint32_t word) { return word; }
        static Vector multiply(Vector a, Vector b) { return (a & 0xFFFFFFFF) * (b & 0xFFFFFFFF); }
        static Vector high_half(Vector a) { return a >> 32; }
        static Vector exclusive_or(Vector a, Vector b) { return a ^ b; }
    };

    static uint32_t draw(const Philox<Lanes>& philox, uint64_t block, uint32_t last) {
        uint64_t counters[8];
        for (int lane = 0; lane < 8; ++lane) counters[lane] = 8 * block + lane;
        const auto drawn = philox(counters);
        uint32_t keep = 0;
        for (int w = 0; w < 4; ++w) {
            for (int lane = 0; lane < 8; ++lane) {
                const uint32_t word = static_cast<uint32_t>(drawn.word[w][lane]);
                keep |= static_cast<uint32_t>(word <= last) << (8 * w + lane);
            }
        }
        return keep;
    }

    template <class T>
    static void scale(const T* x, T* y, uint32_t keep, double scale) {
        using Wide = decltype(widen(T{}));
        const Wide factors[2] = {0, static_cast<Wide>(scale)};
        for (int i = 0; i < kBlock; ++i) narrow(widen(x[i]) * factors[keep >> i & 1], y + i);
    }

    static uint32_t pack(const uint8_t* mask) {
        uint32_t keep = 0;
        for (int i = 0; i < kBlock; ++i) keep |= static_cast<uint32_t>(mask[i] != 0) << i;
        return keep;
    }

    static void unpack(uint32_t keep, uint8_t* mask) {
        for (int i = 0; i < kBlock; ++i) mask[i] = keep >> i & 1;
    }
};

bool usable() { return true; }

}  // namespace

const Backend scalar_backend = make_backend<Scalar>("scalar", usable);

}  // namespace pmexp
