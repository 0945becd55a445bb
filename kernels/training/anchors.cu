// The operation `anchor_latents` on CUDA: two launches forwards and three back. As products of matrices it takes forty,
// none of which fills the device: the frames of a batch are few. 256 anchors, 8 frames, 64 hidden units and rank 20 are
// 2.6 million multiplications in the last layer, three times that back, and a third of a million in the trunk; what
// counts is how many loads a thread waits for in a row.
#include <cuda_runtime.h>

#include "kernels/training/anchors.h"

namespace being::training {
namespace {

constexpr int kWarp = 32, kThreads = 256;
constexpr int kWide = 512, kWideWarps = kWide / kWarp;   // threads where few blocks have much to add up
constexpr int kAcross = 128, kSlices = kWide / kAcross;  // of sums over rows: columns and shares of the rows
constexpr int kRows = 16;                                // of latents per block

__device__ float warp_sum(float value) {
#pragma unroll
    for (int apart = kWarp / 2; apart > 0; apart /= 2) value += __shfl_xor_sync(~0u, value, apart);
    return value;
}

// ---------------------------------------------------------------- forward

// write(row, weight[row] . in) by lane 0 of a warp per row.
template <class Write>
__device__ void rows_times(const float* weight, int stride, int rows, int columns, const float* in,
                           const Write& write) {
    const int lane = int(threadIdx.x) % kWarp;
#pragma unroll 4
    for (int row = int(threadIdx.x) / kWarp; row < rows; row += kWideWarps) {
        float sum = 0;
        for (int i = lane; i < columns; i += kWarp) sum = fused(__ldg(weight + size_t(row) * stride + i), in[i], sum);
        sum = warp_sum(sum);
        if (lane == 0) write(row, sum);
    }
}

// The trunk and what follows of it, a block per frame; then what anchors add, a thread per number.
__global__ void __launch_bounds__(kWide) trunk_kernel(const __grid_constant__ AnchorStage<float> s) {
    const int t = int(threadIdx.x), frame = int(blockIdx.x), stride = s.hidden1 + s.code;
    if (frame >= s.frames) {
        const int at = (frame - s.frames) * kWide + t;
        if (at >= s.anchors * s.hidden2) return;
        const int anchor = at / s.hidden2, j = at % s.hidden2;
        float sum = __ldg(s.head_bias_0 + j);
        for (int c = 0; c < s.code; ++c)
            sum = fused(__ldg(s.head_weight_0 + size_t(j) * stride + s.hidden1 + c),
                        __ldg(s.anchor_code + size_t(anchor) * s.code + c), sum);
        s.of_anchor[at] = sum;
        return;
    }
    __shared__ float input[kAnchorLayer], first[kAnchorLayer], second[kAnchorLayer];
    for (int i = t; i < s.inputs; i += kWide) input[i] = s.condition[size_t(frame) * s.inputs + i];
    __syncthreads();
    rows_times(s.trunk_weight_0, s.inputs, s.hidden0, s.inputs, input, [&](int row, float sum) {
        s.first[size_t(frame) * s.hidden0 + row] = first[row] = larger(0.0f, sum + __ldg(s.trunk_bias_0 + row));
    });
    __syncthreads();
    rows_times(s.trunk_weight_1, s.hidden0, s.hidden1, s.hidden0, first, [&](int row, float sum) {
        s.second[size_t(frame) * s.hidden1 + row] = second[row] = larger(0.0f, sum + __ldg(s.trunk_bias_1 + row));
    });
    __syncthreads();
    rows_times(s.head_weight_0, stride, s.hidden2, s.hidden1, second,
               [&](int row, float sum) { s.of_frame[size_t(frame) * s.hidden2 + row] = sum; });
}

// V1 with rows an odd number of floats apart, so that neighbours lie in different banks.
__device__ void load_head(const AnchorStage<float>& s, float* to) {
    for (int at = int(threadIdx.x); at < s.rank * s.hidden2; at += kThreads)
        to[at / s.hidden2 * (s.hidden2 | 1) + at % s.hidden2] = __ldg(s.head_weight_1 + at);
}

// A block takes 16 rows of [B M, K].
__global__ void __launch_bounds__(kThreads) latent_kernel(const __grid_constant__ AnchorStage<float> s) {
    extern __shared__ float shared[];
    float* const weight = shared;
    float* const hidden = shared + s.rank * (s.hidden2 | 1);
    const int first_row = int(blockIdx.x) * kRows, rows = min(kRows, s.frames * s.anchors - first_row);
    load_head(s, weight);
    for (int at = int(threadIdx.x); at < rows * s.hidden2; at += kThreads) {
        const int row = first_row + at / s.hidden2;
        hidden[at] = s.hidden(row / s.anchors, row % s.anchors, at % s.hidden2);
    }
    __syncthreads();
    for (int at = int(threadIdx.x); at < rows * s.rank; at += kThreads) {
        const float* const in = hidden + at / s.rank * s.hidden2;
        const float* const of = weight + at % s.rank * (s.hidden2 | 1);
        float sum = __ldg(s.head_bias_1 + at % s.rank);
#pragma unroll 8
        for (int j = 0; j < s.hidden2; ++j) sum = fused(of[j], in[j], sum);
        s.latent[size_t(first_row) * s.rank + at] = sum;
    }
}

// ---------------------------------------------------------------- backward

// A block goes through the frames of four anchors. It leaves dL/d(of_anchor), and its share of what is summed over all
// anchors: by V1, by c1 and by of_frame.
__global__ void __launch_bounds__(kThreads)
    latent_gradient_kernel(const __grid_constant__ AnchorGradientStage<float> g) {
    extern __shared__ float shared[];
    const AnchorStage<float>& s = g.forward;
    const int t = int(threadIdx.x), units = s.hidden2, stride = units | 1, first = int(blockIdx.x) * kAnchorTile;
    float* const weight = shared;                              // [K][stride]
    float* const by_weight = weight + s.rank * stride;         // [K][stride]
    float* const hidden = by_weight + s.rank * stride;         // [4][H2]
    float* const slope = hidden + kAnchorTile * units;         // [4][H2]
    float* const by_anchor = slope + kAnchorTile * units;      // [4][H2]
    float* const by_latent = by_anchor + kAnchorTile * units;  // [4][K]
    load_head(s, weight);
    for (int at = t; at < s.rank * stride; at += kThreads) by_weight[at] = 0;
    for (int at = t; at < kAnchorTile * units; at += kThreads) by_anchor[at] = 0;
    float by_bias = 0;
    float* const share = g.share + size_t(blockIdx.x) * g.share_size();
    for (int frame = 0; frame < s.frames; ++frame) {
        for (int at = t; at < kAnchorTile * s.rank; at += kThreads) {
            const int anchor = first + at / s.rank;
            by_latent[at] = anchor < s.anchors
                                ? __ldg(g.d_latent + (size_t(frame) * s.anchors + anchor) * s.rank + at % s.rank)
                                : 0.0f;
        }
        for (int at = t; at < kAnchorTile * units; at += kThreads)
            hidden[at] = s.hidden(frame, min(first + at / units, s.anchors - 1), at % units);
        __syncthreads();
        for (int at = t; at < kAnchorTile * units; at += kThreads) {
            const float* const d = by_latent + at / units * s.rank;
            float sum = 0;
#pragma unroll 4
            for (int k = 0; k < s.rank; ++k) sum = fused(weight[k * stride + at % units], d[k], sum);
            slope[at] = hidden[at] > 0.0f ? sum : 0.0f;
            by_anchor[at] += slope[at];
        }
        for (int at = t; at < s.rank * units; at += kThreads) {
            const int k = at / units, j = at % units;
            float sum = by_weight[k * stride + j];
#pragma unroll
            for (int i = 0; i < kAnchorTile; ++i) sum = fused(by_latent[i * s.rank + k], hidden[i * units + j], sum);
            by_weight[k * stride + j] = sum;
        }
        if (t < s.rank)
#pragma unroll
            for (int i = 0; i < kAnchorTile; ++i) by_bias += by_latent[i * s.rank + t];
        __syncthreads();
        for (int j = t; j < units; j += kThreads) {
            float sum = 0;
#pragma unroll
            for (int i = 0; i < kAnchorTile; ++i) sum += slope[i * units + j];
            share[s.rank * (units + 1) + frame * units + j] = sum;
        }
    }
    for (int at = t; at < s.rank * units; at += kThreads) share[at] = by_weight[at / units * stride + at % units];
    if (t < s.rank) share[s.rank * units + t] = by_bias;
    for (int at = t; at < kAnchorTile * units; at += kThreads)
        if (first + at / units < s.anchors) g.d_of_anchor[size_t(first) * units + at] = by_anchor[at];
}

// write(column, sum over rows of source(row, column)), a thread per column and share of the rows.
template <class Source, class Write>
__device__ void sum_rows(int rows, int columns, const Source& source, const Write& write) {
    __shared__ float of_slice[kSlices][kAcross];
    const int across = int(threadIdx.x) % kAcross, slice = int(threadIdx.x) / kAcross;
    for (int begin = 0; begin < columns; begin += kAcross) {
        const int column = begin + across;
        float sum = 0;
        if (column < columns)
#pragma unroll 8
            for (int row = slice; row < rows; row += kSlices) sum += source(row, column);
        of_slice[slice][across] = sum;
        __syncthreads();
        if (slice == 0 && column < columns) {
#pragma unroll
            for (int i = 1; i < kSlices; ++i) sum += of_slice[i][across];
            write(column, sum);
        }
        __syncthreads();
    }
}

// Back through the trunk, by the block of a frame.
__device__ void trunk_gradient(const AnchorGradientStage<float>& g, int frame) {
    __shared__ float by_frame[kAnchorLayer], by_second[kAnchorLayer], by_first[kAnchorLayer];
    const AnchorStage<float>& s = g.forward;
    const int stride = s.hidden1 + s.code;
    const float* const shares = g.share + s.rank * (s.hidden2 + 1) + size_t(frame) * s.hidden2;
    sum_rows(
        anchor_tiles(s.anchors), s.hidden2,
        [&](int tile, int j) { return __ldg(shares + size_t(tile) * g.share_size() + j); },
        [&](int j, float sum) { g.d_of_frame[size_t(frame) * s.hidden2 + j] = by_frame[j] = sum; });
    sum_rows(
        s.hidden2, s.hidden1,
        [&](int j, int i) { return __ldg(s.head_weight_0 + size_t(j) * stride + i) * by_frame[j]; },
        [&](int i, float sum) {
            const size_t at = size_t(frame) * s.hidden1 + i;
            g.d_second[at] = by_second[i] = s.second[at] > 0.0f ? sum : 0.0f;
        });
    sum_rows(
        s.hidden1, s.hidden0,
        [&](int i, int h) { return __ldg(s.trunk_weight_1 + size_t(i) * s.hidden0 + h) * by_second[i]; },
        [&](int h, float sum) {
            const size_t at = size_t(frame) * s.hidden0 + h;
            g.d_first[at] = by_first[h] = s.first[at] > 0.0f ? sum : 0.0f;
        });
    if (!g.d_condition) return;
    sum_rows(
        s.hidden0, s.inputs,
        [&](int h, int i) { return __ldg(s.trunk_weight_0 + size_t(h) * s.inputs + i) * by_first[h]; },
        [&](int i, float sum) { g.d_condition[size_t(frame) * s.inputs + i] = sum; });
}

// A number that is a sum of products: to = sum over n of left[n left_stride] right[n right_stride]; right null: of
// ones.
struct Sum {
    float* to;  // null: it is not wanted
    const float *left, *right;
    int left_stride, right_stride, terms;
};

// Sums over anchors (of shares, over tiles of them), and over hidden units for the codes.
__device__ Sum head_sum(const AnchorGradientStage<float>& g, int at) {
    const AnchorStage<float>& s = g.forward;
    const int units = s.hidden2, stride = s.hidden1 + s.code, tiles = anchor_tiles(s.anchors), size = g.share_size();
    if (at < s.rank * units)
        return {g.d_head_weight_1 ? g.d_head_weight_1 + at : nullptr, g.share + at, nullptr, size, 0, tiles};
    if (const int k = at - s.rank * units; k < s.rank)
        return {g.d_head_bias_1 ? g.d_head_bias_1 + k : nullptr, g.share + at, nullptr, size, 0, tiles};
    at -= s.rank * (units + 1);
    if (at < units)
        return {g.d_head_bias_0 ? g.d_head_bias_0 + at : nullptr, g.d_of_anchor + at, nullptr, units, 0, s.anchors};
    at -= units;
    const int c = at % s.code;
    if (const int j = at / s.code; j < units)
        return {g.d_head_weight_0 ? g.d_head_weight_0 + size_t(j) * stride + s.hidden1 + c : nullptr,
                g.d_of_anchor + j,
                s.anchor_code + c,
                units,
                s.code,
                s.anchors};
    const int anchor = at / s.code - units;
    if (anchor >= s.anchors) return {};
    return {g.d_anchor_code ? g.d_anchor_code + anchor * s.code + c : nullptr,
            g.d_of_anchor + size_t(anchor) * units,
            s.head_weight_0 + s.hidden1 + c,
            1,
            stride,
            units};
}

// The trunk, frames first; then a warp per sum.
__global__ void __launch_bounds__(kWide) sums_kernel(const __grid_constant__ AnchorGradientStage<float> g) {
    const int frames = g.forward.frames, block = int(blockIdx.x), lane = int(threadIdx.x) % kWarp;
    if (block < frames) {
        trunk_gradient(g, block);
        return;
    }
    const Sum sum = head_sum(g, (block - frames) * kWideWarps + int(threadIdx.x) / kWarp);
    if (!sum.to) return;
    float value = 0;
    for (int n = lane; n < sum.terms; n += kWarp) {
        const float factor = sum.right ? __ldg(sum.right + size_t(n) * sum.right_stride) : 1.0f;
        value = fused(__ldg(sum.left + size_t(n) * sum.left_stride), factor, value);
    }
    value = warp_sum(value);
    if (lane == 0) *sum.to = value;
}

// The sum over frames that is number `at` of a gradient [rows, columns], whose rows are `stride` numbers apart.
__device__ Sum frame_sum(int frames, int at, int rows, int columns, const float* left, const float* right, float* to,
                         int stride) {
    const int row = at / columns, column = at % columns;
    return {to ? to + size_t(row) * stride + column : nullptr,
            left + row,
            right ? right + column : nullptr,
            rows,
            columns,
            frames};
}

__device__ Sum trunk_sum(const AnchorGradientStage<float>& g, int at) {
    const AnchorStage<float>& s = g.forward;
    const int frames = s.frames, inputs = s.inputs, h0 = s.hidden0, h1 = s.hidden1, h2 = s.hidden2;
    if (at < h0 * inputs) return frame_sum(frames, at, h0, inputs, g.d_first, s.condition, g.d_trunk_weight_0, inputs);
    at -= h0 * inputs;
    if (at < h1 * h0) return frame_sum(frames, at, h1, h0, g.d_second, s.first, g.d_trunk_weight_1, h0);
    at -= h1 * h0;
    if (at < h2 * h1) return frame_sum(frames, at, h2, h1, g.d_of_frame, s.second, g.d_head_weight_0, h1 + s.code);
    at -= h2 * h1;
    if (at < h0) return frame_sum(frames, at, h0, 1, g.d_first, nullptr, g.d_trunk_bias_0, 1);
    at -= h0;
    if (at < h1) return frame_sum(frames, at, h1, 1, g.d_second, nullptr, g.d_trunk_bias_1, 1);
    return {};
}

// A thread per weight.
__global__ void __launch_bounds__(kThreads) weights_kernel(const __grid_constant__ AnchorGradientStage<float> g) {
    const Sum sum = trunk_sum(g, int(blockIdx.x) * kThreads + int(threadIdx.x));
    if (!sum.to) return;
    float value = 0;
#pragma unroll 4
    for (int frame = 0; frame < sum.terms; ++frame) {
        const float factor = sum.right ? __ldg(sum.right + size_t(frame) * sum.right_stride) : 1.0f;
        value = fused(__ldg(sum.left + size_t(frame) * sum.left_stride), factor, value);
    }
    *sum.to = value;
}

unsigned blocks_of(int count, int each) {
    return unsigned((count + each - 1) / each);
}

template <class Kernel>
void allow_shared(const Kernel& kernel, size_t bytes) {
    constexpr size_t kWithoutAsking = 48 * 1024;
    if (bytes > kWithoutAsking) cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes));
}

}  // namespace

