// The operation `blend_offsets` on a CUDA device: o_i = s B_i z_i, z_i = sum_a w_ia Z_k(i,a), for B frames, and the
// mean of (p o)^2.
//
// A block holds the bases of 16 Gaussians in shared memory (16.6 KB at rank 20) and goes through the frames, eight at a
// time, or one, two or four where there are no more: first z of these frames, a thread per four ranks of a Gaussian and
// frame, then a thread per Gaussian and channel. Backward, the same blocks give dL/dB_i and dL/dz_i; then the latents
// of an anchor gather dL/dz_i from their Gaussians, in slices that a last kernel adds up in their order.
//
// Bound by memory. 60,000 Gaussians, rank 20, 8 frames: forward reads 62 MB of bases and writes 25 MB; backward reads
// 62 + 25 (twice 25 where offsets cost something) and writes 62 + 38 MB, then reads the 38 MB four times, once per
// anchor of a Gaussian, which the second-level cache serves in part.
#include <cuda_pipeline.h>

#include <type_traits>

#include "kernels/common/real.h"
#include "kernels/device/block_sum.cuh"
#include "kernels/training/offsets.h"

namespace being::training {
namespace {

constexpr int kPoints = 16, kRows = kPoints * config::kChannels, kThreads = 224;
static_assert(kRows <= kThreads);

// Blocks on a multiprocessor: the fewer frames, the less there is to hide memory's latency behind.
template <int kFrames>
constexpr int kResident = kFrames > 2 ? 4 : 6;

// Frames whose dL/dz a thread has at once, and their values side by side.
template <int kFrames>
constexpr int kPart = kFrames < 4 ? kFrames : 4;
template <int kFrames>
struct alignas(4 * kPart<kFrames>) Slopes {
    float of[kPart<kFrames>];
};

// How a block's shared memory is laid out, in float4. Strides are odd, so that neighbours lie in different banks.
template <int kFrames>
struct Layout {
    int quads;         // of a rank
    int basis_stride;  // from a row (Gaussian, channel) to the next
    int mixed_stride;  // from a Gaussian's z of kFrames frames to the next

