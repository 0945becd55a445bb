// 2^x that loops over floats can use: a compiler turns it into vectors, which it does with no call of libm.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace being::training {

// x at most 127; relative error below 2e-7, and what would be less than 2^-126 is 2^-126.
inline float vectorisable_power_of_two(float x) {
    const float clamped = x > -126.0f ? x : -126.0f;
    // Adding 1.5 * 2^23 leaves the nearest integer in the low bits of the float, and zeros above them but for what the
    // shift by 23 drops.
    const float shifted = clamped + 12582912.0f;
    const float part = clamped - (shifted - 12582912.0f);  // -0.5 .. 0.5
    // Minimax fit of 2^part, relative error.
    const float power =
        1.0f + part * (0.693146944f + part * (0.240221202f + part * (0.0555071309f +
                                                                     part * (0.00967554096f + part * 0.00132764725f))));
    uint32_t whole, bits;
    std::memcpy(&whole, &shifted, sizeof whole);
    std::memcpy(&bits, &power, sizeof bits);
    bits += whole << 23;
    float result;
    std::memcpy(&result, &bits, sizeof result);
    return result;
}

inline double vectorisable_power_of_two(double x) {
    return std::exp2(x);
}

}  // namespace being::training
