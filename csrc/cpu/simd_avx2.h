// AVX2 with FMA and F16C: two registers are 16 lanes.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace being::cpu::BEING_ISA {

using Part = __m256;
using PartInt = __m256i;
using PartMask = __m256;
constexpr int kPartLanes = 8;

inline Part part_set(float x) {
    return _mm256_set1_ps(x);
}
inline PartInt part_set(int32_t x) {
    return _mm256_set1_epi32(x);
}
inline Part part_load(const float* p) {
    return _mm256_load_ps(p);
}
inline PartInt part_load(const int32_t* p) {
    return _mm256_load_si256(reinterpret_cast<const __m256i*>(p));
}
inline Part part_load_half(const uint16_t* p) {
    return _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(p)));
}
inline void part_store(float* p, Part a) {
    _mm256_store_ps(p, a);
}
inline void part_store(int32_t* p, PartInt a) {
    _mm256_store_si256(reinterpret_cast<__m256i*>(p), a);
}
inline void part_store_unaligned(int32_t* p, PartInt a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a);
}

inline Part part_add(Part a, Part b) {
    return _mm256_add_ps(a, b);
}
inline Part part_subtract(Part a, Part b) {
    return _mm256_sub_ps(a, b);
}
inline Part part_multiply(Part a, Part b) {
    return _mm256_mul_ps(a, b);
}
inline Part part_divide(Part a, Part b) {
    return _mm256_div_ps(a, b);
}
inline Part part_min(Part a, Part b) {
    return _mm256_min_ps(a, b);
}
inline Part part_max(Part a, Part b) {
    return _mm256_max_ps(a, b);
}
inline Part part_fused(Part a, Part b, Part c) {
    return _mm256_fmadd_ps(a, b, c);
}
inline Part part_fused_negative(Part a, Part b, Part c) {
    return _mm256_fnmadd_ps(a, b, c);
}
inline Part part_root(Part a) {
    return _mm256_sqrt_ps(a);
}
inline Part part_floor(Part a) {
    return _mm256_floor_ps(a);
}

inline PartMask part_less(Part a, Part b) {
    return _mm256_cmp_ps(a, b, _CMP_LT_OQ);
}
inline PartMask part_greater_equal(Part a, Part b) {
    return _mm256_cmp_ps(a, b, _CMP_GE_OQ);
}
inline PartMask part_both(PartMask a, PartMask b) {
    return _mm256_and_ps(a, b);
}
inline uint32_t part_bits(PartMask m) {
    return uint32_t(_mm256_movemask_ps(m));
}
inline Part part_select(PartMask m, Part yes, Part no) {
    return _mm256_blendv_ps(no, yes, m);
}
inline Part part_keep(PartMask m, Part a) {
    return _mm256_and_ps(m, a);
}

inline PartInt part_add(PartInt a, PartInt b) {
    return _mm256_add_epi32(a, b);
}
inline PartInt part_subtract(PartInt a, PartInt b) {
    return _mm256_sub_epi32(a, b);
}
inline PartInt part_and(PartInt a, PartInt b) {
    return _mm256_and_si256(a, b);
}
inline PartInt part_or(PartInt a, PartInt b) {
    return _mm256_or_si256(a, b);
}
inline PartMask part_test(PartInt a, PartInt b) {
    const PartInt zero = _mm256_cmpeq_epi32(_mm256_and_si256(a, b), _mm256_setzero_si256());
    return _mm256_castsi256_ps(_mm256_xor_si256(zero, _mm256_set1_epi32(-1)));
}
template <int kBits>
inline PartInt part_shift_left(PartInt a) {
    return _mm256_slli_epi32(a, kBits);
}
template <int kBits>
inline PartInt part_shift_right(PartInt a) {
    return _mm256_srli_epi32(a, kBits);
}
inline PartInt part_truncate(Part a) {
    return _mm256_cvttps_epi32(a);
}
inline PartInt part_nearest(Part a) {
    return _mm256_cvtps_epi32(a);
}
inline Part part_to_float(PartInt a) {
    return _mm256_cvtepi32_ps(a);
}
inline Part part_as_float(PartInt a) {
    return _mm256_castsi256_ps(a);
}
inline PartInt part_as_int(Part a) {
    return _mm256_castps_si256(a);
}

template <class Integer>
inline void pack_lanes(uint32_t mask, const PartInt* a, Integer* to) {
    alignas(32) int32_t lane[16];
    part_store(lane, a[0]);
    part_store(lane + 8, a[1]);
    for (; mask; mask &= mask - 1) *to++ = Integer(lane[_tzcnt_u32(mask)]);
}

constexpr unsigned kFlushDenormals = 0x8040;  // FTZ and DAZ
inline unsigned float_mode() {
    return _mm_getcsr();
}
inline void set_float_mode(unsigned mode) {
    _mm_setcsr(mode);
}

}  // namespace being::cpu::BEING_ISA
