// The operation `skin` on the CPU: frames in parallel for the pose, blocks of vertices for everything else.
#include "kernels/training/skin.h"

#include <algorithm>

#include "csrc/training/parallel.h"
#include "kernels/common/rodrigues_gradient.h"
#include "kernels/common/skinning_gradient.h"

namespace being::training {
namespace {

constexpr int kJoints = config::kJoints, kCondition = config::kCondition;

template <class Real>
Vector3<Real> vector_at(const Real* p) {
    return {p[0], p[1], p[2]};
}
template <class Real>
void write(const Vector3<Real>& v, Real* p) {
    p[0] = v.x, p[1] = v.y, p[2] = v.z;
}

// Several sums at once, which the compiler keeps in one vector.
template <class Real>
Real product(const Real* a, const Real* b, int count) {
    constexpr int kSums = 8;
    Real sum[kSums] = {}, rest = 0;
    int i = 0;
    for (; i + kSums <= count; i += kSums)
        for (int k = 0; k < kSums; ++k) sum[k] += a[i + k] * b[i + k];
    for (; i < count; ++i) rest += a[i] * b[i];
    for (int k = 0; k < kSums; ++k) rest += sum[k];
    return rest;
}

// The four runs of columns of a row (vertex, axis) of the bases: visit(columns, where their coefficients lie in the
// condition, how many).
template <class Real, class Visit>
void for_each_run(const SkinRig<Real>& rig, size_t row, const Visit& visit) {
    const Real* pose = rig.pose_basis + row * config::kPoseFeatures;
    visit(rig.expression_basis + row * kExpressions, 0, kExpressions);
    visit(pose + 9, kExpressions, config::kPoseFeatures - 9);
    visit(rig.eyelid_basis + row * kEyelids, kEyelidsAt, kEyelids);
    visit(pose, kNeckAt, 9);
}

template <class Real>
struct Joints {
    Vector3<Real> position[kJoints];
    Matrix3<Real> rotation[kJoints];

