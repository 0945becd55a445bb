// The operation `skin` on a CUDA device, B frames of one rig.
//
//   v = rest + sum_c coefficient_c basis_c;  v' = (sum_j w_j A_j) v + translation     (Li et al. 2017, section 4)
//
// Forward: `pose_kernel`, a block per frame; `vertices_kernel`, a block per 16 vertices, which holds their bases in
// shared memory, 26 KiB, while it goes through all frames. Backward: `vertices_gradient`, a block per 32 vertices;
// `pose_gradient`, a block per frame, adds up what the blocks left and goes back through the joint chain.
//
// Three blocks of `vertices_kernel` fit a multiprocessor, so that a rig of 5,300 vertices is one wave on 132 of them.
// Bound by reading the bases once per direction: 138 columns * 3 * 4 bytes = 1.7 KB a vertex, 8.8 MB for 5,300 of them.
#include <cuda_pipeline.h>

#include "kernels/common/rodrigues_gradient.h"
#include "kernels/common/skinning_gradient.h"
#include "kernels/training/skin.h"

namespace being::training {
namespace {

constexpr int kJoints = config::kJoints, kCondition = config::kCondition, kFeatures = config::kPoseFeatures;
constexpr int kFrames = 8;  // taken together: a value of a basis that was read is used so many times
constexpr int kWarp = 32;

__device__ Vector3<float> vector_at(const float* p) {
    return {p[0], p[1], p[2]};
}
__device__ void write(const Vector3<float>& v, float* p) {
    p[0] = v.x, p[1] = v.y, p[2] = v.z;
}

// ---------------------------------------------------------------- pose

struct Joints {
    Vector3<float> position[kJoints];
    Matrix3<float> rotation[kJoints];
};
constexpr int kJointWarps = 3 * kJoints + 1;

// By the first kJointWarps warps of a block: one per coordinate of a joint, and one for the rotations.
__device__ void find_joints(const SkinRig<float>& rig, const SkinMotion<float>& motion, int frame, Joints& joints) {
    const int warp = int(threadIdx.x) / kWarp, lane = int(threadIdx.x) % kWarp;
    if (warp < 3 * kJoints) {
        const float* expression = motion.expression + size_t(frame) * kExpressions;
        float sum = 0;
#pragma unroll
        for (int i = 0; i < kExpressions; i += kWarp)
            if (i + lane < kExpressions)
                sum = fused(__ldg(rig.joint_expression + warp * kExpressions + i + lane), expression[i + lane], sum);
#pragma unroll
        for (int offset = kWarp / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(~0u, sum, offset);
        if (lane == 0) (&joints.position[0].x)[warp] = rig.joint_rest[warp] + sum;
    } else if (warp == 3 * kJoints && lane < kJoints) {
        joints.rotation[lane] = rodrigues(vector_at(motion.axis_angles + (size_t(frame) * kJoints + lane) * 3));
    }
}

constexpr int kPoseThreads = kJointWarps * kWarp;

__global__ void __launch_bounds__(kPoseThreads) pose_kernel(const __grid_constant__ SkinForward<float> s) {
    __shared__ Joints joints;
    const int frame = int(blockIdx.x), t = int(threadIdx.x);
    find_joints(s.rig, s.motion, frame, joints);
    __syncthreads();
    if (t < kJoints) {
        const Frame3<float> posed = joint_frame(joints.position, joints.rotation, t);
        write_rows(rest_to_posed(posed, joints.position[t]), s.transforms + (size_t(frame) * kJoints + t) * 12);
    }
    const int i = t - kWarp;
    if (i >= 0 && i < kCondition)
        s.condition[size_t(frame) * kCondition + i] =
            condition_element(i, s.motion.expression + size_t(frame) * kExpressions,
                              s.motion.eyelids + size_t(frame) * kEyelids, joints.rotation);
}

// ---------------------------------------------------------------- vertices

constexpr int kVertices = 16, kRows = 3 * kVertices, kVertexThreads = kRows * kFrames;
// In shared memory a row of the bases is expression, pose features, eyelids, two zeros. The stride puts four rows, and
// eight frames' coefficients, into different banks.
constexpr int kPoseAt = kExpressions, kLidsAt = kPoseAt + kFeatures, kColumns = 140;
static_assert(kLidsAt + kEyelids + 2 == kColumns && kColumns % 32 == 12);

__device__ float coefficient_of_column(const float* condition, int column) {
    if (column < kPoseAt) return condition[column];
    if (column < kLidsAt) return condition[condition_of_feature(column - kPoseAt)];
    return column < kCondition ? condition[kEyelidsAt + column - kLidsAt] : 0.0f;
}

__global__ void __launch_bounds__(kVertexThreads, 3) vertices_kernel(const __grid_constant__ SkinForward<float> s) {
    __shared__ alignas(16) float basis[kRows][kColumns], coefficient[kFrames][kColumns];
    __shared__ alignas(16) float transforms[kFrames][12 * kJoints];
    __shared__ float shaped[kFrames][kRows];
    const int t = int(threadIdx.x), first = int(blockIdx.x) * kVertices;
    const int vertices = min(kVertices, s.rig.vertices - first), rows = 3 * vertices;
    const size_t first_row = size_t(first) * 3;

    constexpr int kQuads = kExpressions / 4, kPoseQuads = kFeatures / 4;
    for (int i = t; i < rows * kQuads; i += kVertexThreads)
        __pipeline_memcpy_async(&basis[i / kQuads][i % kQuads * 4],
                                s.rig.expression_basis + first_row * kExpressions + i * 4, 16);
    for (int i = t; i < rows * kPoseQuads; i += kVertexThreads)
        __pipeline_memcpy_async(&basis[i / kPoseQuads][kPoseAt + i % kPoseQuads * 4],
                                s.rig.pose_basis + first_row * kFeatures + i * 4, 16);
    __pipeline_commit();
    for (int i = t; i < kRows * 4; i += kVertexThreads)
        basis[i / 4][kLidsAt + i % 4] =
            i / 4 < rows && i % 4 < kEyelids ? __ldg(s.rig.eyelid_basis + (first_row + i / 4) * kEyelids + i % 4) : 0;
    __pipeline_wait_prior(0);

    for (int first_frame = 0; first_frame < s.motion.frames; first_frame += kFrames) {
        const int frames = min(kFrames, s.motion.frames - first_frame);
        for (int i = t; i < kFrames * kColumns; i += kVertexThreads) {
            const int f = i / kColumns;
            coefficient[f][i % kColumns] =
                f < frames ? coefficient_of_column(s.condition + size_t(first_frame + f) * kCondition, i % kColumns)
                           : 0;
        }
        for (int i = t; i < frames * 12 * kJoints; i += kVertexThreads)
            (&transforms[0][0])[i] = s.transforms[size_t(first_frame) * 12 * kJoints + i];
        __syncthreads();

        // A thread per row and frame, frames first: all lanes' reads are of one wave each.
        {
            const int f = t % kFrames, row = t / kFrames;
            if (row < rows) {
                float4 sum{__ldg(s.rig.rest + first_row + row), 0, 0, 0};
                const auto* a = reinterpret_cast<const float4*>(basis[row]);
                const auto* b = reinterpret_cast<const float4*>(coefficient[f]);
#pragma unroll 7
                for (int i = 0; i < kColumns / 4; ++i)
                    sum = {fused(a[i].x, b[i].x, sum.x), fused(a[i].y, b[i].y, sum.y), fused(a[i].z, b[i].z, sum.z),
                           fused(a[i].w, b[i].w, sum.w)};
                shaped[f][row] = (sum.x + sum.y) + (sum.z + sum.w);
            }
        }
        __syncthreads();

        // A thread per coordinate to write, then one per vertex.
        {
            const int f = t / kRows, row = t % kRows;
            if (f < frames && row < rows)
                s.shaped[size_t(first_frame + f) * s.rig.vertices * 3 + first_row + row] = shaped[f][row];
        }
        const int f = t / kVertices, v = t % kVertices;
        if (f < frames && v < vertices) {
            const float* const weight = s.rig.weights + size_t(first + v) * kJoints;
            const Vector3<float> posed = transform(blend_joints(weight, transforms[f]), vector_at(shaped[f] + 3 * v));
            const Vector3<float> translation = vector_at(s.motion.translation + size_t(first_frame + f) * 3);
            write(posed + translation, s.vertices + (size_t(first_frame + f) * s.rig.vertices + first + v) * 3);
        }
        __syncthreads();
    }
}

// ---------------------------------------------------------------- backward, vertices

// Half of a block's rows to each of two groups of threads, a thread per column of the bases.
constexpr int kBlockRows = 3 * kSkinBlock, kGroups = 2, kGroupRows = kBlockRows / kGroups, kGroupThreads = 160;
constexpr int kGradientThreads = kGroups * kGroupThreads;

struct Column {
    const float* basis;  // of the block's first row
    int stride;
};

__device__ Column column_of_condition(const SkinRig<float>& rig, int i, size_t first_row) {
    if (i < kExpressions) return {rig.expression_basis + first_row * kExpressions + i, kExpressions};
    if (i >= kEyelidsAt && i < kNeckAt) return {rig.eyelid_basis + first_row * kEyelids + i - kEyelidsAt, kEyelids};
    return {rig.pose_basis + first_row * kFeatures + feature_of_condition(i), kFeatures};
}

struct GradientShared {
    float d_vertices[kFrames][kBlockRows], shaped[kFrames][kBlockRows];  // 0 where there is no frame or no vertex
    alignas(16) float d_shaped[kBlockRows][kFrames];
    alignas(16) float transforms[kFrames][12 * kJoints];
    float weights[kSkinBlock][kJoints];
    float others[kFrames][kCondition];  // sums of the second group
};

__device__ void dot_frames(const float* d_shaped, float value, float (&sums)[kFrames]) {
    const auto* d = reinterpret_cast<const float4*>(d_shaped);
#pragma unroll
    for (int i = 0; i < kFrames / 4; ++i) {
        const float4 four = d[i];
        sums[4 * i] = fused(value, four.x, sums[4 * i]);
        sums[4 * i + 1] = fused(value, four.y, sums[4 * i + 1]);
        sums[4 * i + 2] = fused(value, four.z, sums[4 * i + 2]);
        sums[4 * i + 3] = fused(value, four.w, sums[4 * i + 3]);
    }
}

__device__ float dot_frames(const float* d_shaped, const float (&coefficient)[kFrames]) {
    float sum = 0;
#pragma unroll
    for (int f = 0; f < kFrames; ++f) sum = fused(coefficient[f], d_shaped[f], sum);
    return sum;
}

// Element i of the sums for transforms and translation, of one frame.
__device__ float sum_of_moments(const GradientShared& shared, int f, int i) {
    const bool is_translation = i >= 12 * kJoints;
    const int joint = i / 12, row = is_translation ? i - 12 * kJoints : i % 12 / 4, column = is_translation ? 3 : i % 4;
    float sum = 0;
#pragma unroll 4
    for (int v = 0; v < kSkinBlock; ++v) {
        const float weight = is_translation ? 1.0f : shared.weights[v][joint];
        const float along = column == 3 ? 1.0f : shared.shaped[f][3 * v + column];
        sum = fused(weight * along, shared.d_vertices[f][3 * v + row], sum);
    }
    return sum;
}

__global__ void __launch_bounds__(kGradientThreads) vertices_gradient(const __grid_constant__ SkinBackward<float> s) {
    __shared__ GradientShared shared;
    const int t = int(threadIdx.x), first = int(blockIdx.x) * kSkinBlock;
    const int vertices = min(kSkinBlock, s.rig.vertices - first), rows = 3 * vertices;
    const size_t first_row = size_t(first) * 3, all_rows = size_t(s.rig.vertices) * 3;
    const int group = t / kGroupThreads, i = t % kGroupThreads;  // i: element of the condition
    const Column column = column_of_condition(s.rig, min(i, kCondition - 1), first_row);
    for (int k = t; k < kSkinBlock * kJoints; k += kGradientThreads)
        (&shared.weights[0][0])[k] = k < vertices * kJoints ? __ldg(s.rig.weights + size_t(first) * kJoints + k) : 0;

    for (int first_frame = 0; first_frame < s.motion.frames; first_frame += kFrames) {
        const int frames = min(kFrames, s.motion.frames - first_frame);
        for (int k = t; k < kFrames * kBlockRows; k += kGradientThreads) {
            const int f = k / kBlockRows, row = k % kBlockRows;
            const bool inside = f < frames && row < rows;
            const size_t at = size_t(first_frame + f) * all_rows + first_row + row;
            shared.d_vertices[f][row] = inside ? s.d_vertices[at] : 0;
            shared.shaped[f][row] = inside ? s.shaped[at] : 0;
        }
        for (int k = t; k < kFrames * 12 * kJoints; k += kGradientThreads)
            (&shared.transforms[0][0])[k] =
                k < frames * 12 * kJoints ? s.transforms[size_t(first_frame) * 12 * kJoints + k] : 0;
        __syncthreads();

        if (t < kFrames * kSkinBlock) {
            const int f = t / kSkinBlock, v = t % kSkinBlock;
            const Frame3<float> blended = blend_joints(shared.weights[v], shared.transforms[f]);
            const Vector3<float> d = transposed_times(blended.linear, vector_at(shared.d_vertices[f] + 3 * v));
            shared.d_shaped[3 * v][f] = d.x;
            shared.d_shaped[3 * v + 1][f] = d.y;
            shared.d_shaped[3 * v + 2][f] = d.z;
        }
        __syncthreads();

        float sums[kFrames] = {};
        if (i < kCondition) {
            // Past the last vertex dL/dv is 0, and any row will do.
#pragma unroll 16
            for (int k = 0; k < kGroupRows; ++k) {
                const int row = group * kGroupRows + k;
                dot_frames(shared.d_shaped[row], __ldg(column.basis + min(row, rows - 1) * column.stride), sums);
            }
            if (group == 1)
#pragma unroll
                for (int f = 0; f < kFrames; ++f) shared.others[f][i] = sums[f];
        }
        __syncthreads();
        float* const out = s.sums + (size_t(blockIdx.x) * s.motion.frames + first_frame) * kSkinSums;
        if (group == 0 && i < kCondition)
#pragma unroll
            for (int f = 0; f < kFrames; ++f)
                if (f < frames) out[f * kSkinSums + i] = sums[f] + shared.others[f][i];
        constexpr int kMoments = kSkinSums - kSumTransforms;
        for (int k = t; k < frames * kMoments; k += kGradientThreads)
            out[k / kMoments * kSkinSums + kSumTransforms + k % kMoments] =
                sum_of_moments(shared, k / kMoments, k % kMoments);

        const bool is_expression = i < kExpressions, is_lid = i >= kEyelidsAt && i < kNeckAt;
        if (s.d_rest && t < rows) {
            float* const to = s.d_rest + first_row + t;
            float sum = first_frame ? *to : 0.0f;
#pragma unroll
            for (int f = 0; f < kFrames; ++f) sum += shared.d_shaped[t][f];
            *to = sum;
        }
        if ((s.d_expression_basis && is_expression) || (s.d_eyelid_basis && is_lid)) {
            float coefficient[kFrames];
#pragma unroll
            for (int f = 0; f < kFrames; ++f)
                coefficient[f] = f < frames ? s.condition[size_t(first_frame + f) * kCondition + i] : 0;
            float* to = is_expression ? s.d_expression_basis + first_row * kExpressions + i
                                      : s.d_eyelid_basis + first_row * kEyelids + i - kEyelidsAt;
            const int last = min((group + 1) * kGroupRows, rows);
#pragma unroll 4
            for (int row = group * kGroupRows; row < last; ++row) {
                float* const at = to + row * column.stride;
                *at = (first_frame ? *at : 0.0f) + dot_frames(shared.d_shaped[row], coefficient);
            }
        }
        __syncthreads();
    }
}

// ---------------------------------------------------------------- backward, pose

constexpr int kSlices = 3, kPoseGradientThreads = 640;  // three blocks of vertices are added at a time
static_assert(kSlices * kSkinSums <= kPoseGradientThreads && kPoseThreads <= kPoseGradientThreads);

__global__ void __launch_bounds__(kPoseGradientThreads) pose_gradient(const __grid_constant__ SkinBackward<float> s) {
    __shared__ Joints joints;
    __shared__ float slices[kSlices][kSkinSums], sums[kSkinSums];
    __shared__ Matrix3<float> d_rotation[kJoints];
    __shared__ Vector3<float> d_position[kJoints];
    const int frame = int(blockIdx.x), t = int(threadIdx.x);

    find_joints(s.rig, s.motion, frame, joints);
    const int slice = t / kSkinSums, value = t % kSkinSums, blocks = s.blocks();
    if (slice < kSlices) {
        float sum = 0;
#pragma unroll 16
        for (int block = slice; block < blocks; block += kSlices)
            sum += s.sums[(size_t(block) * s.motion.frames + frame) * kSkinSums + value];
        slices[slice][value] = sum;
    }
    __syncthreads();
    if (t < kSkinSums) {
        float sum = 0;
        if (s.d_condition && t < kSumTransforms) sum = s.d_condition[size_t(frame) * kCondition + t];
        if (s.d_transforms && t >= kSumTransforms && t < kSumTranslation)
            sum = s.d_transforms[size_t(frame) * 12 * kJoints + t - kSumTransforms];
#pragma unroll
        for (int i = 0; i < kSlices; ++i) sum += slices[i][t];
        sums[t] = sum;
    }
    __syncthreads();
    if (t < 9 * kJoints) element(d_rotation[t / 9], t % 9) = t < 9 ? 0 : sums[condition_of_feature(t - 9)];
    __syncthreads();
    if (t == 0) joint_chain_gradient(joints.position, joints.rotation, sums + kSumTransforms, d_rotation, d_position);
    __syncthreads();

    if (t < kJoints) {
        const size_t at = (size_t(frame) * kJoints + t) * 3;
        write(rodrigues_gradient(vector_at(s.motion.axis_angles + at), d_rotation[t]), s.d_axis_angles + at);
    }
    const int i = t - kWarp;
    if (i >= 0 && i < kExpressions) {
        float sum = sums[i];
#pragma unroll
        for (int k = 0; k < 3 * kJoints; ++k)
            sum = fused(__ldg(s.rig.joint_expression + k * kExpressions + i), (&d_position[0].x)[k], sum);
        s.d_expression[size_t(frame) * kExpressions + i] = sum;
    } else if (i >= kExpressions && i < kExpressions + kEyelids) {
        s.d_eyelids[size_t(frame) * kEyelids + i - kExpressions] = sums[kEyelidsAt + i - kExpressions];
    } else if (i >= kExpressions + kEyelids && i < kExpressions + kEyelids + 3) {
        const int a = i - kExpressions - kEyelids;
        s.d_translation[size_t(frame) * 3 + a] = sums[kSumTranslation + a];
    }
}

}  // namespace

void launch_skin_forward(const SkinForward<float>& s, cudaStream_t stream) {
    pose_kernel<<<unsigned(s.motion.frames), kPoseThreads, 0, stream>>>(s);
    const unsigned blocks = unsigned(s.rig.vertices + kVertices - 1) / kVertices;
    vertices_kernel<<<blocks, kVertexThreads, 0, stream>>>(s);
}

void launch_skin_backward(const SkinBackward<float>& s, cudaStream_t stream) {
    if (s.blocks() > 0) vertices_gradient<<<unsigned(s.blocks()), kGradientThreads, 0, stream>>>(s);
    pose_gradient<<<unsigned(s.motion.frames), kPoseGradientThreads, 0, stream>>>(s);
}

}  // namespace being::training
