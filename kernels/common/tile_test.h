// Whether any pixel centre's rectangle is reached by a splat: exact for the ellipse, not for its bounding box (the idea
// of StopThePop, Radl et al. 2024, and Speedy-Splat, Hanson et al. 2025; the construction below is ours).
#pragma once

#include "kernels/common/projection.h"

namespace being {

// Largest exponent (see Conic, without opacity) over the rectangle [left, left + width] x [top, top + height], relative
// to the splat's centre. The exponent is concave, so where the centre lies outside, the maximum is on the edge that is
// nearest in x or the one nearest in y: on the first it is at y = slope_y * x clamped to the edge, likewise for the
// other. slope_y = -b / 2c, slope_x = -b / 2a.
template <class Real>
BEING_HD inline Real largest_exponent(const Conic<Real>& conic, Real slope_x, Real slope_y, Real left, Real top,
                                      Real width, Real height) {
    const Real right = left + width, bottom = top + height, zero = Real(0.0f);
    const Real near_x = smaller(larger(zero, left), right), near_y = smaller(larger(zero, top), bottom);
    const Real y = smaller(larger(slope_y * near_x, top), bottom), x = smaller(larger(slope_x * near_y, left), right);
    const Real on_x = fused(near_x, fused(conic.a, near_x, conic.b * y), conic.c * y * y);
    const Real on_y = fused(x, fused(conic.a, x, conic.b * near_y), conic.c * near_y * near_y);
    return larger(on_x, on_y);
}

}  // namespace being
