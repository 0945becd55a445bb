// Rotations: Rodrigues' formula, quaternions (w, x, y, z), and the small rotation that the offset network applies.
#pragma once

#include "kernels/common/linear.h"

namespace being {

// Rotation matrix of an axis-angle vector (radians). The series near zero keeps full precision where sin(a)/a is 0/0.
template <class Real>
BEING_HD inline Matrix3<Real> rodrigues(const Vector3<Real>& r) {
    const Real square = dot(r, r);
    Real s, c;  // sin(a)/a and (1 - cos(a))/a^2
    if (square < Real(1e-8f)) {
        s = Real(1) - square / Real(6);
        c = Real(0.5f) - square / Real(24);
    } else {
        const Real angle = std::sqrt(square);
        s = std::sin(angle) / angle;
        c = (Real(1) - std::cos(angle)) / square;
    }
    return {{Real(1) - c * (r.y * r.y + r.z * r.z), c * r.x * r.y + s * r.z, c * r.x * r.z - s * r.y},
            {c * r.x * r.y - s * r.z, Real(1) - c * (r.x * r.x + r.z * r.z), c * r.y * r.z + s * r.x},
            {c * r.x * r.z + s * r.y, c * r.y * r.z - s * r.x, Real(1) - c * (r.x * r.x + r.y * r.y)}};
}

template <class Real>
struct Quaternion {
    Real w, x, y, z;
};

// q + (0, r) q / 2: the quaternion of rotating by r (radians) after q, to first order; not normalised.
template <class Real>
BEING_HD inline Quaternion<Real> nudge(const Quaternion<Real>& q, const Vector3<Real>& r) {
    const Real x = r.x * Real(0.5f), y = r.y * Real(0.5f), z = r.z * Real(0.5f);
    return {q.w - fused(x, q.x, fused(y, q.y, z * q.z)), fused(x, q.w, fused(y, q.z, q.x)) - z * q.y,
            fused(y, q.w, fused(z, q.x, q.y)) - x * q.z, fused(z, q.w, fused(x, q.y, q.z)) - y * q.x};
}

// Rotation matrix of a quaternion of any length but zero: dividing by q.q normalises without a square root.
template <class Real>
BEING_HD inline Matrix3<Real> rotation_matrix(const Quaternion<Real>& q) {
    const Real length = fused(q.w, q.w, fused(q.x, q.x, fused(q.y, q.y, q.z * q.z)));
    const Real two = Real(2.0f) / length;
    const Real x = q.x * two, y = q.y * two, z = q.z * two;
    const Real xx = q.x * x, yy = q.y * y, zz = q.z * z, xy = q.x * y, xz = q.x * z, yz = q.y * z;
    const Real wx = q.w * x, wy = q.w * y, wz = q.w * z, one = Real(1.0f);
    return {
        {one - (yy + zz), xy + wz, xz - wy}, {xy - wz, one - (xx + zz), yz + wx}, {xz + wy, yz - wx, one - (xx + yy)}};
}

// The third column of rotation_matrix: where the local +Z axis (the outward normal of a surface Gaussian) goes.
template <class Real>
BEING_HD inline Vector3<Real> rotated_z(const Quaternion<Real>& q) {
    const Real length = fused(q.w, q.w, fused(q.x, q.x, fused(q.y, q.y, q.z * q.z)));
    const Real two = Real(2.0f) / length;
    return {two * fused(q.x, q.z, q.w * q.y), two * (q.y * q.z - q.w * q.x),
            Real(1.0f) - two * fused(q.x, q.x, q.y * q.y)};
}

}  // namespace being
