// Philox4x32-10 for any vector of 64-bit lanes, one counter a lane.
// Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

#pragma once

#include <cstdint>

namespace pmexp {
namespace {

// `Lanes` brings the type Vector and, on it, broadcast, multiply (of the low halves of the lanes, to 64
// bits), high_half (of each lane, moved down) and exclusive_or.
//
// A word lives in the low half of its lane. The high half holds what the products left there: no
// multiplication reads it, so nothing clears it, and a round is two of each of the first two operations.
template <class Lanes>
class Philox {
public:
    using Vector = typename Lanes::Vector;

    // The four words of each counter in N vectors.
    template <int N>
    struct Words {
        Vector word[4][N];
    };

    explicit Philox(uint64_t seed) {
        uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
        for (int round = 0; round < kRounds; ++round) {
            keys0_[round] = Lanes::broadcast(k0);
            keys1_[round] = Lanes::broadcast(k1);
            k0 += 0x9E3779B9;
            k1 += 0xBB67AE85;
        }
    }

    // Each lane of `counters` is a 64-bit counter; the upper half of Philox's 128 bits is 0. The vectors take
    // their rounds side by side: one after the other, a processor waits on each for its long chain.
    template <int N>
    Words<N> operator()(const Vector (&counters)[N]) const {
        const Vector multiplier0 = Lanes::broadcast(0xD2511F53);
        const Vector multiplier1 = Lanes::broadcast(0xCD9E8D57);
        Words<N> c;
        for (int v = 0; v < N; ++v) {
            c.word[0][v] = counters[v];
            c.word[1][v] = Lanes::high_half(counters[v]);
            c.word[2][v] = c.word[3][v] = Lanes::broadcast(0);
        }
#pragma GCC unroll 10
        for (int round = 0; round < kRounds; ++round) {
#pragma GCC unroll 8
            for (int v = 0; v < N; ++v) {
                const Vector product0 = Lanes::multiply(c.word[0][v], multiplier0);
                const Vector product1 = Lanes::multiply(c.word[2][v], multiplier1);
                const Vector mixed0 = Lanes::exclusive_or(c.word[1][v], keys0_[round]);
                const Vector mixed1 = Lanes::exclusive_or(c.word[3][v], keys1_[round]);
                c.word[0][v] = Lanes::exclusive_or(Lanes::high_half(product1), mixed0);
                c.word[1][v] = product1;
                c.word[2][v] = Lanes::exclusive_or(Lanes::high_half(product0), mixed1);
                c.word[3][v] = product0;
            }
        }
        return c;
    }

private:
    static constexpr int kRounds = 10;
    Vector keys0_[kRounds], keys1_[kRounds];
};

}  // namespace
}  // namespace pmexp
