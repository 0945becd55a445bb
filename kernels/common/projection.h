// From a Gaussian in camera space to a splat: elliptical weighted average projection (Zwicker et al., "EWA volume
// splatting", 2001, eq. 31), the clamp and the 0.3 px dilation of 3D Gaussian Splatting (Kerbl et al. 2023), and the
// opacity compensation of Mip-Splatting (Yu et al. 2024, eq. 9).
#pragma once

#include "kernels/common/linear.h"
#include "kernels/config.h"

namespace being {

// Pinhole camera. Nothing here needs the pose: frames are brought to camera space before Gaussians meet them.
struct Intrinsics {
    float fx, fy, cx, cy;
    float limit_x, limit_y;  // bounds of |x/z| and |y/z| in the Jacobian: 1.3 times half the picture
};

BEING_HD inline Intrinsics make_intrinsics(float fx, float fy, float cx, float cy, int width, int height) {
    return {fx,
            fy,
            cx,
            cy,
            config::kJacobianMargin * 0.5f * float(width) / fx,
            config::kJacobianMargin * 0.5f * float(height) / fy};
}

// A symmetric 2x2 matrix [[a, b], [b, c]] and its determinant, which is kept because computing it as ac - b^2 from
// floats loses a thin splat (a hair) to cancellation.
template <class Real>
struct Symmetric2 {
    Real a, b, c, determinant;
};

// The Gaussian's axes on the screen, in px: the rows u, v of E = J M, column by column. M's columns are its scaled axes
// in camera space, J the camera's derivative at `mean`, clamped to the camera's limits.
template <class Real>
struct ScreenAxes {
    Vector3<Real> u, v;
};

template <class Real, class Camera>
BEING_HD inline ScreenAxes<Real> screen_axes(const Matrix3<Real>& m, const Vector3<Real>& mean, const Camera& k) {
    const Real inverse_z = Real(1.0f) / mean.z, jx = inverse_z * Real(k.fx), jy = inverse_z * Real(k.fy);
    const Real tx = clamp(mean.x * inverse_z, Real(-k.limit_x), Real(k.limit_x));
    const Real ty = clamp(mean.y * inverse_z, Real(-k.limit_y), Real(k.limit_y));
    return {{jx * (m.x.x - tx * m.x.z), jx * (m.y.x - tx * m.y.z), jx * (m.z.x - tx * m.z.z)},
            {jy * (m.x.y - ty * m.x.z), jy * (m.y.y - ty * m.y.z), jy * (m.z.y - ty * m.z.z)}};
}

// Covariance on the screen, E E^T, in px^2.
template <class Real>
BEING_HD inline Symmetric2<Real> axes_covariance(const ScreenAxes<Real>& e) {
    const Vector3<Real> minors = cross(e.u, e.v);
    // Cauchy-Binet: det(E E^T) is the sum of E's squared minors.
    return {dot(e.u, e.u), dot(e.u, e.v), dot(e.v, e.v), dot(minors, minors)};
}

template <class Real>
BEING_HD inline Symmetric2<Real> project_covariance(const Matrix3<Real>& m, const Vector3<Real>& mean,
                                                    const Intrinsics& k) {
    return axes_covariance(screen_axes(m, mean, k));
}

template <class Real>
BEING_HD inline Symmetric2<Real> dilate(const Symmetric2<Real>& s, Real pixels) {
    return {s.a + pixels, s.b, s.c + pixels, fused(pixels, s.a + s.c + pixels, s.determinant)};
}

// How much the dilation must dim a splat so that it keeps its light: sqrt(det before / det after).
template <class Real>
BEING_HD inline Real dilation_compensation(const Symmetric2<Real>& before, const Symmetric2<Real>& after) {
    return root(before.determinant / after.determinant);
}

// A splat's exponent in base 2: alpha(d) = 2^(a dx^2 + b dx dy + c dy^2 + log2 opacity), all of a, c < 0.
template <class Real>
struct Conic {
    Real a, b, c;
};

template <class Real>
BEING_HD inline Conic<Real> make_conic(const Symmetric2<Real>& s) {
    const Real scale = Real(-1.44269504f) / s.determinant;  // -log2(e)
    return {Real(0.5f) * s.c * scale, -s.b * scale, Real(0.5f) * s.a * scale};
}

// Mahalanobis radius squared at which alpha falls to the cut-off: 2 ln(opacity / cut-off); negative: never visible.
template <class Real>
BEING_HD inline Real visible_radius_squared(Real log2_opacity) {
    return (log2_opacity - Real(config::kLog2AlphaCutoff)) * Real(1.38629436f);  // 2 ln 2
}

// Opacity of a surface Gaussian as its normal turns away from the camera, which is the origin of camera space.
template <class Real>
BEING_HD inline Real facing_fade(const Vector3<Real>& normal, const Vector3<Real>& mean) {
    const Real lengths = dot(normal, normal) * dot(mean, mean);
    const Real cosine = -dot(normal, mean) / root(larger(lengths, Real(1e-30f)));
    return clamp((cosine + Real(config::kFadeStart)) * Real(1.0f / config::kFadeWidth), Real(0.0f), Real(1.0f));
}

template <class Real>
BEING_HD inline Real logistic(Real logit) {
    return Real(1.0f) / (Real(1.0f) + power_of_two(logit * Real(-1.44269504f)));
}

}  // namespace being
