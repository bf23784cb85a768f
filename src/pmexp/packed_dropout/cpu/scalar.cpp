// Portable C++: what every processor runs, and the plainest reading of the kernels' contract.

#include "kernels.h"

namespace pmexp {
namespace {

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

    template <class T>
    static void to_floats(const T* x, float* wide) {
        for (int i = 0; i < kBlock; ++i) wide[i] = widen(x[i]);
    }

    template <class T>
    static void from_floats(const float* wide, T* y) {
        for (int i = 0; i < kBlock; ++i) narrow(wide[i], y + i);
    }

    static uint32_t below(const float* x, float limit) {
        uint32_t bits = 0;
        for (int i = 0; i < kBlock; ++i) bits |= static_cast<uint32_t>(x[i] < limit) << i;
        return bits;
    }

    static void look_up(const float* lines, const int32_t* cell, float* line) {
        for (int i = 0; i < kBlock; ++i) std::memcpy(line + 2 * i, lines + 2 * cell[i], 2 * sizeof(float));
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
