// IEEE half floats without hardware for them.
#pragma once

#include <cstdint>
#include <cstring>

namespace being {

// Shifting exponent and mantissa into a float's places divides by 2^112; multiplying undoes it, denormal halves
// included.
inline float half_to_float(uint16_t half) {
    const uint32_t magnitude = uint32_t(half & 0x7fff) << 13, sign = uint32_t(half & 0x8000) << 16;
    float value;
    std::memcpy(&value, &magnitude, 4);
    value *= 5.192296858534828e33f;  // 2^112
    uint32_t out;
    std::memcpy(&out, &value, 4);
    out |= sign;
    std::memcpy(&value, &out, 4);
    return value;
}

}  // namespace being
