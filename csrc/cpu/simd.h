// Vectors of 16 lanes, on whatever the instruction set being compiled for has: 1 register of AVX-512, 2 of AVX2, 4 of
// SSE2, or 16 plain floats. The CPU stages are written once in these types; each stage's file is compiled per
// instruction set (BEING_ISA), and everything it defines lives in the namespace of that set, so that no inline function
// of one build can be linked into another.
//
// A simd_*.h file gives the primitives of one register (Part, PartInt, PartMask); this one makes 16 lanes of them.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#include "kernels/common/real.h"
#include "kernels/config.h"

#if defined(BEING_ISA_avx512)
#include "csrc/cpu/simd_avx512.h"
#elif defined(BEING_ISA_avx2)
#include "csrc/cpu/simd_avx2.h"
#elif (defined(__SSE2__) || defined(_M_X64)) && !defined(BEING_SCALAR)  // BEING_SCALAR: to test the last one
#include "csrc/cpu/simd_sse2.h"
#else
#include "csrc/cpu/simd_scalar.h"
#endif

#if defined(_MSC_VER)
#define BEING_INLINE __forceinline
#else
#define BEING_INLINE inline __attribute__((always_inline))
#endif

namespace being::cpu::BEING_ISA {

constexpr int kLanes = config::kLanes;
constexpr int kParts = kLanes / kPartLanes;

struct Mask {
    PartMask part[kParts];
};

struct Ints {
    PartInt part[kParts];

    Ints() = default;
    BEING_INLINE Ints(int32_t x);
    static BEING_INLINE Ints load(const void* aligned);
    static BEING_INLINE Ints load_halves(const void* low, const void* high);  // 8 and 8, unaligned
    static BEING_INLINE Ints counting();                                      // 0, 1, ... 15
    BEING_INLINE void store(void* aligned) const;
    BEING_INLINE void store_unaligned(void* to) const;
};

struct Floats {
    Part part[kParts];

