// AVX-512 (F, BW, DQ, VL): one register is 16 lanes.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace being::cpu::BEING_ISA {

using Part = __m512;
using PartInt = __m512i;
using PartMask = __mmask16;
constexpr int kPartLanes = 16;

inline Part part_set(float x) {
    return _mm512_set1_ps(x);
}
inline PartInt part_set(int32_t x) {
    return _mm512_set1_epi32(x);
}
inline Part part_load(const float* p) {
    return _mm512_load_ps(p);
}
inline PartInt part_load(const int32_t* p) {
    return _mm512_load_si512(p);
}
inline PartInt part_load_halves(const void* low, const void* high) {
    const __m256i first = _mm256_loadu_si256(static_cast<const __m256i*>(low));
    return _mm512_inserti64x4(_mm512_castsi256_si512(first), _mm256_loadu_si256(static_cast<const __m256i*>(high)), 1);
}
inline Part part_load_half(const uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_load_si256(reinterpret_cast<const __m256i*>(p)));
}
inline void part_store(float* p, Part a) {
    _mm512_store_ps(p, a);
}
inline void part_store(int32_t* p, PartInt a) {
    _mm512_store_si512(p, a);
}
inline void part_store_unaligned(int32_t* p, PartInt a) {
    _mm512_storeu_si512(p, a);
}

inline Part part_add(Part a, Part b) {
    return _mm512_add_ps(a, b);
}
inline Part part_subtract(Part a, Part b) {
    return _mm512_sub_ps(a, b);
}
inline Part part_multiply(Part a, Part b) {
    return _mm512_mul_ps(a, b);
}
inline Part part_divide(Part a, Part b) {
    return _mm512_div_ps(a, b);
}
inline Part part_min(Part a, Part b) {
    return _mm512_min_ps(a, b);
}
inline Part part_max(Part a, Part b) {
    return _mm512_max_ps(a, b);
}
inline Part part_fused(Part a, Part b, Part c) {
    return _mm512_fmadd_ps(a, b, c);
}
inline Part part_fused_negative(Part a, Part b, Part c) {
    return _mm512_fnmadd_ps(a, b, c);
}
inline Part part_root(Part a) {
    return _mm512_sqrt_ps(a);
}
inline Part part_floor(Part a) {
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
}
inline Part part_fraction(Part a) {
    return _mm512_reduce_ps(a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
}
inline Part part_scale(Part a, Part exponent) {
    return _mm512_scalef_ps(a, exponent);
}  // a 2^floor(exponent)

inline PartMask part_less(Part a, Part b) {
    return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ);
}
inline PartMask part_greater_equal(Part a, Part b) {
    return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ);
}
inline PartMask part_both(PartMask a, PartMask b) {
    return PartMask(a & b);
}
inline uint32_t part_bits(PartMask m) {
    return m;
}
inline Part part_select(PartMask m, Part yes, Part no) {
    return _mm512_mask_blend_ps(m, no, yes);
}
inline Part part_keep(PartMask m, Part a) {
    return _mm512_maskz_mov_ps(m, a);
}

inline PartInt part_add(PartInt a, PartInt b) {
    return _mm512_add_epi32(a, b);
}
inline PartInt part_subtract(PartInt a, PartInt b) {
    return _mm512_sub_epi32(a, b);
}
inline PartInt part_and(PartInt a, PartInt b) {
    return _mm512_and_si512(a, b);
}
inline PartInt part_or(PartInt a, PartInt b) {
    return _mm512_or_si512(a, b);
}
inline PartMask part_test(PartInt a, PartInt b) {
    return _mm512_test_epi32_mask(a, b);
}
template <int kBits>
inline PartInt part_shift_left(PartInt a) {
    return _mm512_slli_epi32(a, kBits);
}
template <int kBits>
inline PartInt part_shift_right(PartInt a) {
    return _mm512_srli_epi32(a, kBits);
}
inline PartInt part_truncate(Part a) {
    return _mm512_cvttps_epi32(a);
}
inline PartInt part_nearest(Part a) {
    return _mm512_cvtps_epi32(a);
}
inline Part part_to_float(PartInt a) {
    return _mm512_cvtepi32_ps(a);
}
inline Part part_as_float(PartInt a) {
    return _mm512_castsi512_ps(a);
}
inline PartInt part_as_int(Part a) {
    return _mm512_castps_si512(a);
}

// Compressing in a register and storing it whole: compressing into memory is microcode on Zen.
inline void pack_lanes(uint32_t mask, const PartInt* a, uint32_t* to) {
    _mm512_storeu_si512(to, _mm512_maskz_compress_epi32(__mmask16(mask), a[0]));
}
inline void pack_lanes(uint32_t mask, const PartInt* a, uint16_t* to) {
    const __m256i narrow = _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(__mmask16(mask), a[0]));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), narrow);
}

inline void transpose_parts(Part* r) {
    Part t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    const auto low = [](Part a, Part b) {
        return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
    };
    const auto high = [](Part a, Part b) {
        return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
    };
    for (int i = 0; i < 16; i += 4) {
        r[i] = low(t[i], t[i + 2]);
        r[i + 1] = high(t[i], t[i + 2]);
        r[i + 2] = low(t[i + 1], t[i + 3]);
        r[i + 3] = high(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; ++i) {
        t[i] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; ++i) {
        r[i] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd);
        r[i + 4] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 12] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

constexpr unsigned kFlushDenormals = 0x8040;  // FTZ and DAZ
inline unsigned float_mode() {
    return _mm_getcsr();
}
inline void set_float_mode(unsigned mode) {
    _mm_setcsr(mode);
}

}  // namespace being::cpu::BEING_ISA