    __host__ __device__ explicit Layout(int rank)
        : quads(rank / 4), basis_stride(quads | 1), mixed_stride(quads * kFrames | 1) {}
    __host__ __device__ int mixed_at() const { return kRows * basis_stride; }
    __host__ __device__ int slopes_at() const { return mixed_at() + kPoints * mixed_stride; }
    __host__ __device__ int slopes_end() const { return slopes_at() + kRows * kFrames / 4; }
};

__device__ float4 scaled_sum(float scale, const float4& a, const float4& sum) {
    return {fused(scale, a.x, sum.x), fused(scale, a.y, sum.y), fused(scale, a.z, sum.z), fused(scale, a.w, sum.w)};
}

// Calls visit(row, quad, whether this is the row's last) for a share of rows * quads, neighbours by neighbours.
template <int kUnroll, class Visit>
__device__ void for_each_quad(int rows, int quads, const Visit& visit) {
    const int t = int(threadIdx.x), step = kThreads / quads, quad = t % quads;
    if (t < step * quads)
#pragma unroll kUnroll
        for (int row = t / quads; row < rows; row += step) visit(row, quad);
}

template <class Layout>
__device__ void start_basis(const float* basis, int first, int rows, const Layout& layout, float4* shared) {
    const auto* from = reinterpret_cast<const float4*>(basis) + size_t(first) * config::kChannels * layout.quads;
    for_each_quad<4>(rows, layout.quads, [&](int row, int quad) {
        __pipeline_memcpy_async(shared + row * layout.basis_stride + quad, from + row * layout.quads + quad, 16);
    });
    __pipeline_commit();
}

// z of up to kFrames frames; 0 where there is no frame.
template <int kFrames, class Stage>
__device__ void mix(const Stage& s, int first, int points, int first_frame, const Layout<kFrames>& layout,
                    float4* shared) {
    const auto* index = reinterpret_cast<const int4*>(s.index) + first;
    const auto* weight = reinterpret_cast<const float4*>(s.weight) + first;
    const auto* latent = reinterpret_cast<const float4*>(s.latent);
    const int quads = layout.quads;
    for_each_quad<2>(points * kFrames, quads, [&](int row, int quad) {
        const int point = row / kFrames, frame = row % kFrames;
        float4 z{0, 0, 0, 0};
        if (first_frame + frame < s.frames) {
            const int4 at = __ldg(index + point);
            const float4 w = __ldg(weight + point);
            const float4* const from = latent + size_t(first_frame + frame) * s.anchors * quads + quad;
            z = scaled_sum(w.x, __ldg(from + at.x * quads), z);
            z = scaled_sum(w.y, __ldg(from + at.y * quads), z);
            z = scaled_sum(w.z, __ldg(from + at.z * quads), z);
            z = scaled_sum(w.w, __ldg(from + at.w * quads), z);
        }
        shared[layout.mixed_at() + point * layout.mixed_stride + frame * quads + quad] = z;
    });
}

template <int kFrames>
__global__ void __launch_bounds__(kThreads, kResident<kFrames>) blend(const __grid_constant__ OffsetsForward<float> s) {
    extern __shared__ float4 shared[];
    const Layout<kFrames> layout(s.rank);
    const int t = int(threadIdx.x), first = int(blockIdx.x) * kPoints, points = min(kPoints, s.count - first);
    const int rows = points * config::kChannels;
    start_basis(s.basis, first, rows, layout, shared);
    const float scale = s.scale ? __ldg(s.scale + t % config::kChannels) : 1.0f;
    const float penalty = s.penalty ? __ldg(s.penalty + t % config::kChannels) : 0.0f;
    float cost[1] = {0};
    for (int first_frame = 0; first_frame < s.frames; first_frame += kFrames) {
        mix(s, first, points, first_frame, layout, shared);
        __pipeline_wait_prior(0);
        __syncthreads();
        if (t < rows) {
            const float4* basis = shared + t * layout.basis_stride;
            const float4* mixed = shared + layout.mixed_at() + t / config::kChannels * layout.mixed_stride;
            float sum[kFrames] = {};
#pragma unroll 1
            for (int quad = 0; quad < layout.quads; ++quad) {
                const float4 b = basis[quad];
#pragma unroll
                for (int f = 0; f < kFrames; ++f) {
                    const float4 z = mixed[f * layout.quads + quad];
                    sum[f] = fused(b.x, z.x, fused(b.y, z.y, fused(b.z, z.z, fused(b.w, z.w, sum[f]))));
                }
            }
#pragma unroll
            for (int f = 0; f < kFrames; ++f)
                if (first_frame + f < s.frames) {
                    const float offset = scale * sum[f];
                    s.offsets[(size_t(first_frame + f) * s.count + first) * config::kChannels + t] = offset;
                    cost[0] += offset_cost(penalty, offset);
                }
        }
        __syncthreads();
    }
    if (!s.penalty) return;
    cuda::block_sum<kThreads>(cost);
    if (t == 0) s.share[blockIdx.x] = cost[0];
}

__global__ void __launch_bounds__(cuda::kShareThreads)
    add_costs(const __grid_constant__ OffsetsForward<float> s, int shares) {
    double sum[1];
    cuda::add_shares(s.share, shares, sum);
    if (threadIdx.x == 0) *s.cost = float(sum[0] / offsets_in_all(s));
}

// ---------------------------------------------------------------- backward

// dL/d(B z) of kFrames frames: of this thread's Gaussian and channel, and all of them in shared memory.
template <int kFrames>
__device__ void load_slopes(const OffsetsBackward<float>& s, int first, int rows, int first_frame,
                            const Layout<kFrames>& layout, float4* shared, float (&slope)[kFrames]) {
    const int t = int(threadIdx.x), channel = t % config::kChannels;
    const float scale = s.scale ? __ldg(s.scale + channel) : 1.0f;
    const float penalty = s.d_cost ? __ldg(s.penalty + channel) : 0.0f;
    const float by_cost = s.d_cost ? __ldg(s.d_cost) / float(offsets_in_all(s)) : 0.0f;
#pragma unroll
    for (int f = 0; f < kFrames; ++f) {
        slope[f] = 0;
        if (t >= rows || first_frame + f >= s.frames) continue;
        const size_t row = (size_t(first_frame + f) * s.count + first) * config::kChannels + t;
        if (s.d_offsets) slope[f] = s.d_offsets[row];
        if (s.d_cost) slope[f] += offset_cost_slope(penalty, s.offsets[row], by_cost);
        slope[f] *= scale;
    }
    if (t >= rows) return;
    constexpr int kParts = kFrames / kPart<kFrames>;
    auto* const to = reinterpret_cast<Slopes<kFrames>*>(shared + layout.slopes_at()) + t * kParts;
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
        Slopes<kFrames> slopes;
#pragma unroll
        for (int i = 0; i < kPart<kFrames>; ++i) slopes.of[i] = slope[part * kPart<kFrames> + i];
        to[part] = slopes;
    }
}

// dL/dz = B^T dL/do: a thread per Gaussian, four ranks and up to four frames.
template <int kFrames>
__device__ void unmix(const OffsetsBackward<float>& s, int first, int points, int first_frame,
                      const Layout<kFrames>& layout, const float4* shared) {
    constexpr int kSide = kPart<kFrames>, kParts = kFrames / kSide;
    const int quads = layout.quads;
    auto* const out = reinterpret_cast<float4*>(s.d_mixed) + size_t(first) * s.frames * quads;
    const auto* const slopes = reinterpret_cast<const Slopes<kFrames>*>(shared + layout.slopes_at());
    for_each_quad<1>(points * kParts, quads, [&](int row, int quad) {
        const int point = row / kParts, part = row % kParts;
        const float4* basis = shared + point * config::kChannels * layout.basis_stride + quad;
        const Slopes<kFrames>* slope = slopes + point * config::kChannels * kParts + part;
        float4 sum[kSide] = {};
#pragma unroll
        for (int c = 0; c < config::kChannels; ++c) {
            const float4 b = basis[c * layout.basis_stride];
            const Slopes<kFrames> d = slope[c * kParts];
#pragma unroll
            for (int i = 0; i < kSide; ++i) sum[i] = scaled_sum(d.of[i], b, sum[i]);
        }
#pragma unroll
        for (int i = 0; i < kSide; ++i) {
            const int frame = first_frame + part * kSide + i;
            if (frame < s.frames) out[(point * s.frames + frame) * quads + quad] = sum[i];
        }
    });
}

template <int kFrames>
__global__ void __launch_bounds__(kThreads, kResident<kFrames>)
    blend_gradient(const __grid_constant__ OffsetsBackward<float> s) {
    extern __shared__ float4 shared[];
    const Layout<kFrames> layout(s.rank);
    const int t = int(threadIdx.x), first = int(blockIdx.x) * kPoints, points = min(kPoints, s.count - first);
    const int rows = points * config::kChannels;
    float slope[kFrames];
    int loaded = -1;  // first of the frames whose slopes are there
    const int last_frames = (s.frames - 1) / kFrames * kFrames;
    if (s.d_latent) start_basis(s.basis, first, rows, layout, shared);
    if (s.d_basis) mix(s, first, points, last_frames, layout, shared);  // while the bases are under way
    if (s.d_latent) {
        for (int first_frame = 0; first_frame < s.frames; first_frame += kFrames) {
            if (loaded >= 0) __syncthreads();
            load_slopes(s, first, rows, first_frame, layout, shared, slope);
            loaded = first_frame;
            __pipeline_wait_prior(0);
            __syncthreads();
            unmix(s, first, points, first_frame, layout, shared);
        }
    }
    if (!s.d_basis) return;

    // dL/dB = sum over frames of dL/do z^T, where the basis was; from the last frames to the first, because the last
    // ones' slopes are there.
    for (int first_frame = last_frames; first_frame >= 0; first_frame -= kFrames) {
        __syncthreads();
        if (loaded != first_frame) load_slopes(s, first, rows, first_frame, layout, shared, slope);
        if (first_frame != last_frames) mix(s, first, points, first_frame, layout, shared);
        __syncthreads();
        if (t < rows) {
            float4* const to = shared + t * layout.basis_stride;
            const float4* mixed = shared + layout.mixed_at() + t / config::kChannels * layout.mixed_stride;
            for (int quad = 0; quad < layout.quads; ++quad) {
                float4 sum = first_frame == last_frames ? float4{0, 0, 0, 0} : to[quad];
#pragma unroll
                for (int f = 0; f < kFrames; ++f) sum = scaled_sum(slope[f], mixed[f * layout.quads + quad], sum);
                to[quad] = sum;
            }
        }
        loaded = first_frame;
    }
    __syncthreads();
    auto* const out = reinterpret_cast<float4*>(s.d_basis) + size_t(first) * config::kChannels * layout.quads;
    for_each_quad<4>(rows, layout.quads, [&](int row, int quad) {
        out[row * layout.quads + quad] = shared[row * layout.basis_stride + quad];
    });
}

// A slice of an anchor's entries: groups of threads take every so many entries each, a thread four values of them.
constexpr int kGatherThreads = 128;

__global__ void __launch_bounds__(kGatherThreads) gather(const __grid_constant__ OffsetsBackward<float> s) {
    __shared__ float4 sums[kGatherThreads];
    const int t = int(threadIdx.x), anchor = int(blockIdx.x), slice = int(blockIdx.y);
    const int quads = s.frames * s.rank / 4, groups = max(1, kGatherThreads / quads);
    const int group = groups == 1 ? 0 : t / quads;
    const int quad = groups == 1 ? int(blockIdx.z) * kGatherThreads + t : t % quads;
    const int start = __ldg(s.starts + anchor), length = __ldg(s.starts + anchor + 1) - start;
    const int begin = start + int(int64_t(length) * slice / s.slices);
    const int end = start + int(int64_t(length) * (slice + 1) / s.slices);
    const bool takes_part = group < groups && quad < quads;
    float4 sum{0, 0, 0, 0};
    if (takes_part) {
        const auto* from = reinterpret_cast<const float4*>(s.d_mixed) + quad;
#pragma unroll 4
        for (int at = begin + group; at < end; at += groups) {
            const int entry = __ldg(s.entries + at);
            const float weight = __ldg(s.weight + entry);
            sum = scaled_sum(weight, __ldg(from + size_t(entry / kAnchorsPerPoint) * quads), sum);
        }
    }
    sums[t] = sum;
    __syncthreads();
    if (!takes_part || group > 0) return;
    for (int i = 1; i < groups; ++i) sum = scaled_sum(1.0f, sums[i * quads + quad], sum);
    reinterpret_cast<float4*>(s.partial)[(size_t(anchor) * s.slices + slice) * quads + quad] = sum;
}

// Slices in their order: eight threads share a value.
constexpr int kValues = 32, kShares = 8;

__global__ void __launch_bounds__(kValues* kShares) add_slices(const __grid_constant__ OffsetsBackward<float> s) {
    __shared__ float shares[kShares][kValues];
    const int column = int(threadIdx.x) % kValues, share = int(threadIdx.x) / kValues, anchor = int(blockIdx.x);
    const int values = s.frames * s.rank, value = int(blockIdx.y) * kValues + column;
    float sum = 0;
    if (value < values)
#pragma unroll 8
        for (int slice = share; slice < s.slices; slice += kShares)
            sum += s.partial[(size_t(anchor) * s.slices + slice) * values + value];
    shares[share][column] = sum;
    __syncthreads();
    if (share > 0 || value >= values) return;
#pragma unroll
    for (int i = 1; i < kShares; ++i) sum += shares[i][column];
    const int frame = value / s.rank, k = value % s.rank;
    s.d_latent[(size_t(frame) * s.anchors + anchor) * s.rank + k] = sum;
}

template <class Kernel>
void allow_shared(const Kernel& kernel, size_t bytes) {
    constexpr size_t kWithoutAsking = 48 * 1024;
    if (bytes > kWithoutAsking) cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes));
}

