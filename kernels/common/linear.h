// 3-vectors and 3x3 matrices, as plain members that a compiler keeps in registers.
#pragma once

#include "kernels/common/real.h"

namespace being {

template <class Real>
struct Vector3 {
    Real x, y, z;
};

// Columns x, y, z.
template <class Real>
struct Matrix3 {
    Vector3<Real> x, y, z;
};

// p -> linear * p + origin
template <class Real>
struct Frame3 {
    Matrix3<Real> linear;
    Vector3<Real> origin;
};

template <class Real>
BEING_HD inline Vector3<Real> operator-(const Vector3<Real>& a, const Vector3<Real>& b) {
    return {a.x - b.x, a.y - b.y, a.z - b.z};
}

template <class Real>
BEING_HD inline Vector3<Real> operator*(const Vector3<Real>& a, const Real& s) {
    return {a.x * s, a.y * s, a.z * s};
}

// w v + sum
template <class Real>
BEING_HD inline Vector3<Real> weighted(const Real& w, const Vector3<Real>& v, const Vector3<Real>& sum) {
    return {fused(w, v.x, sum.x), fused(w, v.y, sum.y), fused(w, v.z, sum.z)};
}

template <class Real>
BEING_HD inline Real dot(const Vector3<Real>& a, const Vector3<Real>& b) {
    return fused(a.x, b.x, fused(a.y, b.y, a.z * b.z));
}

template <class Real>
BEING_HD inline Vector3<Real> cross(const Vector3<Real>& a, const Vector3<Real>& b) {
    return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}

template <class Real>
BEING_HD inline Vector3<Real> operator*(const Matrix3<Real>& m, const Vector3<Real>& v) {
    return {fused(m.x.x, v.x, fused(m.y.x, v.y, m.z.x * v.z)), fused(m.x.y, v.x, fused(m.y.y, v.y, m.z.y * v.z)),
            fused(m.x.z, v.x, fused(m.y.z, v.y, m.z.z * v.z))};
}

template <class Real>
BEING_HD inline Matrix3<Real> operator*(const Matrix3<Real>& a, const Matrix3<Real>& b) {
    return {a * b.x, a * b.y, a * b.z};
}

template <class Real>
BEING_HD inline Vector3<Real> transform(const Frame3<Real>& f, const Vector3<Real>& p) {
    return {fused(f.linear.x.x, p.x, fused(f.linear.y.x, p.y, fused(f.linear.z.x, p.z, f.origin.x))),
            fused(f.linear.x.y, p.x, fused(f.linear.y.y, p.y, fused(f.linear.z.y, p.z, f.origin.y))),
            fused(f.linear.x.z, p.x, fused(f.linear.y.z, p.y, fused(f.linear.z.z, p.z, f.origin.z)))};
}

// a after b
template <class Real>
BEING_HD inline Frame3<Real> operator*(const Frame3<Real>& a, const Frame3<Real>& b) {
    return {a.linear * b.linear, transform(a, b.origin)};
}

}  // namespace being
