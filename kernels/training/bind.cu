// Operations `bind_head` and `bind_torso`: stored Gaussians to Gaussians in world space, B frames at once, and back.
// The formulas are in kernels/common/binding.h and binding_gradient.h.
//
// A block has 32 Gaussians, a lane each, and kSlots warps, which take the frames in turn: what is stored per Gaussian
// is read once for all frames, and the Gaussians of a batch are still spread over enough warps to fill a device. On the
// way back a lane adds up its frames, then the block adds up its warps.
//
// What bounds it is memory. Per Gaussian and frame: forward reads 52 bytes of offsets and writes 64; backward reads 116
// and writes 52 of offsets. The gradient of vertices adds 36, written by Gaussian and read by vertex: Gaussians are in
// no order of triangles, so each vertex gathers through a table what its Gaussians left, a warp to a vertex, in the
// table's order. With the torso, 36 sums over all Gaussians: by groups of 32, then over groups.
#include "kernels/device/rows.cuh"
#include "kernels/training/bind.h"

namespace being::training {
namespace {

using cuda::Rows;
using OffsetRows = Rows<kOffsetFloats>;
using BoundRows = Rows<kBoundFloats>;

constexpr int kSlots = 4;           // warps of a block: two frames each in a batch of 8
constexpr int kBackwardBlocks = 4;  // on a multiprocessor: 128 registers a thread
constexpr int kGatherWarps = 8;     // of a block that gathers for one vertex
constexpr int kSumThreads = 128;    // that add up the parts of one sum

static_assert(kBindGroup == 32, "a lane per Gaussian");

// What is the same in every frame, read once for a block.
template <template <class> class Carrier>
struct Stored {
    cuda::LaneRecords<typename Carrier<float>::Place> place;
    cuda::LaneRecords<RestGaussian<float>> rest;

