// The operations `correct_tracks`, `track_costs` and `gather_motion` on CUDA: a block per timestep (or knot, or frame),
// a thread per column. The tensors are small, a minute has 1500 timesteps of 120 columns: what takes time is to launch.
#include <cuda_runtime.h>

#include "kernels/device/block_sum.cuh"
#include "kernels/training/tracks.h"

namespace being::training {
namespace {

constexpr int kThreads = kTrackColumns;
constexpr int kSlices = 4;  // groups of threads that share the entries of a knot, which may be some hundreds

// out[c] = the sum over the entries of this block's row of weight times source(column), for this thread's column c of
// the motion.
template <class Source>
__device__ void sum_entries(const SparseRows<float>& rows, int columns, float* out, const Source& source) {
    __shared__ float of_slice[kSlices][kThreads];
    const int c = int(threadIdx.x) % kThreads, slice = int(threadIdx.x) / kThreads, row = int(blockIdx.x);
    if (c < columns) of_slice[slice][c] = rows.times(row, slice, kSlices, source);
    __syncthreads();
    if (slice > 0 || c >= columns) return;
    float sum = of_slice[0][c];
#pragma unroll
    for (int i = 1; i < kSlices; ++i) sum += of_slice[i][c];
    out[size_t(row) * columns + c] = sum;
}

__global__ void __launch_bounds__(kThreads* kSlices) fit_kernel(const __grid_constant__ TrackStage<float> s) {
    const int c = min(int(threadIdx.x) % kThreads, s.columns - 1);
    const TrackColumn<const float> correction = track_column(s.correction, s.begin, c);
    sum_entries(s.fit, s.columns, s.knot, [&](int t) { return correction[t]; });
}

__global__ void __launch_bounds__(kThreads) change_kernel(const __grid_constant__ TrackStage<float> s) {
    const int c = int(threadIdx.x), t = int(blockIdx.x);
    if (c >= s.columns) return;
    const size_t at = size_t(t) * s.columns + c;
    s.values[at] = s.given[at] + track_change(s, track_column(s.correction, s.begin, c), t, c);
}

__global__ void __launch_bounds__(kThreads* kSlices)
    knot_slope_kernel(const __grid_constant__ TrackGradientStage<float> s) {
    const int c = min(int(threadIdx.x) % kThreads, s.columns - 1);
    sum_entries(s.hats_t, s.columns, s.d_knot, [&](int t) { return track_slope(s, t, c); });
}

__global__ void __launch_bounds__(kThreads)
    correction_slope_kernel(const __grid_constant__ TrackGradientStage<float> s) {
    const int c = int(threadIdx.x), t = int(blockIdx.x);
    if (c >= s.columns) return;
    const TrackColumn<float> slope = track_column(s.d_correction, s.begin, c);
    if (slope.first) slope[t] = track_correction_slope(s, t, c);
}

// A block takes a timestep, and the triple of the same number.
__global__ void __launch_bounds__(kThreads) track_share_kernel(const __grid_constant__ TrackCostStage<float> s) {
    const int c = int(threadIdx.x), t = int(blockIdx.x);
    float cost[2] = {0, 0};
    if (c < s.columns) {
        const float change = track_change(s, t, c), acceleration = t < s.triples ? track_acceleration(s, t, c) : 0.0f;
        cost[0] = change * change;
        cost[1] = acceleration * acceleration;
    }
    cuda::block_sum<kThreads>(cost);
    if (c > 0) return;
    s.share[2 * t] = cost[0];
    s.share[2 * t + 1] = cost[1];
}

__global__ void __launch_bounds__(cuda::kShareThreads)
    track_cost_kernel(const __grid_constant__ TrackCostStage<float> s) {
    double sums[2];
    cuda::add_shares(s.share, s.timesteps, sums);
    if (threadIdx.x > 0) return;
    *s.cost[0] = float(sums[0]);
    *s.cost[1] = float(sums[1]);
}

__global__ void __launch_bounds__(kThreads) track_cost_slope_kernel(const __grid_constant__ TrackCostStage<float> s) {
    const int c = int(threadIdx.x), t = int(blockIdx.x);
    if (c < s.columns) s.d_values[size_t(t) * s.columns + c] = track_cost_slope(s, t, c);
}

__global__ void __launch_bounds__(kThreads) motion_kernel(const __grid_constant__ MotionStage<float> s) {
    if (int(threadIdx.x) < s.columns) gather_motion(s, int(blockIdx.x), int(threadIdx.x));
}

__global__ void __launch_bounds__(kThreads) motion_gradient_kernel(const __grid_constant__ MotionStage<float> s) {
    if (int(threadIdx.x) < s.columns) motion_gradient(s, int(blockIdx.x), int(threadIdx.x));
}

}  // namespace

void launch_tracks(const TrackStage<float>& stage, CUstream_st* stream) {
    if (stage.fit.starts) fit_kernel<<<unsigned(stage.knots), kThreads * kSlices, 0, stream>>>(stage);
    change_kernel<<<unsigned(stage.timesteps), kThreads, 0, stream>>>(stage);
}

void launch_tracks_backward(const TrackGradientStage<float>& stage, CUstream_st* stream) {
    if (stage.hats_t.starts) knot_slope_kernel<<<unsigned(stage.knots), kThreads * kSlices, 0, stream>>>(stage);
    correction_slope_kernel<<<unsigned(stage.timesteps), kThreads, 0, stream>>>(stage);
}

void launch_track_costs(const TrackCostStage<float>& stage, CUstream_st* stream) {
    track_share_kernel<<<unsigned(stage.timesteps), kThreads, 0, stream>>>(stage);
    track_cost_kernel<<<1, cuda::kShareThreads, 0, stream>>>(stage);
}

void launch_track_costs_backward(const TrackCostStage<float>& stage, CUstream_st* stream) {
    track_cost_slope_kernel<<<unsigned(stage.timesteps), kThreads, 0, stream>>>(stage);
}

void launch_motion(const MotionStage<float>& stage, CUstream_st* stream) {
    motion_kernel<<<unsigned(stage.frames), kThreads, 0, stream>>>(stage);
}

void launch_motion_backward(const MotionStage<float>& stage, CUstream_st* stream) {
    motion_gradient_kernel<<<unsigned(stage.timesteps), kThreads, 0, stream>>>(stage);
}

}  // namespace being::training
