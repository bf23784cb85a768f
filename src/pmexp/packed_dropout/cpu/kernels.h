// The kernels, written once for every instruction set.
//
// An instruction set `Isa` brings, for a block of 32 elements whose mask is one bit each in a uint32_t:
//
//   Isa::Lanes                                    what Philox computes with, see philox.h
//   Isa::draw(philox, block, last)                -> the block's mask: the words that are at most `last`
//   Isa::scale(const T* x, T* y, keep, scale)     y[i] = x[i] * (keep bit i ? scale : 0), 32 elements
//   Isa::to_floats(const T* x, float* wide)       32 elements to float32
//   Isa::from_floats(const float* wide, T* y)     and back, rounded
//   Isa::below(const float* x, limit)             -> a bit for each of 32 elements that is below
//   Isa::look_up(lines, cell, line)               line = lines[cell], 32 pairs of floats
//   Isa::pack(const uint8_t* mask)                -> the block's mask from 32 bytes, 0 or not 0
//   Isa::unpack(keep, uint8_t* mask)              32 bytes, 0 or 1
//
// Only files that define an Isa in an unnamed namespace include this: each then has kernels of its own,
// compiled for its own instructions, and the linker can never merge two of them.

#pragma once

#include <cmath>
#include <cstring>

#include "core.h"
#include "elements.h"
#include "layer_norm.h"
#include "philox.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "mask words are stored as little-endian bytes");

namespace pmexp {
namespace {

// Bit i of x moves to bit 2i; `gather_even_bits` undoes it and ignores the odd bits.
inline uint64_t spread_bits(uint32_t bits) {
    uint64_t x = bits;
    x = (x | x << 16) & 0x0000FFFF0000FFFF;
    x = (x | x << 8) & 0x00FF00FF00FF00FF;
    x = (x | x << 4) & 0x0F0F0F0F0F0F0F0F;
    x = (x | x << 2) & 0x3333333333333333;
    return (x | x << 1) & 0x5555555555555555;
}

inline uint32_t gather_even_bits(uint64_t x) {
    x &= 0x5555555555555555;
    x = (x | x >> 1) & 0x3333333333333333;
    x = (x | x >> 2) & 0x0F0F0F0F0F0F0F0F;
    x = (x | x >> 4) & 0x00FF00FF00FF00FF;
    x = (x | x >> 8) & 0x0000FFFF0000FFFF;
    return static_cast<uint32_t>(x | x >> 16);
}

// Writes the mask of a whole block, 4 * width bytes.
inline void store_mask(uint8_t* packed, uint32_t keep, int width) {
    if (width == 1) {
        std::memcpy(packed, &keep, 4);
        return;
    }
    const uint64_t pairs = spread_bits(keep);
    if (width == 2) {
        std::memcpy(packed, &pairs, 8);
        return;
    }
    const uint64_t nibbles[2] = {spread_bits(static_cast<uint32_t>(pairs)),
                                 spread_bits(static_cast<uint32_t>(pairs >> 32))};
    std::memcpy(packed, nibbles, 16);
}

inline uint32_t load_mask(const uint8_t* packed, int width) {
    if (width == 1) {
        uint32_t keep;
        std::memcpy(&keep, packed, 4);
        return keep;
    }
    uint64_t pairs;
    if (width == 2) {
        std::memcpy(&pairs, packed, 8);
    } else {
        uint64_t nibbles[2];
        std::memcpy(nibbles, packed, 16);
        pairs = gather_even_bits(nibbles[0]) | static_cast<uint64_t>(gather_even_bits(nibbles[1])) << 32;
    }
    return gather_even_bits(pairs);
}

// The last `count` < 32 elements of a buffer go through these copies, so that kernels see whole blocks only.
template <class T>
struct Tail {
    T x[kBlock] = {};
    T y[kBlock] = {};
    uint8_t packed[kBlock] = {};
    int64_t count;
    size_t packed_bytes;

