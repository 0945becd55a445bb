// Any architecture: sixteen floats are 16 lanes, and the compiler's vectorizer does what it can.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "csrc/cpu/half.h"

namespace being::cpu::BEING_ISA {

using Part = float;
using PartInt = int32_t;
using PartMask = bool;
constexpr int kPartLanes = 1;

inline Part part_set(float x) {
    return x;
}
inline PartInt part_set(int32_t x) {
    return x;
}
inline Part part_load(const float* p) {
    return *p;
}
inline PartInt part_load(const int32_t* p) {
    return *p;
}
inline Part part_load_half(const uint16_t* p) {
    return half_to_float(*p);
}
inline void part_store(float* p, Part a) {
    *p = a;
}
inline void part_store(int32_t* p, PartInt a) {
    *p = a;
}
inline void part_store_unaligned(int32_t* p, PartInt a) {
    *p = a;
}

inline Part part_add(Part a, Part b) {
    return a + b;
}
inline Part part_subtract(Part a, Part b) {
    return a - b;
}
inline Part part_multiply(Part a, Part b) {
    return a * b;
}
inline Part part_divide(Part a, Part b) {
    return a / b;
}
inline Part part_min(Part a, Part b) {
    return a < b ? a : b;
}
inline Part part_max(Part a, Part b) {
    return a > b ? a : b;
}
inline Part part_fused(Part a, Part b, Part c) {
    return a * b + c;
}
inline Part part_fused_negative(Part a, Part b, Part c) {
    return c - a * b;
}
inline Part part_root(Part a) {
    return std::sqrt(a);
}
inline Part part_floor(Part a) {
    return std::floor(a);
}

inline PartMask part_less(Part a, Part b) {
    return a < b;
}
inline PartMask part_greater_equal(Part a, Part b) {
    return a >= b;
}
inline PartMask part_both(PartMask a, PartMask b) {
    return a && b;
}
inline uint32_t part_bits(PartMask m) {
    return m;
}
inline Part part_select(PartMask m, Part yes, Part no) {
    return m ? yes : no;
}
inline Part part_keep(PartMask m, Part a) {
    return m ? a : 0.0f;
}

inline PartInt part_add(PartInt a, PartInt b) {
    return PartInt(uint32_t(a) + uint32_t(b));
}
inline PartInt part_subtract(PartInt a, PartInt b) {
    return PartInt(uint32_t(a) - uint32_t(b));
}
inline PartInt part_and(PartInt a, PartInt b) {
    return a & b;
}
inline PartInt part_or(PartInt a, PartInt b) {
    return a | b;
}
inline PartMask part_test(PartInt a, PartInt b) {
    return (a & b) != 0;
}
template <int kBits>
inline PartInt part_shift_left(PartInt a) {
    return PartInt(uint32_t(a) << kBits);
}
template <int kBits>
inline PartInt part_shift_right(PartInt a) {
    return PartInt(uint32_t(a) >> kBits);
}
// Out of range or not a number gives the smallest integer, as x86's conversion does.
inline PartInt part_truncate(Part a) {
    return a >= -2147483648.0f && a < 2147483648.0f ? PartInt(a) : INT32_MIN;
}
inline PartInt part_nearest(Part a) {
    return part_truncate(std::nearbyint(a));
}
inline Part part_to_float(PartInt a) {
    return Part(a);
}
inline Part part_as_float(PartInt a) {
    Part b;
    std::memcpy(&b, &a, 4);
    return b;
}
inline PartInt part_as_int(Part a) {
    PartInt b;
    std::memcpy(&b, &a, 4);
    return b;
}

template <class Integer>
inline void pack_lanes(uint32_t mask, const PartInt* a, Integer* to) {
    for (int i = 0; mask; ++i, mask >>= 1)
        if (mask & 1) *to++ = Integer(a[i]);
}

constexpr unsigned kFlushDenormals = 0;  // there is no portable way
inline unsigned float_mode() {
    return 0;
}
inline void set_float_mode(unsigned) {}

}  // namespace being::cpu::BEING_ISA
