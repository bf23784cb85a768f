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

    struct Words {
        Vector word[4];
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

    // The four words of the 64-bit counters in `counter`; the upper half of the 128-bit counter is 0.
    Words operator()(Vector counter) const {
        const Vector multiplier0 = Lanes::broadcast(0xD2511F53);
        const Vector multiplier1 = Lanes::broadcast(0xCD9E8D57);
        Vector c0 = counter, c1 = Lanes::high_half(counter), c2 = Lanes::broadcast(0), c3 = c2;
#pragma GCC unroll 10
        for (int round = 0; round < kRounds; ++round) {
            const Vector product0 = Lanes::multiply(c0, multiplier0);
            const Vector product1 = Lanes::multiply(c2, multiplier1);
            c0 = Lanes::exclusive_or(Lanes::high_half(product1), Lanes::exclusive_or(c1, keys0_[round]));
            c1 = product1;
            c2 = Lanes::exclusive_or(Lanes::high_half(product0), Lanes::exclusive_or(c3, keys1_[round]));
            c3 = product0;
        }
        return {{c0, c1, c2, c3}};
    }

private:
    static constexpr int kRounds = 10;
    Vector keys0_[kRounds], keys1_[kRounds];
};

}  // namespace
}  // namespace pmexp
