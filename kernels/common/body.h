// How a body answers the motion of its head: the root of a torso is an affine map of the rest pose,
// A_root = I + sum_i f_i G_i, where the features f are the numbers of translation, global rotation and neck rotation,
// each kept within a range and counted from the middle of it (`body_root` in being_rt/reference.py).
#pragma once

#include "kernels/common/real.h"

namespace being {

constexpr int kMotions = 9;

// NaN stays NaN.
template <class Real>
BEING_HD inline Real motion_feature(Real value, Real low, Real high) {
    const Real within = value < low ? low : value > high ? high : value;
    return within - (low + high) / Real(2.0f);
}

// In training G_i = u_i (H_i S): what is trained, H_i [3][4], has one unit throughout, which factors u_i and the map
// S [4][4] of homogeneous places turn into that of G_i. So sum_i f_i G_i = M S, M = sum_i f_i u_i H_i, of which these
// are a row's four numbers times a column of S, and the derivative by one of them.
template <class Real>
BEING_HD inline Real times_column(const Real* row, const Real* about, int column) {
    Real sum = row[0] * about[column];
    for (int k = 1; k < 4; ++k) sum = fused(row[k], about[4 * k + column], sum);
    return sum;
}

template <class Real>
BEING_HD inline Real times_column_gradient(const Real* d_row, const Real* about, int k) {
    Real sum = d_row[0] * about[4 * k];
    for (int column = 1; column < 4; ++column) sum = fused(d_row[column], about[4 * k + column], sum);
    return sum;
}

}  // namespace being
