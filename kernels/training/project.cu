// Operation `project`: Gaussians in world space to splats on the picture, B frames at once, and back. The formulas are
// in kernels/common/splat.h and splat_gradient.h.
//
// A thread per Gaussian and frame; a warp reads and writes its 32 rows as one stretch of memory. What bounds it is
// memory: forward reads 64 bytes and writes 48, backward reads 112 and writes 64. The camera's gradient, where it is
// asked for, is 16 sums over all Gaussians of a frame: over lanes, over the warps of a block, then over blocks.
#include "kernels/device/rows.cuh"
#include "kernels/training/project.h"

namespace being::training {
namespace {

using cuda::Rows;
using BoundRows = Rows<kBoundFloats>;
using SplatRows = Rows<kSplatFloats>;

constexpr int kWarps = kProjectGroup / 32;  // of a block
constexpr int kSumThreads = 128;            // that add up the parts of one sum

// The rows of a warp: `count` of them, none at the end of a frame.
struct WarpRows {
    int lane, warp, frame, i, count;
    size_t first;
};

__device__ WarpRows rows_of(const ProjectStage<float>& stage) {
    WarpRows rows;
    rows.lane = int(threadIdx.x) % 32;
    rows.warp = int(threadIdx.x) / 32;
    rows.frame = int(blockIdx.y);
    const int first = int(blockIdx.x) * kProjectGroup + rows.warp * 32;
    rows.count = max(0, min(32, stage.count - first));
    rows.i = min(first + rows.lane, stage.count - 1);
    rows.first = size_t(rows.frame) * size_t(stage.count) + size_t(first);
    return rows;
}

__global__ void __launch_bounds__(kProjectGroup) project_kernel(ProjectStage<float> stage) {
    __shared__ float shared[kWarps][BoundRows::kFloats];
    const WarpRows rows = rows_of(stage);
    if (rows.count == 0) return;
    float* const own = shared[rows.warp];
    BoundRows::put(own, BoundRows::fetch(stage.bound + rows.first * kBoundFloats, rows.count, rows.lane), rows.lane);
    const BoundGaussian<float> bound = read_bound(BoundRows::row(own, rows.lane));
    const Splat<float> splat = project(bound, stage.facing[rows.i] != 0, stage.antialiased, stage.camera(rows.frame));
    __syncwarp();
    write_splat(splat, SplatRows::row(own, rows.lane));
    SplatRows::write(own, stage.splats + rows.first * kSplatFloats, rows.count, rows.lane);
}

template <bool kCamera>
__global__ void __launch_bounds__(kProjectGroup) project_backward(ProjectGradientStage<float> stage) {
    __shared__ float shared[kWarps][BoundRows::kFloats + SplatRows::kFloats];
    __shared__ float camera_sums[kWarps][kCameraValues];
    static_assert(33 * kCameraValues <= BoundRows::kFloats);
    const ProjectStage<float>& forward = stage.forward;
    const WarpRows rows = rows_of(forward);
    float* const bound_rows = shared[rows.warp];
    float* const splat_rows = bound_rows + BoundRows::kFloats;

    // A warp without rows goes along, for the block meets at the end; its values count for nothing.
    const BoundRows::Fetched bounds =
        BoundRows::fetch(forward.bound + rows.first * kBoundFloats, rows.count, rows.lane);
    SplatRows::put(splat_rows, SplatRows::fetch(stage.splats + rows.first * kSplatFloats, rows.count, rows.lane),
                   rows.lane);
    BoundRows::put(bound_rows, bounds, rows.lane);
    const BoundGaussian<float> bound = read_bound(BoundRows::row(bound_rows, rows.lane));
    const Splat<float> splat = read_splat(SplatRows::row(splat_rows, rows.lane));
    const ProjectionGradient<float> gradient =
        project_gradient(bound, forward.facing[rows.i] != 0, forward.antialiased, forward.camera(rows.frame), splat);
    if (stage.bound) {
        __syncwarp();
        write_bound(gradient.gaussian, BoundRows::row(bound_rows, rows.lane));
        BoundRows::write(bound_rows, stage.bound + rows.first * kBoundFloats, rows.count, rows.lane);
    }
    if constexpr (kCamera) {
        float values[kCameraValues];
        write_camera(gradient.camera, values);
#pragma unroll
        for (int k = 0; k < kCameraValues; ++k) values[k] = rows.lane < rows.count ? values[k] : 0.0f;
        const float sum = cuda::sum_over_lanes(bound_rows, values, rows.lane);
        if (rows.lane < kCameraValues) camera_sums[rows.warp][rows.lane] = sum;
        __syncthreads();
        if (threadIdx.x >= kCameraValues) return;
        float total = 0;
        for (int warp = 0; warp < kWarps; ++warp) total += camera_sums[warp][threadIdx.x];
        stage.values[(size_t(threadIdx.x) * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x] = total;
    }
}

// A block per value and frame. The limits have no gradient.
__global__ void __launch_bounds__(kSumThreads) sum_camera(ProjectGradientStage<float> stage, int parts) {
    const int value = int(blockIdx.x), frame = int(blockIdx.y), frames = stage.forward.frames;
    const bool pose = value < 12, shared_pose = pose && stage.forward.one_pose;
    if (shared_pose && frame > 0) return;
    // A pose that all frames share has parts of all frames, one after the other.
    const float sum =
        cuda::sum_by_block<kSumThreads>(stage.values + (size_t(value) * size_t(frames) + size_t(frame)) * size_t(parts),
                                        shared_pose ? frames * parts : parts);
    if (threadIdx.x > 0) return;
    if (pose)
        stage.world_to_camera[frame * 12 + value] = sum;
    else
        stage.intrinsics[frame * kPinholeFloats + value - 12] = sum;
    if (value == 12) stage.intrinsics[frame * kPinholeFloats + 4] = 0;
    if (value == 13) stage.intrinsics[frame * kPinholeFloats + 5] = 0;
}

}  // namespace

void launch_project(const ProjectStage<float>& stage, CUstream_st* stream) {
    if (stage.count == 0 || stage.frames == 0) return;
    const dim3 grid{unsigned(project_parts(stage.count)), unsigned(stage.frames)};
    project_kernel<<<grid, kProjectGroup, 0, stream>>>(stage);
}

void launch_project_backward(const ProjectGradientStage<float>& stage, CUstream_st* stream) {
    const int frames = stage.forward.frames, count = stage.forward.count, parts = project_parts(count);
    if (frames == 0) return;
    if (count > 0) {
        const dim3 grid{unsigned(parts), unsigned(frames)};
        if (stage.camera_needed())
            project_backward<true><<<grid, kProjectGroup, 0, stream>>>(stage);
        else
            project_backward<false><<<grid, kProjectGroup, 0, stream>>>(stage);
    }
    if (stage.camera_needed())
        sum_camera<<<dim3(kCameraValues, unsigned(frames)), kSumThreads, 0, stream>>>(stage, parts);
}

}  // namespace being::training
