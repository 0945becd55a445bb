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
BEING_HD inline Vector3<Real> operator+(const Vector3<Real>& a, const Vector3<Real>& b) {
    return {a.x + b.x, a.y + b.y, a.z + b.z};
}

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
BEING_HD inline Matrix3<Real> operator+(const Matrix3<Real>& a, const Matrix3<Real>& b) {
    return {a.x + b.x, a.y + b.y, a.z + b.z};
}

template <class Real>
BEING_HD inline Matrix3<Real> transposed(const Matrix3<Real>& m) {
    return {{m.x.x, m.y.x, m.z.x}, {m.x.y, m.y.y, m.z.y}, {m.x.z, m.y.z, m.z.z}};
}

// m^T v
template <class Real>
BEING_HD inline Vector3<Real> transposed_times(const Matrix3<Real>& m, const Vector3<Real>& v) {
    return {dot(m.x, v), dot(m.y, v), dot(m.z, v)};
}

// a^T b
template <class Real>
BEING_HD inline Matrix3<Real> transposed_times(const Matrix3<Real>& a, const Matrix3<Real>& b) {
    return {transposed_times(a, b.x), transposed_times(a, b.y), transposed_times(a, b.z)};
}

// a b^T
template <class Real>
BEING_HD inline Matrix3<Real> outer(const Vector3<Real>& a, const Vector3<Real>& b) {
    return {a * b.x, a * b.y, a * b.z};
}

template <class Real>
BEING_HD inline Vector3<Real> transform(const Frame3<Real>& f, const Vector3<Real>& p) {
    return {fused(f.linear.x.x, p.x, fused(f.linear.y.x, p.y, fused(f.linear.z.x, p.z, f.origin.x))),
            fused(f.linear.x.y, p.x, fused(f.linear.y.y, p.y, fused(f.linear.z.y, p.z, f.origin.y))),
            fused(f.linear.x.z, p.x, fused(f.linear.y.z, p.y, fused(f.linear.z.z, p.z, f.origin.z)))};
}

// Matrices as PyTorch has them: rows [3, 3] or [3, 4], one after the other.
template <class Real>
BEING_HD inline Matrix3<Real> matrix_of_rows(const Real* p) {
    return {{p[0], p[3], p[6]}, {p[1], p[4], p[7]}, {p[2], p[5], p[8]}};
}

template <class Real>
BEING_HD inline Frame3<Real> frame_of_rows(const Real* p) {
    return {{{p[0], p[4], p[8]}, {p[1], p[5], p[9]}, {p[2], p[6], p[10]}}, {p[3], p[7], p[11]}};
}

template <class Real>
BEING_HD inline void write_rows(const Matrix3<Real>& m, Real* p) {
    p[0] = m.x.x, p[1] = m.y.x, p[2] = m.z.x;
    p[3] = m.x.y, p[4] = m.y.y, p[5] = m.z.y;
    p[6] = m.x.z, p[7] = m.y.z, p[8] = m.z.z;
}

template <class Real>
BEING_HD inline void write_rows(const Frame3<Real>& f, Real* p) {
    p[0] = f.linear.x.x, p[1] = f.linear.y.x, p[2] = f.linear.z.x, p[3] = f.origin.x;
    p[4] = f.linear.x.y, p[5] = f.linear.y.y, p[6] = f.linear.z.y, p[7] = f.origin.y;
    p[8] = f.linear.x.z, p[9] = f.linear.y.z, p[10] = f.linear.z.z, p[11] = f.origin.z;
}

// a after b
template <class Real>
BEING_HD inline Frame3<Real> operator*(const Frame3<Real>& a, const Frame3<Real>& b) {
    return {a.linear * b.linear, transform(a, b.origin)};
}

}  // namespace being
