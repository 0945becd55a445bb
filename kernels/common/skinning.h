// The joint chain global - neck - (jaw, left eye, right eye), and linear blend skinning. Loper et al., "SMPL: a skinned
// multi-person linear model", 2015, equations 3, 4 and 9; Li et al., "Learning a model of facial shape and expression
// from 4D scans", 2017, section 4.
#pragma once

#include "kernels/common/linear.h"
#include "kernels/config.h"

namespace being {

// G_j: the posed frame of joint j, from the joints' rest positions and their own rotations.
template <class Real>
BEING_HD inline Frame3<Real> joint_frame(const Vector3<Real>* position, const Matrix3<Real>* rotation, int j) {
    Frame3<Real> frame{rotation[0], position[0]};
    if (j >= 1) frame = frame * Frame3<Real>{rotation[1], position[1] - position[0]};
    if (j >= 2) frame = frame * Frame3<Real>{rotation[j], position[j] - position[1]};
    return frame;
}

// A_j: rest pose to posed, for a joint whose posed frame is G_j and whose rest position is given.
template <class Real>
BEING_HD inline Frame3<Real> rest_to_posed(const Frame3<Real>& frame, const Vector3<Real>& position) {
    return {frame.linear, frame.origin - frame.linear * position};
}

// sum_j w_j A_j, transforms row by row [kJoints, 3, 4].
template <class Real>
BEING_HD inline Frame3<Real> blend_joints(const Real* weight, const Real* transforms) {
    Real rows[12] = {};
#if defined(__CUDA_ARCH__)
#pragma unroll 1  // or every load of every joint comes first, and registers run out
#endif
    for (int j = 0; j < config::kJoints; ++j)
        for (int i = 0; i < 12; ++i) rows[i] = fused(weight[j], transforms[12 * j + i], rows[i]);
    return frame_of_rows(rows);
}

}  // namespace being
