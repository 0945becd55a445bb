// The derivative of the joint chain, skinning.h.
#pragma once

#include "kernels/common/skinning.h"

namespace being {

// dL/dG_j given dL/dA_j, of A_j = rest_to_posed(G_j, J_j); adds what reaches J_j.
template <class Real>
BEING_HD inline Frame3<Real> rest_to_posed_gradient(const Matrix3<Real>& linear, const Vector3<Real>& position,
                                                    const Frame3<Real>& slope, Vector3<Real>& d_position) {
    d_position = d_position - transposed_times(linear, slope.origin);
    return {slope.linear + outer(slope.origin * Real(-1), position), slope.origin};
}

// One link, G_j = G_p [R_j | J_j - J_p]: given dL/dG_j, adds what reaches R_j, G_p, J_j and J_p.
template <class Real>
BEING_HD inline void link_gradient(const Matrix3<Real>& parent_linear, const Matrix3<Real>& rotation,
                                   const Vector3<Real>& offset, const Frame3<Real>& slope, Matrix3<Real>& d_rotation,
                                   Frame3<Real>& d_parent, Vector3<Real>& d_position,
                                   Vector3<Real>& d_parent_position) {
    const Vector3<Real> carried = transposed_times(parent_linear, slope.origin);
    d_rotation = d_rotation + transposed_times(parent_linear, slope.linear);
    d_parent.linear = d_parent.linear + slope.linear * transposed(rotation) + outer(slope.origin, offset);
    d_parent.origin = d_parent.origin + slope.origin;
    d_position = d_position + carried;
    d_parent_position = d_parent_position - carried;
}

// Given dL/dA_j row by row [kJoints, 3, 4], adds dL/dR_j to d_rotation and writes dL/dJ_j.
template <class Real>
BEING_HD inline void joint_chain_gradient(const Vector3<Real>* position, const Matrix3<Real>* rotation,
                                          const Real* d_transforms, Matrix3<Real>* d_rotation,
                                          Vector3<Real>* d_position) {
    const Matrix3<Real> neck = rotation[0] * rotation[1];
    for (int j = 0; j < config::kJoints; ++j) d_position[j] = {Real(0), Real(0), Real(0)};
    Frame3<Real> d_root = rest_to_posed_gradient(rotation[0], position[0], frame_of_rows(d_transforms), d_position[0]);
    Frame3<Real> d_neck = rest_to_posed_gradient(neck, position[1], frame_of_rows(d_transforms + 12), d_position[1]);
    for (int j = 2; j < config::kJoints; ++j) {
        const Frame3<Real> slope = rest_to_posed_gradient(neck * rotation[j], position[j],
                                                          frame_of_rows(d_transforms + 12 * j), d_position[j]);
        link_gradient(neck, rotation[j], position[j] - position[1], slope, d_rotation[j], d_neck, d_position[j],
                      d_position[1]);
    }
    link_gradient(rotation[0], rotation[1], position[1] - position[0], d_neck, d_rotation[1], d_root, d_position[1],
                  d_position[0]);
    d_rotation[0] = d_rotation[0] + d_root.linear;
    d_position[0] = d_position[0] + d_root.origin;
}

}  // namespace being