    Tail(int64_t count, int width) : count(count), packed_bytes((count * width + 7) / 8) {}
    void read_x(const T* source) { std::memcpy(x, source, count * sizeof(T)); }
    void write_y(T* target) const { std::memcpy(target, y, count * sizeof(T)); }
    void read_packed(const uint8_t* source) { std::memcpy(packed, source, packed_bytes); }
    void write_packed(uint8_t* target) const { std::memcpy(target, packed, packed_bytes); }
    uint32_t valid(uint32_t keep) const { return keep & ((1u << count) - 1); }
};

inline uint8_t* packed_at(const Job& job, int64_t element) { return job.packed + element * job.width / 8; }

// The masks of a job: word < threshold, written as word <= threshold - 1 since 2^32 is no 32-bit number.
template <class Isa>
class Generator {
public:
    explicit Generator(const Job& job)
        : philox_(job.seed),
          last_(static_cast<uint32_t>(job.threshold - 1)),
          any_(job.threshold == 0 ? 0 : ~0u) {}

    uint32_t operator()(uint64_t block) const { return any_ & Isa::draw(philox_, block, last_); }

private:
    Philox<typename Isa::Lanes> philox_;
    uint32_t last_;
    uint32_t any_;  // no bit where nothing is below the threshold
};

template <class Isa, class T>
void dropout(Job job, int64_t begin, int64_t end) {
    const Generator<Isa> draw(job);
    const T* x = static_cast<const T*>(job.x);
    T* y = static_cast<T*>(job.y);
    int64_t e = begin;
    for (; e + kBlock <= end; e += kBlock) {
        const uint32_t keep = draw(e / kBlock);
        if (job.packed != nullptr) store_mask(packed_at(job, e), keep, job.width);
        Isa::scale(x + e, y + e, keep, job.scale);
    }
    if (e == end) return;
    Tail<T> tail(end - e, job.width);
    const uint32_t keep = tail.valid(draw(e / kBlock));
    store_mask(tail.packed, keep, job.width);
    if (job.packed != nullptr) tail.write_packed(packed_at(job, e));
    tail.read_x(x + e);
    Isa::scale(tail.x, tail.y, keep, job.scale);
    tail.write_y(y + e);
}

// y = a + b, 32 elements. Any of the three may be one buffer.
template <class T>
inline void add(const T* a, const T* b, T* y) {
    for (int i = 0; i < kBlock; ++i) narrow(widen(a[i]) + widen(b[i]), y + i);
}

// The bias of elements [e, e + 32), gathered into `buffer` where they lie in more than one row.
template <class T>
inline const T* bias_at(const Job& job, int64_t e, T* buffer) {
    const T* bias = static_cast<const T*>(job.bias);
    int64_t column = e % job.columns;
    if (column + kBlock <= job.columns) return bias + column;
    for (int i = 0; i < kBlock; ++i) {
        buffer[i] = bias[column];
        if (++column == job.columns) column = 0;
    }
    return buffer;
}

template <class Isa, class T>
void bias_dropout_add(Job job, int64_t begin, int64_t end) {
    const Generator<Isa> draw(job);
    const T* x = static_cast<const T*>(job.x);
    const T* residual = static_cast<const T*>(job.residual);
    T* y = static_cast<T*>(job.y);
    T sum[kBlock], gathered[kBlock];
    const auto block = [&](const T* x, const T* residual, T* y, int64_t e, uint32_t keep) {
        if (job.bias != nullptr) {
            add(x, bias_at(job, e, gathered), sum);
            x = sum;
        }
        Isa::scale(x, y, keep, job.scale);
        add(y, residual, y);
    };
    int64_t e = begin;
    for (; e + kBlock <= end; e += kBlock) {
        const uint32_t keep = draw(e / kBlock);
        store_mask(packed_at(job, e), keep, job.width);
        block(x + e, residual + e, y + e, e, keep);
    }
    if (e == end) return;
    Tail<T> tail(end - e, job.width);
    const uint32_t keep = tail.valid(draw(e / kBlock));
    store_mask(tail.packed, keep, job.width);
    tail.write_packed(packed_at(job, e));
    tail.read_x(x + e);
    T tail_residual[kBlock] = {};
    std::memcpy(tail_residual, residual + e, tail.count * sizeof(T));
    block(tail.x, tail_residual, tail.y, e, keep);
    tail.write_y(y + e);
}

template <class Isa, class T>
void apply(Job job, int64_t begin, int64_t end) {
    const auto mask = [width = job.width](const uint8_t* packed) {
        return width == 8 ? Isa::pack(packed) : load_mask(packed, width);
    };
    const T* x = static_cast<const T*>(job.x);
    T* y = static_cast<T*>(job.y);
    int64_t e = begin;
    for (; e + kBlock <= end; e += kBlock) {
        Isa::scale(x + e, y + e, mask(packed_at(job, e)), job.scale);
    }
    if (e == end) return;
    Tail<T> tail(end - e, job.width);
    tail.read_packed(packed_at(job, e));
    tail.read_x(x + e);
    Isa::scale(tail.x, tail.y, mask(tail.packed), job.scale);
    tail.write_y(y + e);
}

// Where 32 outputs of GELU lie in the table of its derivative: the cell, and the place in v. The loops here are
// plain: each instruction set's compiler makes vectors of them.
inline void find_cells(const float* __restrict output, uint32_t falling, const LineTable curve,
                       int32_t* __restrict cell, float* __restrict v) {
    for (int i = 0; i < kBlock; ++i) {
        float rise = output[i] - curve.minimum;  // not below the smallest square where it is a NaN
        rise = rise > curve.smallest_square ? rise : curve.smallest_square;
        rise = rise < curve.largest_square ? rise : curve.largest_square;
        float fall = -output[i] > curve.smallest_square ? -output[i] : curve.smallest_square;
        fall = fall < -curve.minimum ? fall : -curve.minimum;
        const float s = std::sqrt(rise), q = std::sqrt(fall);
        v[i] = falling >> i & 1 ? s + (q - 2 * s - curve.q0) : s;
        const int32_t c = static_cast<int32_t>((v[i] - curve.first) * curve.cells_a_unit);
        const int32_t last = curve.cells - 1, up_to_last = c < last ? c : last;
        cell[i] = up_to_last > 0 ? up_to_last : 0;
    }
}

// product *= intercept + slope * v, 32 elements; `line` has intercept and slope of each.
inline void multiply_by_lines(const float* __restrict line, const float* __restrict v,
                              const float* __restrict output, float* __restrict product) {
    for (int i = 0; i < kBlock; ++i) {
        const float derivative = line[2 * i] + line[2 * i + 1] * v[i];
        product[i] *= output[i] == output[i] ? derivative : output[i];  // a NaN stays one
    }
}

// So many elements are looked up in one go: what a look-up has stored is then in place when it is read.
constexpr int kStretch = 4 * kBlock;

// y = grad * D(output), up to kStretch elements in whole blocks.
template <class Isa, class T>
inline void gelu_backward_of(const T* grad, const T* output, T* y, const uint8_t* falling, int n,
                             const LineTable& curve) {
    float out[kStretch], v[kStretch], line[2 * kStretch];
    int32_t cell[kStretch];
    for (int e = 0; e < n; e += kBlock) {
        Isa::to_floats(output + e, out + e);
        find_cells(out + e, load_mask(falling + e / 8, 1), curve, cell + e, v + e);
    }
    for (int e = 0; e < n; e += kBlock) Isa::look_up(curve.lines, cell + e, line + 2 * e);
    for (int e = 0; e < n; e += kBlock) {
        float product[kBlock];
        Isa::to_floats(grad + e, product);
        multiply_by_lines(line + 2 * e, v + e, out + e, product);
        Isa::from_floats(product, y + e);
    }
}

template <class Isa, class T>
void gelu_backward(Job job, int64_t begin, int64_t end) {
    const T* grad = static_cast<const T*>(job.x);
    const T* output = static_cast<const T*>(job.output);
    T* y = static_cast<T*>(job.y);
    int64_t e = begin;
    while (e + kBlock <= end) {
        const int n = static_cast<int>(end - e < kStretch ? (end - e) / kBlock * kBlock : kStretch);
        gelu_backward_of<Isa>(grad + e, output + e, y + e, packed_at(job, e), n, job.curve);
        e += n;
    }
    if (e == end) return;
    Tail<T> tail(end - e, 1);
    T tail_output[kBlock] = {};
    tail.read_packed(packed_at(job, e));
    tail.read_x(grad + e);
    std::memcpy(tail_output, output + e, tail.count * sizeof(T));
    gelu_backward_of<Isa>(tail.x, tail_output, tail.y, tail.packed, kBlock, job.curve);
    tail.write_y(y + e);
}

// The limit is the job's scale.
template <class Isa, class T>
void below(Job job, int64_t begin, int64_t end) {
    const T* x = static_cast<const T*>(job.x);
    const float limit = static_cast<float>(job.scale);
    float wide[kBlock];
    int64_t e = begin;
    for (; e + kBlock <= end; e += kBlock) {
        Isa::to_floats(x + e, wide);
        store_mask(packed_at(job, e), Isa::below(wide, limit), 1);
    }
    if (e == end) return;
    Tail<T> tail(end - e, 1);
    tail.read_x(x + e);
    Isa::to_floats(tail.x, wide);
    store_mask(tail.packed, tail.valid(Isa::below(wide, limit)), 1);
    tail.write_packed(packed_at(job, e));
}

template <class Isa>
void pack(Job job, int64_t begin, int64_t end) {
    const uint8_t* mask = static_cast<const uint8_t*>(job.x);
    int64_t e = begin;
    for (; e + kBlock <= end; e += kBlock) {
        store_mask(packed_at(job, e), Isa::pack(mask + e), job.width);
    }
    if (e == end) return;
    Tail<uint8_t> tail(end - e, job.width);
    tail.read_x(mask + e);
    store_mask(tail.packed, Isa::pack(tail.x), job.width);
    tail.write_packed(packed_at(job, e));
}

template <class Isa>
void unpack(Job job, int64_t begin, int64_t end) {
    uint8_t* mask = static_cast<uint8_t*>(job.y);
    int64_t e = begin;
    for (; e + kBlock <= end; e += kBlock) {
        Isa::unpack(load_mask(packed_at(job, e), job.width), mask + e);
    }
    if (e == end) return;
    Tail<uint8_t> tail(end - e, job.width);
    tail.read_packed(packed_at(job, e));
    Isa::unpack(load_mask(tail.packed, job.width), tail.y);
    tail.write_y(mask + e);
}

template <class Isa>
constexpr Backend make_backend(const char* name, bool (*usable)()) {
    return {name,
            usable,
            {dropout<Isa, float>, dropout<Isa, double>, dropout<Isa, BFloat16>, dropout<Isa, Float16>},
            {bias_dropout_add<Isa, float>, bias_dropout_add<Isa, double>, bias_dropout_add<Isa, BFloat16>,
             bias_dropout_add<Isa, Float16>},
            {apply<Isa, float>, apply<Isa, double>, apply<Isa, BFloat16>, apply<Isa, Float16>},
            {gelu_backward<Isa, float>, nullptr, gelu_backward<Isa, BFloat16>, gelu_backward<Isa, Float16>},
            {below<Isa, float>, nullptr, below<Isa, BFloat16>, below<Isa, Float16>},
            {layer_norm_backward<Isa, float>, nullptr, layer_norm_backward<Isa, BFloat16>,
             layer_norm_backward<Isa, Float16>},
            pack<Isa>,
            unpack<Isa>};
}

}  // namespace
}  // namespace pmexp
