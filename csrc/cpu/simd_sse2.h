// Baseline x86-64: four SSE2 registers are 16 lanes.
#pragma once

#include <emmintrin.h>

#include <cstdint>

namespace being::cpu::BEING_ISA {

using Part = __m128;
using PartInt = __m128i;
using PartMask = __m128;
constexpr int kPartLanes = 4;

inline Part part_set(float x) {
    return _mm_set1_ps(x);
}
inline PartInt part_set(int32_t x) {
    return _mm_set1_epi32(x);
}
inline Part part_load(const float* p) {
    return _mm_load_ps(p);
}
inline PartInt part_load(const int32_t* p) {
    return _mm_load_si128(reinterpret_cast<const __m128i*>(p));
}
inline void part_store(float* p, Part a) {
    _mm_store_ps(p, a);
}
inline void part_store(int32_t* p, PartInt a) {
    _mm_store_si128(reinterpret_cast<__m128i*>(p), a);
}
inline void part_store_unaligned(int32_t* p, PartInt a) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), a);
}

inline Part part_add(Part a, Part b) {
    return _mm_add_ps(a, b);
}
inline Part part_subtract(Part a, Part b) {
    return _mm_sub_ps(a, b);
}
inline Part part_multiply(Part a, Part b) {
    return _mm_mul_ps(a, b);
}
inline Part part_divide(Part a, Part b) {
    return _mm_div_ps(a, b);
}
inline Part part_min(Part a, Part b) {
    return _mm_min_ps(a, b);
}
inline Part part_max(Part a, Part b) {
    return _mm_max_ps(a, b);
}
inline Part part_fused(Part a, Part b, Part c) {
    return _mm_add_ps(_mm_mul_ps(a, b), c);
}
inline Part part_fused_negative(Part a, Part b, Part c) {
    return _mm_sub_ps(c, _mm_mul_ps(a, b));
}
inline Part part_root(Part a) {
    return _mm_sqrt_ps(a);
}
// Of numbers that an int32 holds, as all of ours are where it matters.
inline Part part_floor(Part a) {
    const Part toward_zero = _mm_cvtepi32_ps(_mm_cvttps_epi32(a));
    return _mm_sub_ps(toward_zero, _mm_and_ps(_mm_cmplt_ps(a, toward_zero), _mm_set1_ps(1.0f)));
}

inline PartMask part_less(Part a, Part b) {
    return _mm_cmplt_ps(a, b);
}
inline PartMask part_greater_equal(Part a, Part b) {
    return _mm_cmpge_ps(a, b);
}
inline PartMask part_both(PartMask a, PartMask b) {
    return _mm_and_ps(a, b);
}
inline uint32_t part_bits(PartMask m) {
    return uint32_t(_mm_movemask_ps(m));
}
inline Part part_select(PartMask m, Part yes, Part no) {
    return _mm_or_ps(_mm_and_ps(m, yes), _mm_andnot_ps(m, no));
}
inline Part part_keep(PartMask m, Part a) {
    return _mm_and_ps(m, a);
}

inline PartInt part_add(PartInt a, PartInt b) {
    return _mm_add_epi32(a, b);
}
inline PartInt part_subtract(PartInt a, PartInt b) {
    return _mm_sub_epi32(a, b);
}
inline PartInt part_and(PartInt a, PartInt b) {
    return _mm_and_si128(a, b);
}
inline PartInt part_or(PartInt a, PartInt b) {
    return _mm_or_si128(a, b);
}
inline PartMask part_test(PartInt a, PartInt b) {
    const PartInt zero = _mm_cmpeq_epi32(_mm_and_si128(a, b), _mm_setzero_si128());
    return _mm_castsi128_ps(_mm_xor_si128(zero, _mm_set1_epi32(-1)));
}
template <int kBits>
inline PartInt part_shift_left(PartInt a) {
    return _mm_slli_epi32(a, kBits);
}
template <int kBits>
inline PartInt part_shift_right(PartInt a) {
    return _mm_srli_epi32(a, kBits);
}
inline PartInt part_truncate(Part a) {
    return _mm_cvttps_epi32(a);
}
inline PartInt part_nearest(Part a) {
    return _mm_cvtps_epi32(a);
}
inline Part part_to_float(PartInt a) {
    return _mm_cvtepi32_ps(a);
}
inline Part part_as_float(PartInt a) {
    return _mm_castsi128_ps(a);
}
inline PartInt part_as_int(Part a) {
    return _mm_castps_si128(a);
}

// The bit trick of half.h, on four lanes.
inline Part part_load_half(const uint16_t* p) {
    const PartInt half = _mm_unpacklo_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)), _mm_setzero_si128());
    const PartInt magnitude = _mm_slli_epi32(_mm_and_si128(half, _mm_set1_epi32(0x7fff)), 13);
    const PartInt sign = _mm_slli_epi32(_mm_and_si128(half, _mm_set1_epi32(0x8000)), 16);
    const Part value = _mm_mul_ps(_mm_castsi128_ps(magnitude), _mm_set1_ps(5.192296858534828e33f));  // 2^112
    return _mm_or_ps(value, _mm_castsi128_ps(sign));
}

template <class Integer>
inline void pack_lanes(uint32_t mask, const PartInt* a, Integer* to) {
    alignas(16) int32_t lane[16];
    for (int i = 0; i < 4; ++i) part_store(lane + 4 * i, a[i]);
    for (int i = 0; mask; ++i, mask >>= 1)
        if (mask & 1) *to++ = Integer(lane[i]);
}

// Flush to zero alone: halves that are denormal as floats must still be read.
constexpr unsigned kFlushDenormals = 0x8000;
inline unsigned float_mode() {
    return _mm_getcsr();
}
inline void set_float_mode(unsigned mode) {
    _mm_setcsr(mode);
}

}  // namespace being::cpu::BEING_ISA
