// Structural similarity of two signals at a pixel, and its derivative. Wang et al., "Image quality assessment: from
// error visibility to structural similarity", 2004, equation 13, with the window and the constants of its section
// III.C: 11x11 Gaussian, standard deviation 1.5 px, K1 = 0.01, K2 = 0.03, values 0..1.
//
// The window's means of a, b, a^2 + b^2 and ab say it all: the two variances are only ever added. The derivative by a
// is carried back through the window, which is symmetric:
//   d/da(q) = sum_p w(p - q) (by_mean(p) + 2 a(q) by_square(p) + b(q) by_product(p))
#pragma once

#include "kernels/common/real.h"

namespace being {

constexpr int kSsimRadius = 5, kSsimTaps = 2 * kSsimRadius + 1;

// The window along one axis: exp(-(tap - 5)^2 / 4.5), with sum 1.
template <class Real>
BEING_HD constexpr Real ssim_window(int tap) {
    switch (tap < kSsimRadius ? tap : 2 * kSsimRadius - tap) {
        case 0:
            return Real(0.00102838008447911);
        case 1:
            return Real(0.007598758135239185);
        case 2:
            return Real(0.03600077212843083);
        case 3:
            return Real(0.10936068950970002);
        case 4:
            return Real(0.2130055377112537);
        default:
            return Real(0.26601172486179436);
    }
}

// Means over the window.
template <class Real>
struct SsimMoments {
    Real a, b, square, product;  // of a, b, a^2 + b^2, ab
};

template <class Real>
struct Ssim {
    Real value;
    Real by_mean;     // of a, while variances and covariance stay
    Real by_square;   // mean of a^2, while the other means stay
    Real by_product;  // mean of ab, likewise
};

template <class Real>
BEING_HD inline Ssim<Real> structural_similarity(const SsimMoments<Real>& m) {
    const Real two = Real(2), c1 = Real(0.01 * 0.01), c2 = Real(0.03 * 0.03);
    const Real product = m.a * m.b, squares = fused(m.a, m.a, m.b * m.b);
    const Real a1 = fused(two, product, c1), a2 = fused(two, m.product - product, c2);
    const Real b1 = squares + c1, b2 = m.square - squares + c2;
    const Real inverse = Real(1) / (b1 * b2), value = a1 * a2 * inverse;
    return {value, two * inverse * (m.b * a2 - value * m.a * b2), -value * b1 * inverse, two * a1 * inverse};
}

// by_mean, while the means of a^2 and ab stay: what the window is applied to. Where the picture is flat it is a large
// number that the other two all but cancel, so it must be made of the very values that they are stored as.
template <class Real>
BEING_HD inline Real by_mean_alone(const Ssim<Real>& s, const SsimMoments<Real>& m) {
    return s.by_mean - Real(2) * s.by_square * m.a - s.by_product * m.b;
}

}  // namespace being