unsigned blocks_of(int count, int each) {
    return unsigned((count + each - 1) / each);
}

// Calls launch(frames at a time), which is a constant.
template <class Launch>
void with_frames(int frames, const Launch& launch) {
    if (frames == 1)
        launch(std::integral_constant<int, 1>());
    else if (frames == 2)
        launch(std::integral_constant<int, 2>());
    else if (frames <= 4)
        launch(std::integral_constant<int, 4>());
    else
        launch(std::integral_constant<int, 8>());
}

}  // namespace

void launch_offsets_forward(const OffsetsForward<float>& s, cudaStream_t stream) {
    const unsigned blocks = blocks_of(s.count, kPoints);
    with_frames(s.frames, [&](auto frames) {
        constexpr int kFrames = decltype(frames)::value;
        const size_t bytes = size_t(Layout<kFrames>(s.rank).slopes_at()) * sizeof(float4);
        allow_shared(blend<kFrames>, bytes);
        blend<kFrames><<<blocks, kThreads, bytes, stream>>>(s);
    });
    if (s.penalty) add_costs<<<1, cuda::kShareThreads, 0, stream>>>(s, int(blocks));
}

void launch_offsets_backward(const OffsetsBackward<float>& s, cudaStream_t stream) {
    with_frames(s.frames, [&](auto frames) {
        constexpr int kFrames = decltype(frames)::value;
        const size_t bytes = size_t(Layout<kFrames>(s.rank).slopes_end()) * sizeof(float4);
        allow_shared(blend_gradient<kFrames>, bytes);
        blend_gradient<kFrames><<<blocks_of(s.count, kPoints), kThreads, bytes, stream>>>(s);
    });
    if (!s.d_latent) return;
    const int values = s.frames * s.rank;
    const dim3 slices{unsigned(s.anchors), unsigned(s.slices), blocks_of(values / 4, kGatherThreads)};
    gather<<<slices, kGatherThreads, 0, stream>>>(s);
    const dim3 sums{unsigned(s.anchors), blocks_of(values, kValues)};
    add_slices<<<sums, kValues * kShares, 0, stream>>>(s);
}

}  // namespace being::training