void launch_anchors(const AnchorStage<float>& s, CUstream_st* stream) {
    trunk_kernel<<<unsigned(s.frames) + blocks_of(s.anchors * s.hidden2, kWide), kWide, 0, stream>>>(s);
    const size_t bytes = sizeof(float) * size_t(s.rank * (s.hidden2 | 1) + kRows * s.hidden2);
    allow_shared(latent_kernel, bytes);
    latent_kernel<<<blocks_of(s.frames * s.anchors, kRows), kThreads, bytes, stream>>>(s);
}

void launch_anchors_backward(const AnchorGradientStage<float>& g, CUstream_st* stream) {
    const AnchorStage<float>& s = g.forward;
    const size_t bytes = sizeof(float) * size_t(anchor_floats(s.hidden2, s.rank));
    allow_shared(latent_gradient_kernel, bytes);
    latent_gradient_kernel<<<unsigned(anchor_tiles(s.anchors)), kThreads, bytes, stream>>>(g);
    const int sums = s.rank * s.hidden2 + s.rank + s.hidden2 + (s.hidden2 + s.anchors) * s.code;
    sums_kernel<<<unsigned(s.frames) + blocks_of(sums, kWideWarps), kWide, 0, stream>>>(g);
    const int weights = s.hidden0 * (s.inputs + 1) + s.hidden1 * (s.hidden0 + 1) + s.hidden2 * s.hidden1;
    weights_kernel<<<blocks_of(weights, kThreads), kThreads, 0, stream>>>(g);
}

}  // namespace being::training
