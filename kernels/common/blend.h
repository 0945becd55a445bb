// Blending splats from front to back, and its derivative: what the differentiable operation `rasterize` computes. With
// d from a splat's mean to the pixel's centre, in px, Q its conic and f its (red, green, blue, depth),
//
//     alpha_i = min(0.999, o_i exp(-d^T Q d / 2)), none below 1/255        (Kerbl et al. 2023, eq. 2 and 3)
//     T_i = prod_{j<i} (1 - alpha_j),   S = sum_i T_i alpha_i f_i,   A = 1 - T_end.
//
// For a loss L with gradients g of S and g_A of A, and R_i = sum_{j>i} T_j alpha_j (g . f_j), what lies behind i:
//
//     dL/dalpha_i = T_i (g . f_i) - (R_i - g_A T_end) / (1 - alpha_i),     dL/df_i = g T_i alpha_i.
//
// R_i is g . S less the sum up to i, so that the derivative, too, is computed from front to back: nothing is stored per
// splat and pixel, and T is never divided back out of a product that may have become 0.
#pragma once

#include "kernels/common/projection.h"

namespace being {

// A splat's alpha before its limits is 2^exponent, exponent = a (dx + shear dy)^2 + rest dy^2 + log2_opacity: the
// square in Q completed. In floats a dx^2 + 2 b dx dy + c dy^2 is lost for a needle, whose large terms cancel.
template <class Real>
struct SplatShape {
    Real x, y, a, shear, rest, log2_opacity;
    Real half_width, half_height;  // px, of the box around what is drawn

    // The part of the exponent that a row of pixels shares.
    BEING_HD Real row(Real dy) const { return fused(rest * dy, dy, log2_opacity); }
    BEING_HD Real exponent(Real across, Real row) const { return fused(a * across, across, row); }  // dx + shear dy
};

// Of x, y, conic a, b, c, opacity, ... False: nothing of it can be seen, or its conic is none (not positive definite,
// or something is not a number).
template <class Real>
BEING_HD inline bool make_splat_shape(const Real* splat, SplatShape<Real>& shape) {
    const Real a = splat[2], b = splat[3], c = splat[4], opacity = splat[5];
    // Products of floats are exact as doubles: the determinant of a needle's conic is a small difference of large ones.
    const double determinant = double(a) * double(c) - double(b) * double(b);
    if (!(a > Real(0) && c > Real(0) && determinant > 0 && opacity >= Real(config::kAlphaCutoff))) return false;
    const Real scale = Real(-0.72134752044448170);  // -log2(e) / 2
    shape.x = splat[0];
    shape.y = splat[1];
    shape.a = a * scale;
    shape.shear = b / a;
    shape.rest = Real(determinant / double(a)) * scale;
    shape.log2_opacity = smaller(log_two(opacity), Real(100.0f));  // opacities above 1 are clamped as alphas
    // d^T Q d <= r^2 reaches r sqrt(c / det Q) across and r sqrt(a / det Q) down; a little more, for rounding.
    const Real radius_squared = visible_radius_squared(shape.log2_opacity) + Real(1e-4f);
    shape.half_width = root(radius_squared * Real(double(c) / determinant));
    shape.half_height = root(radius_squared * Real(double(a) / determinant));
    return true;
}

// Alpha as it is blended: 0 where it is skipped or the pixel is finished.
template <class Real>
BEING_HD inline Real drawn_alpha(Real alpha, Real transmittance, Real stop) {
    const bool drawn = (alpha >= Real(config::kAlphaCutoff)) & (transmittance >= stop);
    return select(drawn, smaller(alpha, Real(config::kLargestAlpha)), Real(0.0f));
}

// alpha dL/dalpha of a drawn alpha, which is dL/d(log alpha); 0 where alpha is skipped or at its limit. `alpha` is
// before, `drawn` after drawn_alpha; seen = g . f_i; behind = R_i - g_A T_end.
template <class Real>
BEING_HD inline Real log_alpha_gradient(Real alpha, Real drawn, Real transmittance, Real seen, Real behind) {
    const Real gradient = transmittance * seen - behind / (Real(1.0f) - drawn);
    return select(alpha <= Real(config::kLargestAlpha), drawn * gradient, Real(0.0f));
}

// Sums over a splat's pixels from which its gradient is made; w is log_alpha_gradient.
template <class Real>
struct SplatSums {
    Real w, wx, wy, wxx, wxy, wyy;  // of w, w dx, w dy, w dx^2, w dx dy, w dy^2
    Real red, green, blue, depth;   // of T alpha g
};

// dL/d(x, y, a, b, c, opacity, red, green, blue, depth), and two zeros; log alpha = log o - d^T Q d / 2.
template <class Real>
BEING_HD inline void splat_gradient(const Real* splat, const SplatSums<Real>& sums, Real* gradient) {
    const Real a = splat[2], b = splat[3], c = splat[4], half = Real(-0.5f);
    gradient[0] = fused(a, sums.wx, b * sums.wy);
    gradient[1] = fused(b, sums.wx, c * sums.wy);
    gradient[2] = half * sums.wxx;
    gradient[3] = -sums.wxy;
    gradient[4] = half * sums.wyy;
    gradient[5] = sums.w / splat[5];
    gradient[6] = sums.red;
    gradient[7] = sums.green;
    gradient[8] = sums.blue;
    gradient[9] = sums.depth;
    gradient[10] = gradient[11] = Real(0.0f);
}

}  // namespace being
