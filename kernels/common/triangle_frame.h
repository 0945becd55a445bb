// The frame that a mesh triangle carries: two tangents that follow the triangle's stretch and shear, and the unit
// normal.
#pragma once

#include "kernels/common/linear.h"

namespace being {

// A 2x2 matrix [[a, b], [c, d]].
template <class Real>
struct Matrix2 {
    Real a, b, c, d;
};

// Rest: E = [[e1.t, e2.t], [e1.b, e2.b]] are the triangle's edges in its rest tangent frame; `inverse_rest` = E^-1
// (row-major, Rig.face_frames). Posed: [t b] = [e1 e2] E^-1, n = e1 x e2 / |e1 x e2|. Returns p -> [t b n] p + corner
// 0. With it a Gaussian at barycentric (.., u, v) needs no barycentric interpolation: u e1 + v e2 = [t b] E (u, v), so
// E (u, v) is added to its local x, y once, at load.
template <class Real>
BEING_HD inline Frame3<Real> triangle_frame(const Vector3<Real>& corner0, const Vector3<Real>& corner1,
                                            const Vector3<Real>& corner2, const Matrix2<Real>& inverse_rest) {
    const Vector3<Real> e1 = corner1 - corner0, e2 = corner2 - corner0;
    const Vector3<Real> t{fused(e1.x, inverse_rest.a, e2.x * inverse_rest.c),
                          fused(e1.y, inverse_rest.a, e2.y * inverse_rest.c),
                          fused(e1.z, inverse_rest.a, e2.z * inverse_rest.c)};
    const Vector3<Real> b{fused(e1.x, inverse_rest.b, e2.x * inverse_rest.d),
                          fused(e1.y, inverse_rest.b, e2.y * inverse_rest.d),
                          fused(e1.z, inverse_rest.b, e2.z * inverse_rest.d)};
    const Vector3<Real> n = cross(e1, e2);
    // A collapsed triangle has no normal; any finite one will do, for nothing on it has an area. The scale keeps the
    // square of a small triangle's area (1e-8 m^2) above the smallest float.
    const Real inverse_length = Real(1.0f) / root(larger(dot(n, n), Real(1e-30f)));
    return {{t, b, n * inverse_length}, corner0};
}

}  // namespace being
