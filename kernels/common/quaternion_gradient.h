// Derivatives of what quaternions do in rotation.h.
#pragma once

#include "kernels/common/rotation.h"

namespace being {

// dL/dq, given G = dL/dR of R = rotation_matrix(q).
//
// With q = (w, v) of length 1, R = I + 2 w [v] + 2 [v]^2 and [v]^2 = v v^T - (v.v) I, so that
//   dL/dw = 2 v.a,   dL/dv = 2 w a + 2 (G + G^T) v - 4 tr(G) v,   a the vector of G - G^T.
// R does not change with the length of q: for any length that is divided by |q|^2, and its part along q is taken away.
template <class Real>
BEING_HD inline Quaternion<Real> rotation_matrix_gradient(const Quaternion<Real>& q, const Matrix3<Real>& g) {
    const Vector3<Real> v{q.x, q.y, q.z}, a{g.y.z - g.z.y, g.z.x - g.x.z, g.x.y - g.y.x};
    const Real inverse_square = Real(1.0f) / fused(q.w, q.w, dot(v, v)), two = Real(2.0f) * inverse_square;
    const Real trace = g.x.x + g.y.y + g.z.z;
    const Real w = two * dot(v, a);
    const Vector3<Real> turned = (g * v + transposed_times(g, v) + weighted(q.w, a, v * (Real(-2.0f) * trace))) * two;
    const Real along = fused(q.w, w, dot(v, turned)) * inverse_square;
    return {w - q.w * along, turned.x - q.x * along, turned.y - q.y * along, turned.z - q.z * along};
}

template <class Real>
struct NudgeGradient {
    Quaternion<Real> rotation;
    Vector3<Real> turn;
};

// dL/dq and dL/dr, given g = dL/dq' of q' = nudge(q, r) = q + (0, r) q / 2: multiplying by (0, r) from the left is
// antisymmetric, and the derivative by r is half the vector part of g times the conjugate of q.
template <class Real>
BEING_HD inline NudgeGradient<Real> nudge_gradient(const Quaternion<Real>& q, const Vector3<Real>& r,
                                                   const Quaternion<Real>& g) {
    const Vector3<Real> v{q.x, q.y, q.z}, gv{g.x, g.y, g.z};
    const Vector3<Real> product = weighted(q.w, gv, v * -g.w) - cross(gv, v);
    return {nudge(g, r * Real(-1.0f)), product * Real(0.5f)};
}

}  // namespace being
