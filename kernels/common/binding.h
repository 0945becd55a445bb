// Binding a Gaussian of the rest pose to what carries it: this frame's offsets, then an affine map x -> A x + a, which
// is that of a mesh triangle (the head) or a blend of joints (the torso).
//
//   mean = A p + a,   M = A R(q) diag(s),   covariance = M M^T
//
// The engine's Gaussian (gaussian.h) is packed for drawing: scales are logarithms in base 2 there, and barycentric
// coordinates are part of the position. This one is as an avatar stores it, so that everything in it can be trained.
#pragma once

#include "kernels/common/rotation.h"
#include "kernels/common/triangle_frame.h"

namespace being {

// Also the form of a derivative by one.
template <class Real>
struct RestGaussian {
    Vector3<Real> position;
    Quaternion<Real> rotation;  // of any length but zero
    Vector3<Real> log_scale;    // natural logarithms of metres
    Real opacity_logit;
    Vector3<Real> colour;
};

// The 13 channels in their order.
template <class Real>
struct GaussianOffsets {
    Vector3<Real> position, turn, log_scale;
    Real opacity_logit;
    Vector3<Real> colour;
};

template <class Real>
struct BoundGaussian {
    Vector3<Real> mean;
    Matrix3<Real> factor;
    Real opacity;  // 0..1
    Vector3<Real> colour;
};

template <class Real>
BEING_HD inline RestGaussian<Real> deformed(const RestGaussian<Real>& g, const GaussianOffsets<Real>& offsets) {
    return {g.position + offsets.position, nudge(g.rotation, offsets.turn), g.log_scale + offsets.log_scale,
            g.opacity_logit + offsets.opacity_logit, g.colour + offsets.colour};
}

template <class Real>
BEING_HD inline Vector3<Real> exponential(const Vector3<Real>& v) {
    return {std::exp(v.x), std::exp(v.y), std::exp(v.z)};
}

template <class Real>
BEING_HD inline BoundGaussian<Real> bound_gaussian(const Frame3<Real>& frame, const RestGaussian<Real>& g) {
    const Matrix3<Real> turned = frame.linear * rotation_matrix(g.rotation);
    const Vector3<Real> scale = exponential(g.log_scale);
    return {transform(frame, g.position),
            {turned.x * scale.x, turned.y * scale.y, turned.z * scale.z},
            Real(1.0f) / (Real(1.0f) + std::exp(-g.opacity_logit)),
            g.colour};
}

// A place on a mesh triangle.
template <class Real>
struct SurfacePoint {
    Vector3<Real> corner0, corner1, corner2;
    Matrix2<Real> inverse_rest;
    Vector3<Real> barycentric;
};

// The triangle's frame, moved to the point: sum_k barycentric_k corner_k, whether or not they sum to 1.
template <class Real>
BEING_HD inline Frame3<Real> surface_frame(const SurfacePoint<Real>& p) {
    Frame3<Real> frame = triangle_frame(p.corner0, p.corner1, p.corner2, p.inverse_rest);
    const Vector3<Real>& b = p.barycentric;
    frame.origin = weighted(b.x, p.corner0, weighted(b.y, p.corner1, p.corner2 * b.z));
    return frame;
}

// What carries a torso, as maps of the rest pose.
template <class Real>
struct BodyFrames {
    Frame3<Real> root, global, neck;
};

// Linear blend skinning with the weights of root, global joint and neck joint.
template <class Real>
BEING_HD inline Frame3<Real> blended_frame(const BodyFrames<Real>& body, const Vector3<Real>& weights) {
    const Frame3<Real>&a = body.root, &b = body.global, &c = body.neck;
    const auto mix = [&](const Vector3<Real>& x, const Vector3<Real>& y, const Vector3<Real>& z) {
        return weighted(weights.x, x, weighted(weights.y, y, z * weights.z));
    };
    return {{mix(a.linear.x, b.linear.x, c.linear.x), mix(a.linear.y, b.linear.y, c.linear.y),
             mix(a.linear.z, b.linear.z, c.linear.z)},
            mix(a.origin, b.origin, c.origin)};
}

}  // namespace being