    Floats() = default;
    BEING_INLINE Floats(float x);
    static BEING_INLINE Floats load(const float* aligned);
    static BEING_INLINE Floats load_half(const uint16_t* aligned);  // 16 IEEE half floats
    BEING_INLINE void store(float* aligned) const;
};

// Calls make(constant 0), make(constant 1), ... and gathers what they return; unrolled where kParts is 2, 4 or 16.
template <class Result, class Make, size_t... I>
BEING_INLINE Result each_part(Make make, std::index_sequence<I...>) {
    Result result;
    ((result.part[I] = make(std::integral_constant<size_t, I>())), ...);
    return result;
}
#define BEING_EACH(Result, expression) \
    each_part<Result>([&](auto i) BEING_LAMBDA_INLINE { return expression; }, std::make_index_sequence<kParts>())
#if defined(_MSC_VER)
#define BEING_LAMBDA_INLINE
#else
#define BEING_LAMBDA_INLINE __attribute__((always_inline))
#endif

BEING_INLINE Floats::Floats(float x) {
    *this = BEING_EACH(Floats, ((void)i, part_set(x)));
}
BEING_INLINE Ints::Ints(int32_t x) {
    *this = BEING_EACH(Ints, ((void)i, part_set(x)));
}
BEING_INLINE Floats Floats::load(const float* p) {
    return BEING_EACH(Floats, part_load(p + i * kPartLanes));
}
BEING_INLINE Floats Floats::load_half(const uint16_t* p) {
    return BEING_EACH(Floats, part_load_half(p + i * kPartLanes));
}
BEING_INLINE void Floats::store(float* p) const {
    for (int i = 0; i < kParts; ++i) part_store(p + i * kPartLanes, part[i]);
}
BEING_INLINE Ints Ints::load(const void* p) {
    return BEING_EACH(Ints, part_load(static_cast<const int32_t*>(p) + i * kPartLanes));
}
BEING_INLINE Ints Ints::load_halves(const void* low, const void* high) {
#if defined(BEING_ISA_avx512)
    Ints result;
    result.part[0] = part_load_halves(low, high);
    return result;
#else
    alignas(64) int32_t both[kLanes];
    std::memcpy(both, low, 32);
    std::memcpy(both + 8, high, 32);
    return load(both);
#endif
}
BEING_INLINE Ints Ints::counting() {
    alignas(64) static constexpr int32_t k[kLanes] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return load(k);
}
BEING_INLINE void Ints::store(void* p) const {
    for (int i = 0; i < kParts; ++i) part_store(static_cast<int32_t*>(p) + i * kPartLanes, part[i]);
}
BEING_INLINE void Ints::store_unaligned(void* p) const {
    for (int i = 0; i < kParts; ++i) part_store_unaligned(static_cast<int32_t*>(p) + i * kPartLanes, part[i]);
}

#define BEING_BINARY(Result, Type, name, primitive)                 \
    BEING_INLINE Result name(const Type& a, const Type& b) {        \
        return BEING_EACH(Result, primitive(a.part[i], b.part[i])); \
    }
BEING_BINARY(Floats, Floats, operator+, part_add)
BEING_BINARY(Floats, Floats, operator-, part_subtract)
BEING_BINARY(Floats, Floats, operator*, part_multiply)
BEING_BINARY(Floats, Floats, operator/, part_divide)
BEING_BINARY(Floats, Floats, smaller, part_min)  // of a NaN and a number: the second argument
BEING_BINARY(Floats, Floats, larger, part_max)
BEING_BINARY(Mask, Floats, operator<, part_less)
BEING_BINARY(Mask, Floats, operator>=, part_greater_equal)  // false where either is NaN
BEING_BINARY(Ints, Ints, operator+, part_add)
BEING_BINARY(Ints, Ints, operator-, part_subtract)
BEING_BINARY(Ints, Ints, operator&, part_and)
BEING_BINARY(Ints, Ints, operator|, part_or)
BEING_BINARY(Mask, Ints, bits_set, part_test)  // (a & b) != 0
BEING_BINARY(Mask, Mask, operator&, part_both)
#undef BEING_BINARY

BEING_INLINE Floats operator-(const Floats& a) {
    return Floats(0.0f) - a;
}
BEING_INLINE Floats fused(const Floats& a, const Floats& b, const Floats& c) {
    return BEING_EACH(Floats, part_fused(a.part[i], b.part[i], c.part[i]));
}
// c - a b
BEING_INLINE Floats fused_negative(const Floats& a, const Floats& b, const Floats& c) {
    return BEING_EACH(Floats, part_fused_negative(a.part[i], b.part[i], c.part[i]));
}
BEING_INLINE Floats root(const Floats& a) {
    return BEING_EACH(Floats, part_root(a.part[i]));
}
BEING_INLINE Floats round_down(const Floats& a) {
    return BEING_EACH(Floats, part_floor(a.part[i]));
}
BEING_INLINE Floats select(const Mask& m, const Floats& yes, const Floats& no) {
    return BEING_EACH(Floats, part_select(m.part[i], yes.part[i], no.part[i]));
}
BEING_INLINE Floats keep(const Mask& m, const Floats& a) {
    return BEING_EACH(Floats, part_keep(m.part[i], a.part[i]));
}
template <int kBits>
BEING_INLINE Ints shift_left(const Ints& a) {
    return BEING_EACH(Ints, part_shift_left<kBits>(a.part[i]));
}
template <int kBits>
BEING_INLINE Ints shift_right(const Ints& a) {  // unsigned
    return BEING_EACH(Ints, part_shift_right<kBits>(a.part[i]));
}
BEING_INLINE Ints truncate(const Floats& a) {
    return BEING_EACH(Ints, part_truncate(a.part[i]));
}
BEING_INLINE Ints nearest(const Floats& a) {
    return BEING_EACH(Ints, part_nearest(a.part[i]));
}
BEING_INLINE Floats to_floats(const Ints& a) {
    return BEING_EACH(Floats, part_to_float(a.part[i]));
}
BEING_INLINE Floats bits_as_floats(const Ints& a) {
    return BEING_EACH(Floats, part_as_float(a.part[i]));
}
BEING_INLINE Ints bits_as_ints(const Floats& a) {
    return BEING_EACH(Ints, part_as_int(a.part[i]));
}

// One bit per lane.
BEING_INLINE uint32_t bits(const Mask& m) {
    uint32_t result = 0;
    for (int i = 0; i < kParts; ++i) result |= part_bits(m.part[i]) << (i * kPartLanes);
    return result;
}
BEING_INLINE bool any(const Mask& m) {
    return bits(m) != 0;
}

BEING_INLINE int count_bits(uint32_t x) {
#if defined(_MSC_VER)
    return int(__popcnt(x));
#else
    return __builtin_popcount(x);
#endif
}
BEING_INLINE int lowest_bit(uint32_t x) {
#if defined(_MSC_VER)
    return int(_tzcnt_u32(x));
#else
    return __builtin_ctz(x);
#endif
}
BEING_INLINE void prefetch(const void* p) {
#if !defined(_MSC_VER)
    __builtin_prefetch(p);
#endif
}

BEING_INLINE float reduce(const Floats& a, float (*pick)(float, float)) {
    alignas(64) float lane[kLanes];
    a.store(lane);
    float result = lane[0];
    for (int i = 1; i < kLanes; ++i) result = pick(result, lane[i]);
    return result;
}
BEING_INLINE float smallest(const Floats& a) {
    return reduce(a, [](float x, float y) { return y < x ? y : x; });
}
BEING_INLINE float largest(const Floats& a) {
    return reduce(a, [](float x, float y) { return y > x ? y : x; });
}

// The lanes of `a` where the mask is set, packed to the front. Up to 16 elements are written, whatever the mask.
BEING_INLINE void store_packed(uint32_t mask_bits, const Ints& a, uint32_t* to) {
    pack_lanes(mask_bits, a.part, to);
}
BEING_INLINE void store_packed(uint32_t mask_bits, const Ints& a, uint16_t* to) {
    pack_lanes(mask_bits, a.part, to);
}

// 2^x, relative error 8e-5 (kFast: for weights of blending, a fiftieth of an 8-bit step) or 4e-6. Underflows to 0; what
// overflows is large or infinite. Polynomials: minimax for the relative error over the fraction's range.
template <bool kFast>
BEING_INLINE Floats power_of_two_fast(const Floats& x) {
#if defined(BEING_ISA_avx512)
    Floats f, result;
    f.part[0] = part_fraction(x.part[0]);  // 0..1
    const Floats p =
        kFast ? fused(fused(fused(Floats(0.07944154f), f, 0.22449434f), f, 0.69606564f), f, 0.99992807f)
              : fused(fused(fused(fused(Floats(0.01367030f), f, 0.05174499f), f, 0.24160435f), f, 0.69297420f), f,
                      1.00000359f);
    result.part[0] = part_scale(p.part[0], x.part[0]);
    return result;
#else
    const Floats limited = smaller(larger(x, Floats(-126.0f)), Floats(127.0f));
    const Floats whole = round_down(limited), f = limited - whole;
    const Floats p =
        kFast ? fused(fused(fused(Floats(0.07944154f), f, 0.22449434f), f, 0.69606564f), f, 0.99992807f)
              : fused(fused(fused(fused(Floats(0.01367030f), f, 0.05174499f), f, 0.24160435f), f, 0.69297420f), f,
                      1.00000359f);
    return keep(x >= Floats(-126.0f), p * bits_as_floats(shift_left<23>(truncate(whole) + Ints(127))));
#endif
}
BEING_INLINE Floats power_of_two(const Floats& x) {
    return power_of_two_fast<false>(x);
}

// log2 of a positive normal number, absolute error 1e-6. With m in 0.75..1.5, log2 m = 2/ln2 artanh((m - 1) / (m + 1)).
BEING_INLINE Floats log_two(const Floats& x) {
    const Ints shifted = bits_as_ints(x) - Ints(0x3f400000);  // so that the mantissa is cut at 0.75
    const Ints exponent = shifted & Ints(int32_t(0xff800000));
    const Floats m = bits_as_floats(bits_as_ints(x) - exponent);
    const Floats e = to_floats(exponent) * Floats(1.0f / 8388608.0f);
    const Floats y = (m - Floats(1.0f)) / (m + Floats(1.0f)), z = y * y;
    return fused(y, fused(fused(fused(Floats(0.4121985f), z, 0.5770780f), z, 0.9617967f), z, 2.8853900f), e);
}

// The transpose of 16 rows of 16.
BEING_INLINE void transpose(Floats (&rows)[kLanes]) {
#if defined(BEING_ISA_avx512)
    Part r[kLanes];
    for (int i = 0; i < kLanes; ++i) r[i] = rows[i].part[0];
    transpose_parts(r);
    for (int i = 0; i < kLanes; ++i) rows[i].part[0] = r[i];
#else
    alignas(64) float from[kLanes][kLanes], to[kLanes][kLanes];
    for (int i = 0; i < kLanes; ++i) rows[i].store(from[i]);
    for (int i = 0; i < kLanes; ++i)
        for (int j = 0; j < kLanes; ++j) to[j][i] = from[i][j];
    for (int i = 0; i < kLanes; ++i) rows[i] = Floats::load(to[i]);
#endif
}

// Denormals cost a hundred cycles each and mean nothing here; the mode is the caller's again when a frame is done.
class FlushDenormals {
  public:
    FlushDenormals() : saved_(float_mode()) { set_float_mode(saved_ | kFlushDenormals); }
    ~FlushDenormals() { set_float_mode(saved_); }
    FlushDenormals(const FlushDenormals&) = delete;
    FlushDenormals& operator=(const FlushDenormals&) = delete;

  private:
    unsigned saved_;
};

}  // namespace being::cpu::BEING_ISA
