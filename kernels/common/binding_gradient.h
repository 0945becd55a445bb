// Derivatives of binding.h. A derivative by a record has the record's own form; `g` is that of the loss by the result.
#pragma once

#include "kernels/common/binding.h"
#include "kernels/common/quaternion_gradient.h"

namespace being {

template <class Real>
struct DeformationGradient {
    RestGaussian<Real> gaussian;
    GaussianOffsets<Real> offsets;
};

// Of deformed(gaussian, offsets).
template <class Real>
BEING_HD inline DeformationGradient<Real> deformation_gradient(const RestGaussian<Real>& gaussian,
                                                               const GaussianOffsets<Real>& offsets,
                                                               const RestGaussian<Real>& g) {
    const NudgeGradient<Real> turned = nudge_gradient(gaussian.rotation, offsets.turn, g.rotation);
    return {{g.position, turned.rotation, g.log_scale, g.opacity_logit, g.colour},
            {g.position, turned.turn, g.log_scale, g.opacity_logit, g.colour}};
}

template <class Real>
struct BindingGradient {
    RestGaussian<Real> gaussian;
    Frame3<Real> frame;
};

// Of bound_gaussian(frame, gaussian). With T = A R, M = T diag(s): dL/dT = dL/dM diag(s), dL/dR = A^T dL/dT,
// dL/dA = dL/dT R^T + dL/dmean p^T, and dL/d(log s_k) is the product of the k-th columns of dL/dM and M.
template <class Real>
BEING_HD inline BindingGradient<Real> bound_gaussian_gradient(const Frame3<Real>& frame,
                                                              const RestGaussian<Real>& gaussian,
                                                              const BoundGaussian<Real>& g) {
    const Matrix3<Real> rotation = rotation_matrix(gaussian.rotation), &linear = frame.linear;
    const Vector3<Real> scale = exponential(gaussian.log_scale), &p = gaussian.position;
    const Matrix3<Real> turned{g.factor.x * scale.x, g.factor.y * scale.y, g.factor.z * scale.z};  // dL/dT
    const Real opacity = Real(1.0f) / (Real(1.0f) + std::exp(-gaussian.opacity_logit));
    BindingGradient<Real> result;
    result.gaussian.position = transposed_times(linear, g.mean);
    result.gaussian.rotation = rotation_matrix_gradient(gaussian.rotation, transposed_times(linear, turned));
    result.gaussian.log_scale = {dot(turned.x, linear * rotation.x), dot(turned.y, linear * rotation.y),
                                 dot(turned.z, linear * rotation.z)};
    result.gaussian.opacity_logit = g.opacity * opacity * (Real(1.0f) - opacity);
    result.gaussian.colour = g.colour;
    result.frame.linear = turned * transposed(rotation) + outer(g.mean, p);
    result.frame.origin = g.mean;
    return result;
}

// Of surface_frame(point). With e1, e2 the edges and N = e1 x e2: dL/dN = (g_n - n (n . g_n)) / |N|, and
// dL/de1 = e2 x dL/dN, dL/de2 = dL/dN x e1. A collapsed triangle's normal has no derivative; none is given.
template <class Real>
BEING_HD inline SurfacePoint<Real> surface_frame_gradient(const SurfacePoint<Real>& point, const Frame3<Real>& g) {
    const Vector3<Real> e1 = point.corner1 - point.corner0, e2 = point.corner2 - point.corner0;
    const Vector3<Real> across = cross(e1, e2);
    const Real square = dot(across, across);
    Vector3<Real> normal{};
    if (square > Real(1e-30f)) {
        const Real inverse_length = Real(1.0f) / root(square);
        const Vector3<Real> n = across * inverse_length;
        normal = weighted(-dot(n, g.linear.z), n, g.linear.z) * inverse_length;
    }
    const Matrix2<Real>& rest = point.inverse_rest;
    const Vector3<Real> by_e1 = weighted(rest.a, g.linear.x, weighted(rest.b, g.linear.y, cross(e2, normal)));
    const Vector3<Real> by_e2 = weighted(rest.c, g.linear.x, weighted(rest.d, g.linear.y, cross(normal, e1)));
    const Vector3<Real>& b = point.barycentric;
    SurfacePoint<Real> result{};  // the rest edges are constants
    result.corner0 = weighted(b.x, g.origin, (by_e1 + by_e2) * Real(-1.0f));
    result.corner1 = weighted(b.y, g.origin, by_e1);
    result.corner2 = weighted(b.z, g.origin, by_e2);
    result.barycentric = {dot(g.origin, point.corner0), dot(g.origin, point.corner1), dot(g.origin, point.corner2)};
    return result;
}

template <class Real>
BEING_HD inline Real inner(const Frame3<Real>& a, const Frame3<Real>& b) {
    return dot(a.linear.x, b.linear.x) + dot(a.linear.y, b.linear.y) + dot(a.linear.z, b.linear.z) +
           dot(a.origin, b.origin);
}

template <class Real>
BEING_HD inline Frame3<Real> scaled(const Frame3<Real>& f, const Real& s) {
    return {{f.linear.x * s, f.linear.y * s, f.linear.z * s}, f.origin * s};
}

// Of blended_frame(body, weights) by the weights. By each of the body's frames it is g times that frame's weight.
template <class Real>
BEING_HD inline Vector3<Real> blend_weights_gradient(const BodyFrames<Real>& body, const Frame3<Real>& g) {
    return {inner(g, body.root), inner(g, body.global), inner(g, body.neck)};
}

}  // namespace being