    Joints(const SkinRig<Real>& rig, const SkinMotion<Real>& motion, int frame) {
        const Real* expression = motion.expression + size_t(frame) * kExpressions;
        for (int j = 0; j < kJoints; ++j) {
            Real at[3];
            for (int a = 0; a < 3; ++a)
                at[a] = rig.joint_rest[3 * j + a] +
                        product(rig.joint_expression + size_t(3 * j + a) * kExpressions, expression, kExpressions);
            position[j] = vector_at(at);
            rotation[j] = rodrigues(vector_at(motion.axis_angles + (size_t(frame) * kJoints + j) * 3));
        }
    }
};

template <class Real>
void pose(const SkinForward<Real>& s, int frame) {
    Joints<Real> joints(s.rig, s.motion, frame);
    for (int j = 0; j < kJoints; ++j) {
        const Frame3<Real> posed = joint_frame(joints.position, joints.rotation, j);
        write_rows(rest_to_posed(posed, joints.position[j]), s.transforms + (size_t(frame) * kJoints + j) * 12);
    }
    for (int i = 0; i < kCondition; ++i)
        s.condition[size_t(frame) * kCondition + i] =
            condition_element(i, s.motion.expression + size_t(frame) * kExpressions,
                              s.motion.eyelids + size_t(frame) * kEyelids, joints.rotation);
}

template <class Real>
void pose_vertex(const SkinForward<Real>& s, int vertex) {
    for (int frame = 0; frame < s.motion.frames; ++frame) {
        const Real* condition = s.condition + size_t(frame) * kCondition;
        const size_t at = (size_t(frame) * s.rig.vertices + vertex) * 3;
        for (int a = 0; a < 3; ++a) {
            const size_t row = size_t(vertex) * 3 + a;
            Real sum = s.rig.rest[row];
            for_each_run(s.rig, row,
                         [&](const Real* columns, int i, int count) { sum += product(columns, condition + i, count); });
            s.shaped[at + a] = sum;
        }
        const Frame3<Real> blended =
            blend_joints(s.rig.weights + size_t(vertex) * kJoints, s.transforms + size_t(frame) * kJoints * 12);
        const Vector3<Real> translation = vector_at(s.motion.translation + size_t(frame) * 3);
        write(transform(blended, vector_at(s.shaped + at)) + translation, s.vertices + at);
    }
}

// What a block of vertices adds to the sums of a frame; and the gradients that are the vertices' own.
template <class Real>
void block_gradient(const SkinBackward<Real>& s, int block, int frame) {
    Real* const sums = s.sums + (size_t(block) * s.motion.frames + frame) * kSkinSums;
    const Real* const condition = s.condition + size_t(frame) * kCondition;
    std::fill_n(sums, kSkinSums, Real(0));
    const int first = block * kSkinBlock, last = std::min(first + kSkinBlock, s.rig.vertices);
    for (int vertex = first; vertex < last; ++vertex) {
        const size_t at = (size_t(frame) * s.rig.vertices + vertex) * 3;
        const Vector3<Real> slope = vector_at(s.d_vertices + at), shaped = vector_at(s.shaped + at);
        const Real* weight = s.rig.weights + size_t(vertex) * kJoints;
        const Frame3<Real> blended = blend_joints(weight, s.transforms + size_t(frame) * kJoints * 12);

        Real moment[12];
        write_rows(Frame3<Real>{outer(slope, shaped), slope}, moment);
        for (int j = 0; j < kJoints; ++j)
            for (int i = 0; i < 12; ++i) sums[kSumTransforms + 12 * j + i] += weight[j] * moment[i];
        for (int a = 0; a < 3; ++a) sums[kSumTranslation + a] += moment[4 * a + 3];

        Real d_shaped[3];
        write(transposed_times(blended.linear, slope), d_shaped);
        for (int a = 0; a < 3; ++a) {
            const size_t row = size_t(vertex) * 3 + a;
            const Real d = d_shaped[a];
            for_each_run(s.rig, row, [&](const Real* columns, int i, int count) {
                for (int k = 0; k < count; ++k) sums[i + k] += d * columns[k];
            });
            const auto add = [&](Real* to, const Real* factors, int count) {
                for (int k = 0; k < count; ++k) to[k] = (frame ? to[k] : Real(0)) + d * factors[k];
            };
            const Real one = 1;
            if (s.d_rest) add(s.d_rest + row, &one, 1);
            if (s.d_expression_basis) add(s.d_expression_basis + row * kExpressions, condition, kExpressions);
            if (s.d_eyelid_basis) add(s.d_eyelid_basis + row * kEyelids, condition + kEyelidsAt, kEyelids);
        }
    }
}

template <class Real>
void pose_gradient(const SkinBackward<Real>& s, int frame) {
    Real sums[kSkinSums] = {};
    for (int block = 0; block < s.blocks(); ++block) {
        const Real* const of_block = s.sums + (size_t(block) * s.motion.frames + frame) * kSkinSums;
        for (int i = 0; i < kSkinSums; ++i) sums[i] += of_block[i];
    }
    if (s.d_condition)
        for (int i = 0; i < kCondition; ++i) sums[i] += s.d_condition[size_t(frame) * kCondition + i];
    if (s.d_transforms)
        for (int i = 0; i < 12 * kJoints; ++i)
            sums[kSumTransforms + i] += s.d_transforms[size_t(frame) * 12 * kJoints + i];

    const Joints<Real> joints(s.rig, s.motion, frame);
    Matrix3<Real> d_rotation[kJoints] = {};
    Vector3<Real> d_position[kJoints];
    for (int i = 0; i < config::kPoseFeatures; ++i)
        element(d_rotation[1 + i / 9], i % 9) = sums[condition_of_feature(i)];
    joint_chain_gradient(joints.position, joints.rotation, sums + kSumTransforms, d_rotation, d_position);
    for (int j = 0; j < kJoints; ++j) {
        const size_t at = (size_t(frame) * kJoints + j) * 3;
        write(rodrigues_gradient(vector_at(s.motion.axis_angles + at), d_rotation[j]), s.d_axis_angles + at);
    }
    for (int i = 0; i < kExpressions; ++i) {
        Real sum = sums[i];
        for (int k = 0; k < 3 * kJoints; ++k)
            sum += s.rig.joint_expression[size_t(k) * kExpressions + i] * (&d_position[0].x)[k];
        s.d_expression[size_t(frame) * kExpressions + i] = sum;
    }
    for (int i = 0; i < kEyelids; ++i) s.d_eyelids[size_t(frame) * kEyelids + i] = sums[kEyelidsAt + i];
    for (int i = 0; i < 3; ++i) s.d_translation[size_t(frame) * 3 + i] = sums[kSumTranslation + i];
}

}  // namespace

template <class Real>
void run_skin_forward(const SkinForward<Real>& s) {
    for (int frame = 0; frame < s.motion.frames; ++frame) pose(s, frame);
    parallel_for(s.rig.vertices, kSkinBlock, [&](int64_t vertex) { pose_vertex(s, int(vertex)); });
}

template <class Real>
void run_skin_backward(const SkinBackward<Real>& s) {
    parallel_for(s.blocks(), 1, [&](int64_t block) {
        for (int frame = 0; frame < s.motion.frames; ++frame) block_gradient(s, int(block), frame);
    });
    parallel_for(s.motion.frames, 1, [&](int64_t frame) { pose_gradient(s, int(frame)); });
}

template void run_skin_forward(const SkinForward<float>&);
template void run_skin_forward(const SkinForward<double>&);
template void run_skin_backward(const SkinBackward<float>&);
template void run_skin_backward(const SkinBackward<double>&);

}  // namespace being::training
