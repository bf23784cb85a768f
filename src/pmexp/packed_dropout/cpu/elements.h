// Element types, and how each widens to what is computed with and is rounded back, to the nearest even.

#pragma once

#include <cstdint>
#include <cstring>

namespace pmexp {
namespace {

struct BFloat16 {
    uint16_t bits;
};

struct Float16 {
    uint16_t bits;
};

inline uint32_t as_bits(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline float as_float(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline float widen(float value) { return value; }
inline double widen(double value) { return value; }
inline float widen(BFloat16 value) { return as_float(static_cast<uint32_t>(value.bits) << 16); }

inline float widen(Float16 value) {
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

inline void narrow(float value, float* target) { *target = value; }
inline void narrow(double value, double* target) { *target = value; }

inline void narrow(float value, BFloat16* target) {
    const uint32_t bits = as_bits(value);
    // The low half of a NaN is empty here: it comes from a BFloat16 or is the processor's own.
    target->bits = static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

inline void narrow(float value, Float16* target) {
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

}  // namespace
}  // namespace pmexp
