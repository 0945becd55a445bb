// The operation `skin`: from FLAME parameters of B frames to posed vertices, and back. Shapes are row-major; V
// vertices.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/common/rotation.h"
#include "kernels/config.h"

#if defined(__CUDACC__) || defined(BEING_CUDA)
#include <cuda_runtime_api.h>
#endif

namespace being::training {

constexpr int kExpressions = 100, kEyelids = 2;

// The condition holds every coefficient of the bases: expression, pose features of jaw and eyes, eyelids, those of the
// neck. The pose basis has the features in the order of the joints, neck first.
constexpr int kEyelidsAt = kExpressions + config::kPoseFeatures - 9, kNeckAt = kEyelidsAt + kEyelids;
static_assert(kNeckAt + 9 == config::kCondition);

BEING_HD inline int condition_of_feature(int feature) {
    return feature < 9 ? kNeckAt + feature : kExpressions + feature - 9;
}
BEING_HD inline int feature_of_condition(int i) {
    return i < kNeckAt ? i - kExpressions + 9 : i - kNeckAt;
}

// Element i, row by row, of a matrix that is held by columns.
template <class Real>
BEING_HD inline Real& element(Matrix3<Real>& m, int i) {
    return (&m.x.x)[i % 3 * 3 + i / 3];
}

// Element i of the condition; rotations of the five joints.
template <class Real>
BEING_HD inline Real condition_element(int i, const Real* expression, const Real* eyelids, Matrix3<Real>* rotation) {
    if (i < kExpressions) return expression[i];
    if (i >= kEyelidsAt && i < kNeckAt) return eyelids[i - kEyelidsAt];
    const int feature = feature_of_condition(i), k = feature % 9;
    return element(rotation[1 + feature / 9], k) - Real(k % 4 == 0 ? 1 : 0);
}

template <class Real>
struct SkinRig {
    const Real* rest;              // [V, 3] metres: Rig.template
    const Real* expression_basis;  // [V, 3, 100]
    const Real* eyelid_basis;      // [V, 3, 2]
    const Real* pose_basis;        // [V, 3, 36]
    const Real* weights;           // [V, 5]
    const Real* joint_rest;        // [5, 3]
    const Real* joint_expression;  // [5, 3, 100]
    int vertices;
};

template <class Real>
struct SkinMotion {
    const Real* expression;   // [B, 100]
    const Real* axis_angles;  // [B, 5, 3] radians
    const Real* eyelids;      // [B, 2]
    const Real* translation;  // [B, 3] metres
    int frames;
};

template <class Real>
struct SkinForward {
    SkinRig<Real> rig;
    SkinMotion<Real> motion;
    Real* vertices;    // [B, V, 3]
    Real* shaped;      // [B, V, 3] before skinning; the backward pass reads it
    Real* transforms;  // [B, 5, 3, 4]
    Real* condition;   // [B, 138]
};

// Vertices are taken in blocks; each leaves its share of what is summed over all vertices, per frame: dL/dcondition,
// dL/dtransforms, dL/dtranslation. A second step adds the blocks up in their order, so sums are the same in every run.
constexpr int kSkinBlock = 32;
constexpr int kSumTransforms = config::kCondition, kSumTranslation = kSumTransforms + 12 * config::kJoints;
constexpr int kSkinSums = kSumTranslation + 3;

template <class Real>
struct SkinBackward {
    SkinRig<Real> rig;
    SkinMotion<Real> motion;
    const Real* shaped;
    const Real* transforms;
    const Real* condition;
    // dL/d of the outputs; null: 0
    const Real* d_vertices;
    const Real* d_transforms;
    const Real* d_condition;
    Real* sums;  // [blocks, B, kSkinSums] scratch, blocks of kSkinBlock vertices
    Real* d_expression;
    Real* d_axis_angles;
    Real* d_eyelids;
    Real* d_translation;
    // null: not wanted
    Real* d_rest;
    Real* d_expression_basis;
    Real* d_eyelid_basis;

    // Without dL/dvertices there is nothing to sum.
    BEING_HD int blocks() const { return d_vertices ? (rig.vertices + kSkinBlock - 1) / kSkinBlock : 0; }
};

template <class Real>
void run_skin_forward(const SkinForward<Real>& stage);
template <class Real>
void run_skin_backward(const SkinBackward<Real>& stage);

#if defined(__CUDACC__) || defined(BEING_CUDA)
// The expression and pose bases must lie at multiples of 16 bytes.
void launch_skin_forward(const SkinForward<float>& stage, cudaStream_t stream);
void launch_skin_backward(const SkinBackward<float>& stage, cudaStream_t stream);
#endif

}  // namespace being::training
