// The derivative of splat.h. A derivative by a record has the record's own form; `g` is that of the loss by the result.
#pragma once

#include "kernels/common/splat.h"

namespace being {

// Of project_covariance after dilation and inversion, by the axes: with Q the inverse of S and G = dL/dQ,
// dL/dS = -Q G Q =: H, and of S = E E^T, dL/dE = 2 H E. Q's off-diagonal number stands for two of G.
template <class Real>
BEING_HD inline Symmetric2<Real> inverse_gradient(const Splat<Real>& splat, const Splat<Real>& g) {
    const Real a = splat.a, b = splat.b, c = splat.c, half = Real(0.5f) * g.b;
    const Real xx = fused(a, g.a, b * half), xy = fused(a, half, b * g.c);  // Q G
    const Real yx = fused(b, g.a, c * half), yy = fused(b, half, c * g.c);
    return {-fused(xx, a, xy * b), -fused(xx, b, xy * c), -fused(yx, b, yy * c), Real(0.0f)};
}

template <class Real>
struct FadeGradient {
    Vector3<Real> normal, view;
};

// Of facing_fade(normal, view): with L = |n| |m| and the cosine c = -n.m / L, dc/dn = -m / L - c n / n.n, and with n
// and m changed about.
template <class Real>
BEING_HD inline FadeGradient<Real> facing_fade_gradient(const Vector3<Real>& n, const Vector3<Real>& m, Real g) {
    const Real nn = dot(n, n), mm = dot(m, m), inverse = Real(1.0f) / root(larger(nn * mm, Real(1e-30f)));
    const Real cosine = -dot(n, m) * inverse;
    const Real fade = (cosine + Real(config::kFadeStart)) * Real(1.0f / config::kFadeWidth);
    if (!(fade >= Real(0.0f) && fade <= Real(1.0f))) return {};
    const Real slope = g * Real(1.0f / config::kFadeWidth), across = -slope * inverse, along = -slope * cosine;
    return {weighted(across, m, n * (along / larger(nn, Real(1e-30f)))),
            weighted(across, n, m * (along / larger(mm, Real(1e-30f))))};
}

template <class Real>
BEING_HD inline Real clamp_gradient(Real x, Real low, Real high, Real g) {
    return select(x >= low && x <= high, g, Real(0.0f));
}

template <class Real>
struct ProjectionGradient {
    BoundGaussian<Real> gaussian;
    Pinhole<Real> camera;
};

// Of project(gaussian, facing, antialiased, camera).
template <class Real>
BEING_HD inline ProjectionGradient<Real> project_gradient(const BoundGaussian<Real>& gaussian, bool facing,
                                                          bool antialiased, const Pinhole<Real>& camera,
                                                          const Splat<Real>& g) {
    const Matrix3<Real>& rotation = camera.pose.linear;
    const Vector3<Real> mean = transform(camera.pose, gaussian.mean);
    ProjectionGradient<Real> result{};
    if (!(mean.z >= Real(config::kNear))) return result;
    const Real zero = Real(0.0f), one = Real(1.0f), two = Real(2.0f);
    const Matrix3<Real> m = rotation * gaussian.factor;
    const ScreenAxes<Real> e = screen_axes(m, mean, camera);
    const Symmetric2<Real> before = axes_covariance(e), after = dilate(before, Real(config::kDilation));

    // Opacity is a product: by each factor, the others.
    const Vector3<Real> view = view_of(camera, gaussian.mean);
    const Real fade = facing ? facing_fade(gaussian.factor.z, view) : one;
    const Real compensation = antialiased ? dilation_compensation(before, after) : one;
    result.gaussian.opacity = g.opacity * fade * compensation;
    FadeGradient<Real> faded{};
    if (facing) faded = facing_fade_gradient(gaussian.factor.z, view, g.opacity * gaussian.opacity * compensation);

    // The conic, to the axes.
    const Real inverse_determinant = one / after.determinant;
    Splat<Real> conic{};
    conic.a = after.c * inverse_determinant;
    conic.b = -after.b * inverse_determinant;
    conic.c = after.a * inverse_determinant;
    Symmetric2<Real> h = inverse_gradient(conic, g);
    Vector3<Real> minors{};
    if (antialiased) {
        // k = sqrt(p / q), p = |u x v|^2, q = p + pixels (S_xx + S_yy + pixels):
        // dk/dp = (q - p) / (2 q sqrt(p q)), and by q alone -k / 2q.
        const Real by_compensation = g.opacity * gaussian.opacity * fade;
        const Real scale = by_compensation * inverse_determinant;
        const Real difference = Real(config::kDilation) * (before.a + before.c + Real(config::kDilation));
        minors =
            cross(e.u, e.v) * (scale * difference / root(larger(before.determinant * after.determinant, Real(1e-30f))));
        const Real trace = Real(-0.5f) * Real(config::kDilation) * scale * compensation;
        h.a += trace;
        h.c += trace;
    }
    const Vector3<Real> u = weighted(two * h.a, e.u, weighted(two * h.b, e.v, cross(e.v, minors)));
    const Vector3<Real> v = weighted(two * h.b, e.u, weighted(two * h.c, e.v, cross(minors, e.u)));

    // The axes: u = f_x / z (row 0 - t_x row 2) of M in camera space, t_x = x / z clamped; and the mean.
    const Real inverse_z = one / mean.z, jx = camera.fx * inverse_z, jy = camera.fy * inverse_z;
    const Real x = mean.x * inverse_z, y = mean.y * inverse_z;
    const Real tx = clamp(x, -camera.limit_x, camera.limit_x), ty = clamp(y, -camera.limit_y, camera.limit_y);
    const Vector3<Real> row0 = u * jx, row1 = v * jy, depths{m.x.z, m.y.z, m.z.z};
    const Vector3<Real> row2 = weighted(-tx, row0, row1 * -ty);
    const Real by_x = clamp_gradient(x, -camera.limit_x, camera.limit_x, -dot(row0, depths)) + g.x * camera.fx;
    const Real by_y = clamp_gradient(y, -camera.limit_y, camera.limit_y, -dot(row1, depths)) + g.y * camera.fy;
    const Real along_u = dot(u, e.u), along_v = dot(v, e.v);
    const Vector3<Real> point{by_x * inverse_z, by_y * inverse_z,
                              g.depth - inverse_z * (along_u + along_v + by_x * x + by_y * y)};
    result.camera.fx = along_u / camera.fx + g.x * x;
    result.camera.fy = along_v / camera.fy + g.y * y;
    result.camera.cx = g.x;
    result.camera.cy = g.y;

    // Camera space to world space; the view is mean + R^T t.
    const Matrix3<Real> axes{{row0.x, row1.x, row2.x}, {row0.y, row1.y, row2.y}, {row0.z, row1.z, row2.z}};
    result.gaussian.mean = transposed_times(rotation, point) + faded.view;
    result.gaussian.factor = transposed_times(rotation, axes);
    result.gaussian.factor.z = result.gaussian.factor.z + faded.normal;
    result.camera.pose.linear =
        axes * transposed(gaussian.factor) + outer(point, gaussian.mean) + outer(camera.pose.origin, faded.view);
    result.camera.pose.origin = point + rotation * faded.view;
    result.gaussian.colour = {clamp_gradient(gaussian.colour.x, zero, one, g.colour.x),
                              clamp_gradient(gaussian.colour.y, zero, one, g.colour.y),
                              clamp_gradient(gaussian.colour.z, zero, one, g.colour.z)};
    return result;
}

}  // namespace being