    __device__ void read(const BindStage<float, Carrier>& stage, int i, int lane, int slot) {
        if (slot == 0) place.put(stage.carrier.place(i), lane);
        if (slot == int(blockDim.y) - 1) rest.put(stage.gaussians.at(i), lane);
        __syncthreads();
    }
};

template <template <class> class Carrier>
__global__ void __launch_bounds__(kSlots * 32) bind(BindStage<float, Carrier> stage) {
    __shared__ float shared[kSlots][BoundRows::kFloats];
    __shared__ Stored<Carrier> stored;
    const int lane = int(threadIdx.x), slot = int(threadIdx.y);
    const int first = int(blockIdx.x) * 32, rows = min(32, stage.count - first);
    const int i = first + min(lane, rows - 1);
    stored.read(stage, i, lane, slot);
    for (int frame = slot; frame < stage.frames; frame += int(blockDim.y)) {
        const size_t row = size_t(frame) * size_t(stage.count) + size_t(first);
        const auto posed = stage.carrier.posed(stored.place.get(lane), frame);
        GaussianOffsets<float> offsets{};
        if (stage.offsets) {
            OffsetRows::put(shared[slot], OffsetRows::fetch(stage.offsets + row * kOffsetFloats, rows, lane), lane);
            offsets = read_offsets(OffsetRows::row(shared[slot], lane));
        }
        const Frame3<float> carrying = Carrier<float>::frame(posed);
        const BoundGaussian<float> bound = bound_gaussian(carrying, deformed(stored.rest.get(lane), offsets));
        __syncwarp();
        write_bound(bound, BoundRows::row(shared[slot], lane));
        BoundRows::write(shared[slot], stage.bound + row * kBoundFloats, rows, lane);
    }
}

// Shared memory of a warp on the way back.
template <int kValues>
struct BackwardWarp {
    float offsets[OffsetRows::kFloats];
    float bound[BoundRows::kFloats > 33 * kValues ? BoundRows::kFloats : 33 * kValues];  // then the carrier's values
    float sums[kRestFloats][32];  // over frames; registers are short
};

template <template <class> class Carrier>
__global__ void __launch_bounds__(kSlots * 32, kBackwardBlocks) bind_backward(BindGradientStage<float, Carrier> stage) {
    constexpr int kValues = Carrier<float>::kValues;
    __shared__ BackwardWarp<kValues> warps[kSlots];
    __shared__ Stored<Carrier> stored;
    const BindStage<float, Carrier>& forward = stage.forward;
    const int lane = int(threadIdx.x), slot = int(threadIdx.y);
    const int first = int(blockIdx.x) * 32, rows = min(32, forward.count - first);
    const int i = first + min(lane, rows - 1);
    BackwardWarp<kValues>& warp = warps[slot];
    stored.read(forward, i, lane, slot);
    for (int k = 0; k < kRestFloats; ++k) warp.sums[k][lane] = 0;

    for (int frame = slot; frame < forward.frames; frame += int(blockDim.y)) {
        const size_t row = size_t(frame) * size_t(forward.count) + size_t(first);
        const auto posed = forward.carrier.posed(stored.place.get(lane), frame);
        const BoundRows::Fetched fetched = BoundRows::fetch(stage.bound + row * kBoundFloats, rows, lane);
        GaussianOffsets<float> offsets{};
        if (forward.offsets) {
            OffsetRows::put(warp.offsets, OffsetRows::fetch(forward.offsets + row * kOffsetFloats, rows, lane), lane);
            offsets = read_offsets(OffsetRows::row(warp.offsets, lane));
        }
        BoundRows::put(warp.bound, fetched, lane);
        const BoundGaussian<float> bound = read_bound(BoundRows::row(warp.bound, lane));
        const GaussianGradient<float, Carrier> gradient =
            gaussian_gradient<Carrier>(stored.rest.get(lane), offsets, posed, bound);
#pragma unroll
        for (int k = 0; k < kRestFloats; ++k) warp.sums[k][lane] += gradient.rest[k];
        if (stage.offsets) {
            write_offsets(gradient.offsets, OffsetRows::row(warp.offsets, lane));
            OffsetRows::write(warp.offsets, stage.offsets + row * kOffsetFloats, rows, lane);
        }
        if (!stage.carrier.needed()) continue;
        if constexpr (Carrier<float>::kSummed) {
            constexpr int kAtOnce = 12;
            static_assert(kValues % kAtOnce == 0);
#pragma unroll
            for (int begin = 0; begin < kValues; begin += kAtOnce) {
                float values[kAtOnce];
#pragma unroll
                for (int k = 0; k < kAtOnce; ++k) values[k] = lane < rows ? gradient.values[begin + k] : 0.0f;
                const float sum = cuda::sum_over_lanes(warp.bound, values, lane);
                if (lane < kAtOnce)
                    stage.carrier.values[size_t((begin + lane) * forward.frames + frame) * gridDim.x + blockIdx.x] =
                        sum;
            }
        } else {
            using ValueRows = Rows<kValues>;
            __syncwarp();
#pragma unroll
            for (int k = 0; k < kValues; ++k) ValueRows::row(warp.bound, lane)[k] = gradient.values[k];
            ValueRows::write(warp.bound, stage.carrier.values + row * kValues, rows, lane);
        }
    }

    __syncthreads();
    const int thread = slot * 32 + lane, threads = int(blockDim.y) * 32;
    for_each_rest(stage, [&](float* tensor, int first_value, int width) {
        for (int element = thread; element < rows * width; element += threads) {
            const int value = first_value + element % width, of = element / width;
            float sum = 0;
            for (int other = 0; other < int(blockDim.y); ++other) sum += warps[other].sums[value][of];
            tensor[size_t(first) * size_t(width) + size_t(element)] = sum;
        }
    });
}

// A block per vertex, a warp per frame, a lane per entry of the vertex's table.
__global__ void __launch_bounds__(kGatherWarps * 32)
    gather_vertices(TriangleCarrier<float>::Gradient carrier, int frames, int count) {
    const int lane = int(threadIdx.x), vertex = int(blockIdx.x);
    const int begin = carrier.vertex_begin[vertex], end = carrier.vertex_begin[vertex + 1];
    for (int frame = int(threadIdx.y); frame < frames; frame += int(blockDim.y)) {
        const float* values = carrier.values + size_t(frame) * size_t(count) * TriangleCarrier<float>::kValues;
        Vector3<float> sum{};
#pragma unroll 2
        for (int k = begin + lane; k < end; k += 32) sum = sum + read3(values + size_t(carrier.vertex_corner[k]) * 3);
        for (int apart = 16; apart > 0; apart /= 2) {
            sum.x += __shfl_xor_sync(cuda::kAllLanes, sum.x, apart);
            sum.y += __shfl_xor_sync(cuda::kAllLanes, sum.y, apart);
            sum.z += __shfl_xor_sync(cuda::kAllLanes, sum.z, apart);
        }
        float* vertices = carrier.vertices + (size_t(frame) * gridDim.x + size_t(vertex)) * 3;
        if (lane < 3) vertices[lane] = lane == 0 ? sum.x : lane == 1 ? sum.y : sum.z;
    }
}

// A block per sum and frame.
__global__ void __launch_bounds__(kSumThreads) sum_body(BodyCarrier<float>::Gradient carrier, int frames, int parts) {
    const int value = int(blockIdx.x), frame = int(blockIdx.y);
    const float sum =
        cuda::sum_by_block<kSumThreads>(carrier.values + size_t(value * frames + frame) * size_t(parts), parts);
    if (threadIdx.x == 0) carrier.body[frame * BodyCarrier<float>::kValues + value] = sum;
}

template <template <class> class Carrier>
void launch_forward(const BindStage<float, Carrier>& stage, CUstream_st* stream) {
    if (stage.count == 0 || stage.frames == 0) return;
    const dim3 block(32, unsigned(stage.frames < kSlots ? stage.frames : kSlots));
    bind<Carrier><<<unsigned(bind_parts(stage.count)), block, 0, stream>>>(stage);
}

template <template <class> class Carrier>
void launch_backward(const BindGradientStage<float, Carrier>& stage, CUstream_st* stream) {
    if (stage.forward.count == 0) return;
    // No frames: one warp, which writes zeros.
    const int frames = stage.forward.frames, slots = frames < 1 ? 1 : frames < kSlots ? frames : kSlots;
    bind_backward<Carrier><<<unsigned(bind_parts(stage.forward.count)), dim3(32, unsigned(slots)), 0, stream>>>(stage);
}

}  // namespace

void launch_bind(const BindHeadStage<float>& stage, CUstream_st* stream) {
    launch_forward(stage, stream);
}

void launch_bind(const BindTorsoStage<float>& stage, CUstream_st* stream) {
    launch_forward(stage, stream);
}

void launch_bind_backward(const BindHeadGradientStage<float>& stage, CUstream_st* stream) {
    launch_backward(stage, stream);
    const int frames = stage.forward.frames, vertices = stage.forward.carrier.vertex_count;
    if (!stage.carrier.needed() || frames == 0 || vertices == 0) return;
    const dim3 block(32, unsigned(frames < kGatherWarps ? frames : kGatherWarps));
    gather_vertices<<<unsigned(vertices), block, 0, stream>>>(stage.carrier, frames, stage.forward.count);
}

void launch_bind_backward(const BindTorsoGradientStage<float>& stage, CUstream_st* stream) {
    launch_backward(stage, stream);
    const int frames = stage.forward.frames;
    if (!stage.carrier.needed() || frames == 0) return;
    sum_body<<<dim3(BodyCarrier<float>::kValues, unsigned(frames)), kSumThreads, 0, stream>>>(
        stage.carrier, frames, bind_parts(stage.forward.count));
}

}  // namespace being::training
