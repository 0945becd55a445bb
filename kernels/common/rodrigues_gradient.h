// The derivative of Rodrigues' formula, rotation.h.
#pragma once

#include "kernels/common/rotation.h"

namespace being {

// dL/dr of an axis-angle vector r (radians), given G = dL/dR of R = rodrigues(r).
//
// With q = r.r, s = sin(a)/a, c = (1 - cos(a))/a^2 and K the cross product with r, R = I + s K + c (r r^T - q I). So
//   dL/dr = s w + 2 s' (w.r) r + 2 c' (r^T G r - q tr G) r + c ((G + G^T) r - 2 tr(G) r),
// w the vector of G - G^T, s' = ds/dq = (cos(a) - s) / 2q, c' = dc/dq = (s - 2c) / 2q. Near zero what cancels in s' and
// c' is multiplied by as many powers of a; c is taken from the sine of half the angle, in which nothing cancels.
template <class Real>
BEING_HD inline Vector3<Real> rodrigues_gradient(const Vector3<Real>& r, const Matrix3<Real>& g) {
    const Real square = dot(r, r);
    Real s, c, s_slope, c_slope;
    if (square < Real(1e-8f)) {
        s = Real(1) - square / Real(6);
        c = Real(0.5f) - square / Real(24);
        s_slope = Real(-1) / Real(6);
        c_slope = Real(-1) / Real(24);
    } else {
        const Real angle = std::sqrt(square), half_sine = std::sin(angle * Real(0.5f));
        const Real versine = Real(2) * half_sine * half_sine;  // 1 - cos(a)
        s = std::sin(angle) / angle;
        c = versine / square;
        s_slope = (Real(1) - versine - s) / (Real(2) * square);
        c_slope = (s - Real(2) * c) / (Real(2) * square);
    }
    const Vector3<Real> w{g.y.z - g.z.y, g.z.x - g.x.z, g.x.y - g.y.x};
    const Real trace = g.x.x + g.y.y + g.z.z;
    const Vector3<Real> gr = g * r;
    const Real along = Real(2) * (s_slope * dot(w, r) + c_slope * (dot(r, gr) - square * trace) - c * trace);
    return w * s + r * along + (gr + transposed_times(g, r)) * c;
}

}  // namespace being
