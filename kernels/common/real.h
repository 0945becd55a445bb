// Scalar vocabulary of the shared mathematics. Every formula in kernels/common is a template on Real, which is float in
// a CUDA kernel, float or double in host code, and a vector of 16 floats in the CPU stages (csrc/cpu/simd.h, which
// defines the same functions for its types; argument-dependent look-up finds them).
#pragma once

#include <cmath>

#if defined(__CUDACC__)
#define BEING_HD __host__ __device__
#else
#define BEING_HD
#endif

namespace being {

#define BEING_DEFINE_REAL(T)                                \
    BEING_HD inline T fused(T a, T b, T c) {                \
        return a * b + c;                                   \
    }                                                       \
    BEING_HD inline T smaller(T a, T b) {                   \
        return a < b ? a : b;                               \
    }                                                       \
    BEING_HD inline T larger(T a, T b) {                    \
        return a > b ? a : b;                               \
    }                                                       \
    BEING_HD inline T root(T a) {                           \
        return std::sqrt(a);                                \
    }                                                       \
    BEING_HD inline T power_of_two(T a) {                   \
        return std::exp2(a);                                \
    }                                                       \
    BEING_HD inline T log_two(T a) {                        \
        return std::log2(a);                                \
    }                                                       \
    BEING_HD inline T select(bool condition, T yes, T no) { \
        return condition ? yes : no;                        \
    }

BEING_DEFINE_REAL(float)
BEING_DEFINE_REAL(double)
#undef BEING_DEFINE_REAL

template <class Real>
BEING_HD inline Real clamp(Real x, Real low, Real high) {
    return smaller(larger(x, low), high);
}

// 3x^2 - 2x^3 of x clamped to 0..1.
template <class Real>
BEING_HD inline Real smoothstep(Real x) {
    const Real t = clamp(x, Real(0.0f), Real(1.0f));
    return t * t * fused(t, Real(-2.0f), Real(3.0f));
}

}  // namespace being
