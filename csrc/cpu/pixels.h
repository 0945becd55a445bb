// From 16 composited pixels (8 wide, 2 rows) to bytes of the output's format.
#pragma once

#include "csrc/cpu/simd.h"
#include "kernels/common/colour.h"
#include "kernels/common/composite.h"

namespace being::cpu::BEING_ISA {

// 0 or more to the nearest of 0..255. Nothing that is blended is negative; rounding may leave it above 1.
BEING_INLINE Ints to_byte(const Floats& x) {
    return nearest(smaller(x * Floats(255.0f), Floats(255.0f)));
}

BEING_INLINE Ints pack_rgb(const Vector3<Floats>& c) {
    return to_byte(c.x) | shift_left<8>(to_byte(c.y)) | shift_left<16>(to_byte(c.z));
}

BEING_INLINE Vector3<Floats> unpack_rgb(const Ints& rgbx) {
    const Floats scale = 1.0f / 255.0f;
    const Ints low = 255;
    return {to_floats(rgbx & low) * scale, to_floats(shift_right<8>(rgbx) & low) * scale,
            to_floats(shift_right<16>(rgbx) & low) * scale};
}

// Eight pixels of three bytes each to row 0 and to row 1, and not a byte more: the next may be another worker's.
BEING_INLINE void store_rgb(const Ints& rgb, uint8_t* row0, uint8_t* row1) {
#if defined(BEING_ISA_avx512)
    const __m512i drop = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1));
    const __m512i close = _mm512_setr_epi32(0, 1, 2, 4, 5, 6, 0, 0, 8, 9, 10, 12, 13, 14, 0, 0);
    const __m512i packed = _mm512_permutexvar_epi32(close, _mm512_shuffle_epi8(rgb.part[0], drop));
    _mm256_mask_storeu_epi32(row0, 0x3f, _mm512_castsi512_si256(packed));
    _mm256_mask_storeu_epi32(row1, 0x3f, _mm512_extracti64x4_epi64(packed, 1));
#elif defined(BEING_ISA_avx2)
    const __m256i drop =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1));
    const __m256i close = _mm256_setr_epi32(0, 1, 2, 4, 5, 6, 0, 0);
    uint8_t* row[2] = {row0, row1};
    for (int i = 0; i < 2; ++i) {
        const __m256i packed = _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(rgb.part[i], drop), close);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(row[i]), _mm256_castsi256_si128(packed));
        _mm_storel_epi64(reinterpret_cast<__m128i*>(row[i] + 16), _mm256_extracti128_si256(packed, 1));
    }
#else
    alignas(64) uint32_t pixel[kLanes];
    rgb.store(pixel);
    for (int i = 0; i < kLanes; ++i) {
        uint8_t* to = (i < 8 ? row0 : row1) + 3 * (i & 7);
        to[0] = uint8_t(pixel[i]);
        to[1] = uint8_t(pixel[i] >> 8);
        to[2] = uint8_t(pixel[i] >> 16);
    }
#endif
}

BEING_INLINE void store_rgba(const Ints& rgba, uint8_t* row0, uint8_t* row1) {
    alignas(64) uint32_t pixel[kLanes];
    rgba.store(pixel);
    std::memcpy(row0, pixel, 32);
    std::memcpy(row1, pixel + 8, 32);
}

// Luma to both rows, chroma, the mean of 2x2 pixels, to one row of 4 pairs.
BEING_INLINE void store_nv12(const Vector3<Floats>& rgb, uint8_t* luma0, uint8_t* luma1, uint8_t* chroma) {
    const Floats zero = 0.0f, one = 1.0f;
    const Vector3<Floats> ycc =
        rgb_to_ycbcr709(Vector3<Floats>{clamp(rgb.x, zero, one), clamp(rgb.y, zero, one), clamp(rgb.z, zero, one)});
    alignas(64) int32_t y[kLanes];
    alignas(64) float c[2][kLanes];
    nearest(ycc.x).store(y);
    ycc.y.store(c[0]);
    ycc.z.store(c[1]);
    for (int i = 0; i < 8; ++i) luma0[i] = uint8_t(y[i]);
    for (int i = 0; i < 8; ++i) luma1[i] = uint8_t(y[8 + i]);
    for (int i = 0; i < 8; i += 2)
        for (int k = 0; k < 2; ++k)
            chroma[i + k] = uint8_t((c[k][i] + c[k][i + 1] + c[k][8 + i] + c[k][9 + i]) * 0.25f + 0.5f);
}

BEING_INLINE void store_floats(const Floats& value, float* row0, float* row1) {
    alignas(64) float lane[kLanes];
    value.store(lane);
    std::memcpy(row0, lane, 32);
    std::memcpy(row1, lane + 8, 32);
}

}  // namespace being::cpu::BEING_ISA
