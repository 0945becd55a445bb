// Stage `pose`: from FLAME parameters to joint transforms, blendshape coefficients and the part of the offset network
// that depends on the frame alone. One block per session; nothing here is wide enough for more. What bounds it is
// latency: one read across PCIe, where the host left the parameters, then six short dependent steps.
//
//   joints: Li et al. 2017, section 4;  h = relu(W1 relu(W0 theta + b0) + b1), shared = V0h h (csrc/cpu/network.cpp)
#include "kernels/common/rotation.h"
#include "kernels/cuda_stages.h"
#include "kernels/device/overlap.cuh"

namespace being::cuda {
namespace {

constexpr int kThreads = 512, kWidest = 256;

struct Shared {
    FrameInput input;
    Vector3<float> joint[config::kJoints];
    Matrix3<float> rotation[config::kJoints];
    float condition[config::kCondition];
    float hidden[2][kWidest];
    float partial[kThreads];
};

__device__ float sum_of_warp(float value) {
    for (int offset = kWarp / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(~0u, value, offset);
    return value;
}

// Element `i` of the row-major R - I.
__device__ float change(const Matrix3<float>& r, int i) {
    const float* columns = &r.x.x;
    return columns[i % 3 * 3 + i / 3] - (i % 4 == 0 ? 1.0f : 0.0f);
}

__device__ Vector3<float> at3(const float* p) {
    return {p[0], p[1], p[2]};
}

// out[outputs] = weight^T in + bias, then relu where asked; every thread of the block takes part. outputs <= 256.
template <bool kRelu>
__device__ void dense(const float* weight, const float* bias, const float* in, int inputs, int outputs, float* out,
                      float* partial) {
    const int t = int(threadIdx.x), slices = kThreads / outputs, slice = t / outputs, r = t % outputs;
    if (slice < slices) {
        float sum = 0;
#pragma unroll 8
        for (int i = slice; i < inputs; i += slices) sum = fused(__ldg(weight + i * outputs + r), in[i], sum);
        partial[t] = sum;
    }
    __syncthreads();
    if (t < outputs) {
        float sum = bias ? bias[t] : 0.0f;
        for (int s = 0; s < slices; ++s) sum += partial[s * outputs + t];
        out[t] = kRelu ? larger(sum, 0.0f) : sum;
    }
    __syncthreads();
}

__device__ void find_joints(const PoseStage& s, const Shared& shared, FrameState& state) {
    const FrameInput& in = shared.input;
    const Vector3<float> translation = at3(in.translation);
    Frame3f global[config::kJoints];
#pragma unroll
    for (int j = 0; j < config::kJoints; ++j) {
        const int parent = j < 2 ? j - 1 : 1;
        const Vector3<float>& at = shared.joint[j];
        global[j] = j == 0 ? Frame3f{shared.rotation[j], at}
                           : global[parent] * Frame3f{shared.rotation[j], at - shared.joint[parent]};
        const Vector3<float> turned = global[j].linear * at, origin = global[j].origin - turned;
        const Vector3<float> moved{origin.x + translation.x, origin.y + translation.y, origin.z + translation.z};
        state.joint[j] = in.world_to_camera * Frame3f{global[j].linear, moved};
    }
    const Frame3f body{{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}, translation};
    state.torso[0] = in.world_to_camera * body;
    state.torso[1] = state.joint[0];
    state.torso[2] = state.joint[1];

    // The seam rides on the mean of the global and the neck joint's transforms.
    const auto middle = [](const Vector3<float>& a, const Vector3<float>& b) {
        return Vector3<float>{0.5f * (a.x + b.x), 0.5f * (a.y + b.y), 0.5f * (a.z + b.z)};
    };
    const Frame3f &g = state.joint[0], &n = state.joint[1];
    const Frame3f carried{
        {middle(g.linear.x, n.linear.x), middle(g.linear.y, n.linear.y), middle(g.linear.z, n.linear.z)},
        middle(g.origin, n.origin)};
    Vector3<float> axis = carried.linear * s.seam_axis;
    axis = axis * (1.0f / larger(root(dot(axis, axis)), 1e-12f));
    state.seam =
        make_seam_ellipse(transform(carried, s.seam_centre), axis, s.seam_radius, s.seam_half_height, in.camera);
}

__global__ void __launch_bounds__(kThreads) pose_kernel(const PoseStage* stages) {
    __shared__ Shared shared;
    const PoseStage& s = stages[blockIdx.x];
    const int t = int(threadIdx.x), warp = t / kWarp, lane = t % kWarp;
    let_next_kernel_start();

    const uint32_t frame = *s.frame;
    static_assert(sizeof(FrameInput) % 4 == 0, "copied by words");
    const auto* words = reinterpret_cast<const volatile uint32_t*>(s.input + frame % kInputSlots);
    for (int i = t; i < int(sizeof(FrameInput) / 4); i += kThreads)
        reinterpret_cast<uint32_t*>(&shared.input)[i] = words[i];
    __syncthreads();
    const FrameInput& in = shared.input;
    FrameState& state = *s.state;

    // Joints at rest under the expression, a warp per coordinate; rotations.
    if (warp < 3 * config::kJoints) {
        const float* row = s.joint_expression + warp * kExpressions;
        float sum = 0;
        for (int k = lane; k < kExpressions; k += kWarp) sum = fused(__ldg(row + k), in.expression[k], sum);
        sum = sum_of_warp(sum);
        if (lane == 0) (&shared.joint[0].x)[warp] = __ldg(s.joint_rest + warp) + sum;
    } else if (lane < config::kJoints) {
        const float* turn[config::kJoints] = {in.rotation, in.neck, in.jaw, in.eyes, in.eyes + 3};
        shared.rotation[lane] = rodrigues(at3(turn[lane]));
    }
    if (t == 0) {
        state.camera = in.camera;
        state.pixels = in.pixels;
        state.alpha = in.alpha;
        state.depth = in.depth;
        state.segments_needed = 0;
        *s.frame = frame + 1;
    }
    if (t < 64) state.largest_latent[t] = 0;
    __syncthreads();

    // The last warp's first lane goes through the joint chain while the others begin with the network.
    if (t == kThreads - 1) find_joints(s, shared, state);
    if (t < kSkinPadded) {
        const int feature = t - kExpressions - 2;
        state.coefficient[t] = t < kExpressions   ? in.expression[t]
                               : feature < 0      ? in.eyelids[t - kExpressions]
                               : t < kSkinColumns ? change(shared.rotation[1 + feature / 9], feature % 9)
                                                  : 0.0f;
    } else if (t - kSkinPadded < config::kCondition) {
        // Expression, jaw, left eye, right eye, eyelids, neck.
        const int c = t - kSkinPadded, jaw = c - kExpressions, lids = jaw - 27, neck = lids - 2;
        shared.condition[c] = jaw < 0    ? in.expression[c]
                              : lids < 0 ? change(shared.rotation[2 + jaw / 9], jaw % 9)
                              : neck < 0 ? in.eyelids[lids]
                                         : change(shared.rotation[1], neck);
    }
    if (s.hidden0 == 0) return;
    __syncthreads();
    dense<true>(s.trunk_weight_0, s.trunk_bias_0, shared.condition, config::kCondition, s.hidden0, shared.hidden[0],
                shared.partial);
    dense<true>(s.trunk_weight_1, s.trunk_bias_1, shared.hidden[0], s.hidden0, s.hidden1, shared.hidden[1],
                shared.partial);
    dense<false>(s.head_weight_0, nullptr, shared.hidden[1], s.hidden1, s.hidden2, state.shared, shared.partial);
}

}  // namespace

void launch_pose(const PoseStage* stages, int sessions, cudaStream_t stream) {
    launch(pose_kernel, dim3(unsigned(sessions)), dim3(kThreads), 0, false, stream, stages);
}

}  // namespace being::cuda
