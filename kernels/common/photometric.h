// How a pixel is compared with the one that was seen: what was seen, over the background that the picture is drawn on;
// the absolute difference, or Huber's ("Robust estimation of a location parameter", 1964).
#pragma once

#include <cstdint>

#include "kernels/common/linear.h"

namespace being {

template <class Real>
struct TargetPixel {
    Vector3<Real> colour;  // over the background
    Real alpha;
};

// From 8-bit colour with straight alpha.
template <class Real>
BEING_HD inline TargetPixel<Real> target_pixel(uint8_t red, uint8_t green, uint8_t blue, uint8_t alpha,
                                               const Vector3<Real>& background) {
    const Real unit = Real(1.0 / 255.0), a = Real(alpha) * unit, rest = Real(1) - a, share = a * unit;
    return {{fused(share, Real(red), rest * background.x), fused(share, Real(green), rest * background.y),
             fused(share, Real(blue), rest * background.z)},
            a};
}

// |x|; with huber > 0: x^2 / 2 below it, and huber (|x| - huber / 2) from there on.
template <class Real>
BEING_HD inline Real robust(Real x, Real huber) {
    const Real size = std::fabs(x);
    if (huber <= Real(0)) return size;
    return size < huber ? Real(0.5) * x * x : huber * (size - Real(0.5) * huber);
}

template <class Real>
BEING_HD inline Real sign(Real x) {
    return Real((x > Real(0)) - (x < Real(0)));
}

template <class Real>
BEING_HD inline Real robust_slope(Real x, Real huber) {
    return huber <= Real(0) ? sign(x) : clamp(x, -huber, huber);
}

// What it costs that a pixel's coverage is not the one seen: the difference, but for a share of the one seen.
template <class Real>
BEING_HD inline Real coverage_cost(Real coverage, Real seen, Real tolerance) {
    return std::fmax(std::fabs(coverage - seen) - tolerance * seen, Real(0));
}

template <class Real>
BEING_HD inline Real coverage_slope(Real coverage, Real seen, Real tolerance) {
    const Real difference = coverage - seen;
    return std::fabs(difference) > tolerance * seen ? sign(difference) : Real(0);
}

}  // namespace being
