// Stage `pose`: from FLAME parameters to joint transforms, blendshape coefficients and the part of the offset network
// that depends on the frame alone. One block per session; nothing here is wide enough for more. What bounds it is
// latency: one read across PCIe, where the host left the parameters, then short dependent steps. So the network's
// weights are brought to shared memory while that read is on its way, and one warp goes through the joint chain while
// the others go through the network.
//
//   joints: Li et al. 2017, section 4;  h = relu(W1 relu(W0 theta + b0) + b1), shared = V0h h (csrc/cpu/network.cpp)
#include <cuda_pipeline.h>

#include "kernels/common/rotation.h"
#include "kernels/cuda_stages.h"
#include "kernels/device/launch.cuh"

namespace being::cuda {
namespace {

constexpr int kThreads = 512, kWidest = 256;
constexpr int kNetworkThreads = kThreads - kWarp;  // the last warp has the joints
constexpr int kLargestStaged = 88 * 1024;          // bytes of weights; what every device from 8.0 on has room for

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

__device__ void network_barrier() {
    asm volatile("bar.sync 1, %0;" ::"n"(kNetworkThreads) : "memory");
}

// out[outputs] = weight^T in + bias, then relu where asked, by the network's threads. outputs <= 256.
template <bool kRelu>
__device__ void dense(const float* weight, const float* bias, const float* in, int inputs, int outputs, float* out,
                      float* partial) {
    const int t = int(threadIdx.x), slices = kNetworkThreads / outputs, slice = t / outputs, r = t % outputs;
    const float first = bias && t < outputs ? __ldg(bias + t) : 0.0f;
    if (slice < slices) {
        float sum = 0;
#pragma unroll 8
        for (int i = slice; i < inputs; i += slices) sum = fused(weight[i * outputs + r], in[i], sum);
        partial[t] = sum;
    }
    network_barrier();
    if (t < outputs) {
        float sum = first;
        for (int s = 0; s < slices; ++s) sum += partial[s * outputs + t];
        out[t] = kRelu ? larger(sum, 0.0f) : sum;
    }
    network_barrier();
}

// Joint transforms, a lane per joint, and the seam; by one warp.
__device__ void find_joints(const PoseStage& s, const Shared& shared, int lane, FrameState& state) {
    const FrameInput& in = shared.input;
    const Vector3<float> translation = at3(in.translation);
    const int j = lane < config::kJoints ? lane : 0;
    const Vector3<float> at = shared.joint[j], neck = shared.joint[1];
    // global - neck - (jaw, left eye, right eye): every lane goes as far down the chain as its joint lies.
    Frame3f frame{shared.rotation[0], shared.joint[0]};
    if (j >= 1) frame = frame * Frame3f{shared.rotation[1], neck - shared.joint[0]};
    if (j >= 2) frame = frame * Frame3f{shared.rotation[j], at - neck};
    const Vector3<float> origin = frame.origin - frame.linear * at;
    frame.origin = {origin.x + translation.x, origin.y + translation.y, origin.z + translation.z};
    frame = in.world_to_camera * frame;
    if (lane < config::kJoints) state.joint[lane] = frame;
    if (lane < 2) state.torso[1 + lane] = frame;
    if (lane == 2) state.torso[0] = in.world_to_camera * in.root;
    // The seam rides on the mean of the global and the neck joint's transforms.
    Frame3f carried;
    for (int i = 0; i < 12; ++i) {
        const float mine = (&frame.linear.x.x)[i];
        (&carried.linear.x.x)[i] = 0.5f * (mine + __shfl_sync(~0u, mine, 1));
    }
    if (lane != 0) return;
    Vector3<float> axis = carried.linear * s.seam_axis;
    axis = axis * (1.0f / larger(root(dot(axis, axis)), 1e-12f));
    state.seam =
        make_seam_ellipse(transform(carried, s.seam_centre), axis, s.seam_radius, s.seam_half_height, in.camera);
}

// Starts copying `count` floats, a multiple of 4, to shared memory.
__device__ void start_copy(float* to, const float* from, int count) {
    for (int i = 4 * int(threadIdx.x); i < count; i += 4 * kThreads) __pipeline_memcpy_async(to + i, from + i, 16);
}

template <bool kOne>
__global__ void __launch_bounds__(kThreads) pose_kernel(const __grid_constant__ Sessions<PoseStage> sessions) {
    __shared__ Shared shared;
    extern __shared__ float4 staged[];
    const PoseStage s = stage_of<kOne>(sessions, blockIdx.x);
    const int t = int(threadIdx.x), warp = t / kWarp, lane = t % kWarp;

    const uint32_t frame = *s.frame;
    static_assert(sizeof(FrameInput) % 16 == 0, "copied by 16 bytes");
    const auto* words = reinterpret_cast<const uint4*>(s.input + frame % kInputSlots);
    constexpr int kWords = int(sizeof(FrameInput) / 16);
    uint4 word{};
    if (t < kWords) word = __ldcv(words + t);  // past the caches: the host has just written it

    const int count0 = config::kCondition * s.hidden0, count1 = s.hidden0 * s.hidden1, count2 = s.hidden1 * s.hidden2;
    const float *weight0 = s.trunk_weight_0, *weight1 = s.trunk_weight_1, *weight2 = s.head_weight_0;
    if ((count0 + count1 + count2) * int(sizeof(float)) <= kLargestStaged) {
        auto* to = reinterpret_cast<float*>(staged);
        start_copy(to, weight0, count0);
        start_copy(to + count0, weight1, count1);
        start_copy(to + count0 + count1, weight2, count2);
        weight0 = to;
        weight1 = to + count0;
        weight2 = to + count0 + count1;
    }
    __pipeline_commit();
    const bool in_joint_row = warp < 3 * config::kJoints;
    float regression[4] = {}, rest = 0;  // of a joint's coordinate, by the lanes of a warp
    if (in_joint_row) {
        rest = __ldg(s.joint_rest + warp);
#pragma unroll
        for (int k = 0; k < 4; ++k)
            if (lane + k * kWarp < kExpressions)
                regression[k] = __ldg(s.joint_expression + warp * kExpressions + lane + k * kWarp);
    }
    if (t < kWords) reinterpret_cast<uint4*>(&shared.input)[t] = word;
    __pipeline_wait_prior(0);
    __syncthreads();
    const FrameInput& in = shared.input;
    FrameState& state = *s.state;

    if (in_joint_row) {
        float sum = 0;
#pragma unroll
        for (int k = 0; k < 4; ++k)
            if (lane + k * kWarp < kExpressions) sum = fused(regression[k], in.expression[lane + k * kWarp], sum);
        sum = sum_of_warp(sum);
        if (lane == 0) (&shared.joint[0].x)[warp] = rest + sum;
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
        state.spilled = 0;
        *s.frame = frame + 1;
    }
    if (t < 64) state.largest_latent[t] = 0;
    if (t < kCostClasses) state.class_count[t] = state.class_placed[t] = 0;
    __syncthreads();

    if (t >= kNetworkThreads) return find_joints(s, shared, lane, state);
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
    network_barrier();
    dense<true>(weight0, s.trunk_bias_0, shared.condition, config::kCondition, s.hidden0, shared.hidden[0],
                shared.partial);
    dense<true>(weight1, s.trunk_bias_1, shared.hidden[0], s.hidden0, s.hidden1, shared.hidden[1], shared.partial);
    dense<false>(weight2, nullptr, shared.hidden[1], s.hidden1, s.hidden2, state.shared, shared.partial);
}

}  // namespace

void launch_pose(const StageArray<PoseStage>& stages, cudaStream_t stream) {
    size_t staged = 0;
    for (int i = 0; i < stages.count; ++i) {
        const PoseStage& s = stages.host[i];
        const size_t bytes = size_t(config::kCondition * s.hidden0 + s.hidden0 * s.hidden1 + s.hidden1 * s.hidden2) * 4;
        if (bytes <= size_t(kLargestStaged) && bytes > staged) staged = bytes;
    }
    const auto kernel = stages.count == 1 ? pose_kernel<true> : pose_kernel<false>;
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kLargestStaged);
    kernel<<<unsigned(stages.count), kThreads, staged, stream>>>(Sessions<PoseStage>{stages.host[0], stages.device});
}

}  // namespace being::cuda
