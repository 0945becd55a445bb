// The operation `photometric_loss` on CUDA.
//
// With SSIM, a block has a tile of 32x32 pixels. Forward, both pictures of it and of the five pixels around it go to
// shared memory once; per channel the window's four means (ssim.h) are taken along rows, eight neighbours per thread,
// then along columns, four neighbours per thread, from registers as far as possible. Backward does the same with the
// three derivatives that forward kept. Bound by arithmetic and memory alike. Per pixel and channel: forward 4 means of
// 11 x (1 + 42/32) products, 8 + 8/3 bytes; backward 3 of them, 8 bytes (14 with the rim, mostly from the second-level
// cache) + 32/3 + 2.
//
// Most of a picture may be background that both pictures show. Where they are equal to the bit in everything that a
// tile's windows see, its losses are 0, and so are the derivatives: SSIM has its maximum there. Such a tile is done
// once it has been read, and in the backward pass, if its neighbours are the same, before.
//
// Without SSIM a thread has a pixel, and there is nothing to keep.
//
// Sums are added up per thread, then across warps, then over blocks by a second kernel: always in one order.
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "kernels/common/photometric.h"
#include "kernels/common/ssim.h"
#include "kernels/training/loss.h"

namespace being::training {
namespace {

constexpr int kThreads = 256, kWarp = 32, kWarps = kThreads / kWarp;
constexpr int kReach = kLossTile + 2 * kSsimRadius;      // px a side that a tile's windows see
constexpr int kAlong = 8, kGroups = kLossTile / kAlong;  // pixels of a row per thread
constexpr int kDown = kLossTile / kWarps;                // pixels of a column per thread
constexpr int kMoments = 4;
// Floats per row in shared memory. 44: eight threads that read four floats at a time, eight apart, four of them in a
// row and four in the next, have different banks; 36: likewise where they write.
constexpr int kPlaneStride = 44, kRowStride = 36;
constexpr int kSteps = (kReach * kReach + kThreads - 1) / kThreads;
constexpr int kLoads = 4;  // steps whose reads are under way together
static_assert(kLossTile == kWarp && kReach * kGroups <= kThreads && kReach + 2 <= kPlaneStride);

using Plane = float[kReach][kPlaneStride];  // of a tile and what its windows see around it; 0 outside the picture
using Rows = float[kReach][kRowStride];     // means along rows

struct ForwardMemory {
    Plane picture[3], target[3];
    Rows rows[kMoments];
};
struct BackwardMemory {
    Plane kept[kSsimKept];
    Rows rows[kSsimKept];
};

// The pixel of a tile's reach that a thread loads in a step. The remainder tells the compiler which steps are whole.
__device__ int step_pixel(int step) {
    return step * kThreads + int(threadIdx.x % kThreads);
}

__device__ int64_t pixel_of(const LossStage<float>& s, int picture, int y, int x) {
    return (int64_t(picture) * s.height + y) * s.width + x;
}

__device__ float4 picture_at(const LossStage<float>& s, int64_t pixel) {
    return __ldg(reinterpret_cast<const float4*>(s.picture) + pixel);
}

__device__ TargetPixel<float> target_at(const LossStage<float>& s, int64_t pixel, const Vector3<float>& background) {
    const uchar4 p = __ldg(reinterpret_cast<const uchar4*>(s.target) + pixel);
    return target_pixel(p.x, p.y, p.z, p.w, background);
}

__device__ void add_pixel(const LossStage<float>& s, float weight, const float4& p, const TargetPixel<float>& target,
                          LossSums<float>& sums) {
    sums.l1 += weight * (robust(p.x - target.colour.x, s.huber) + robust(p.y - target.colour.y, s.huber) +
                         robust(p.z - target.colour.z, s.huber));
    sums.alpha += coverage_cost(p.w, target.alpha, s.tolerance);
}

// The gradient without SSIM's share.
__device__ float4 pixel_gradient(const LossStage<float>& s, const LossSums<float>& scale, float weight, const float4& p,
                                 const TargetPixel<float>& target) {
    const float l1 = scale.l1 * weight;
    return {l1 * robust_slope(p.x - target.colour.x, s.huber), l1 * robust_slope(p.y - target.colour.y, s.huber),
            l1 * robust_slope(p.z - target.colour.z, s.huber),
            scale.alpha * coverage_slope(p.w, target.alpha, s.tolerance)};
}

// SSIM's window over neighbours.
template <int kOutputs>
__device__ void blur(const float (&in)[kOutputs + 2 * kSsimRadius], float (&out)[kOutputs]) {
#pragma unroll
    for (int i = 0; i < kOutputs; ++i) {
        out[i] = ssim_window<float>(0) * in[i];
#pragma unroll
        for (int k = 1; k < kSsimTaps; ++k) out[i] = fused(ssim_window<float>(k), in[i + k], out[i]);
    }
}

// The pixels that a thread blurs along a row: kAlong of them, and what their windows see.
__device__ void read(const Plane& plane, int y, int x, float (&out)[kAlong + 2 * kSsimRadius]) {
    constexpr int kVectors = (kAlong + 2 * kSsimRadius + 3) / 4;
    float4 vector[kVectors];
#pragma unroll
    for (int i = 0; i < kVectors; ++i) vector[i] = *reinterpret_cast<const float4*>(&plane[y][x + i * 4]);
    const float* values = &vector[0].x;
#pragma unroll
    for (int i = 0; i < kAlong + 2 * kSsimRadius; ++i) out[i] = values[i];
}

__device__ void blur_along(const float (&in)[kAlong + 2 * kSsimRadius], Rows& rows, int y, int x) {
    float out[kAlong];
    blur(in, out);
#pragma unroll
    for (int i = 0; i < kAlong; i += 4)
        *reinterpret_cast<float4*>(&rows[y][x + i]) = {out[i], out[i + 1], out[i + 2], out[i + 3]};
}

// Of kDown pixels, from row y of the tile on.
__device__ void blur_down(const Rows& rows, int y, int x, float (&out)[kDown]) {
    float in[kDown + 2 * kSsimRadius];
#pragma unroll
    for (int i = 0; i < kDown + 2 * kSsimRadius; ++i) in[i] = rows[y + i][x];
    blur(in, out);
}

// Sums of a block's threads to its place in `partial`.
__device__ void write_partial(const LossStage<float>& s, LossSums<float> sums, int block) {
    __shared__ float of_warp[3][kWarps];
    const int t = int(threadIdx.x);
#pragma unroll
    for (int offset = kWarp / 2; offset > 0; offset /= 2) {
        sums.l1 += __shfl_xor_sync(~0u, sums.l1, offset);
        sums.dssim += __shfl_xor_sync(~0u, sums.dssim, offset);
        sums.alpha += __shfl_xor_sync(~0u, sums.alpha, offset);
    }
    if (t % kWarp == 0) {
        of_warp[0][t / kWarp] = sums.l1;
        of_warp[1][t / kWarp] = sums.dssim;
        of_warp[2][t / kWarp] = sums.alpha;
    }
    __syncthreads();
    if (t < 3) {
        float sum = 0;
#pragma unroll
        for (int i = 0; i < kWarps; ++i) sum += of_warp[t][i];
        s.partial[block * 3 + t] = sum;
    }
}

// ---------------------------------------------------------------- with SSIM

// Both pictures of a tile to shared memory; the sums that need no window. Whether what this thread saw is equal.
__device__ bool load_pictures(const LossStage<float>& s, ForwardMemory& memory, LossSums<float>& sums) {
    const int picture = int(blockIdx.z), top = int(blockIdx.y) * kLossTile - kSsimRadius,
              left = int(blockIdx.x) * kLossTile - kSsimRadius;
    bool equal = true;
#pragma unroll
    for (int first = 0; first < kSteps; first += kLoads) {
        // Without a condition, so that no read waits for another: outside, the picture's edge is read and thrown away.
        float4 given[kLoads];
        TargetPixel<float> wanted[kLoads];
        float weight[kLoads];
#pragma unroll
        for (int n = 0; n < kLoads; ++n) {
            const int i = step_pixel(first + n);
            const int y = min(max(top + i / kReach, 0), s.height - 1), x = min(max(left + i % kReach, 0), s.width - 1);
            const int64_t pixel = pixel_of(s, picture, y, x);
            given[n] = picture_at(s, pixel);
            wanted[n] = target_at(s, pixel, s.background.at(picture, y, x));
            weight[n] = s.weight_of(pixel);
        }
#pragma unroll
        for (int n = 0; n < kLoads; ++n) {
            const int i = step_pixel(first + n), row = i / kReach, column = i % kReach;
            if (i >= kReach * kReach) break;
            const bool inside = unsigned(top + row) < unsigned(s.height) && unsigned(left + column) < unsigned(s.width);
            const float4 p = inside ? given[n] : float4{0, 0, 0, 0};
            const TargetPixel<float> target = inside ? wanted[n] : TargetPixel<float>{{0, 0, 0}, 0};
            equal &= p.x == target.colour.x & p.y == target.colour.y & p.z == target.colour.z & p.w == target.alpha;
            if (unsigned(row - kSsimRadius) < unsigned(kLossTile) &&
                unsigned(column - kSsimRadius) < unsigned(kLossTile))
                add_pixel(s, weight[n], p, target, sums);
            memory.picture[0][row][column] = p.x;
            memory.picture[1][row][column] = p.y;
            memory.picture[2][row][column] = p.z;
            memory.target[0][row][column] = target.colour.x;
            memory.target[1][row][column] = target.colour.y;
            memory.target[2][row][column] = target.colour.z;
        }
    }
    return equal;
}

__device__ int tile_of(int picture, int row, int column) {
    return int((picture * gridDim.y + row) * gridDim.x + column);
}

// The four means of a channel along rows.
__device__ void moments_along(const Plane& picture, const Plane& target, Rows (&rows)[kMoments]) {
    const int y = int(threadIdx.x) / kGroups, x = int(threadIdx.x) % kGroups * kAlong;
    if (y >= kReach) return;
    constexpr int kIn = kAlong + 2 * kSsimRadius;
    float a[kIn], b[kIn], product[kIn];
    read(picture, y, x, a);
    read(target, y, x, b);
    blur_along(a, rows[0], y, x);
    blur_along(b, rows[1], y, x);
#pragma unroll
    for (int i = 0; i < kIn; ++i) {
        product[i] = a[i] * b[i];
        a[i] = fused(a[i], a[i], b[i] * b[i]);
    }
    blur_along(a, rows[2], y, x);
    blur_along(product, rows[3], y, x);
}

// What a pixel gives to the gradients of those around it: the first as it is, made of the others as they are kept.
__device__ float2 pack(const Ssim<float>& ssim, const SsimMoments<float>& moments, float weight) {
    const __half2 packed = __floats2half2_rn(weight * ssim.by_square, weight * ssim.by_product);
    const Ssim<float> kept{0, weight * ssim.by_mean, __low2float(packed), __high2float(packed)};
    return {by_mean_alone(kept, moments), __uint_as_float(*reinterpret_cast<const unsigned*>(&packed))};
}

__global__ void __launch_bounds__(kThreads, 3) ssim_kernel(LossStage<float> s) {
    extern __shared__ float4 storage[];
    ForwardMemory& memory = *reinterpret_cast<ForwardMemory*>(storage);
    LossSums<float> sums{0, 0, 0};
    const bool equal = __syncthreads_and(load_pictures(s, memory, sums));
    const int block = tile_of(int(blockIdx.z), int(blockIdx.y), int(blockIdx.x));
    if (s.kept && threadIdx.x == 0) s.equal_tiles()[block] = equal ? 1.0f : 0.0f;
    if (equal) {
        write_partial(s, sums, block);
        return;
    }

    const int picture = int(blockIdx.z), x = int(threadIdx.x) % kWarp, y = int(threadIdx.x) / kWarp * kDown;
    const int picture_x = int(blockIdx.x) * kLossTile + x, picture_y = int(blockIdx.y) * kLossTile + y;
    float weight[kDown];
#pragma unroll
    for (int i = 0; i < kDown; ++i)
        weight[i] = s.weight_of(pixel_of(s, picture, min(picture_y + i, s.height - 1), min(picture_x, s.width - 1)));
#pragma unroll 1
    for (int channel = 0; channel < 3; ++channel) {
        moments_along(memory.picture[channel], memory.target[channel], memory.rows);
        __syncthreads();
        float mean[kMoments][kDown];
#pragma unroll
        for (int i = 0; i < kMoments; ++i) blur_down(memory.rows[i], y, x, mean[i]);
#pragma unroll
        for (int i = 0; i < kDown; ++i) {
            if (picture_x >= s.width || picture_y + i >= s.height) continue;
            const SsimMoments<float> moments{mean[0][i], mean[1][i], mean[2][i], mean[3][i]};
            const Ssim<float> ssim = structural_similarity(moments);
            sums.dssim = fused(weight[i], 1.0f - ssim.value, sums.dssim);
            if (s.kept)
                reinterpret_cast<float2*>(s.kept)[s.kept_index(picture, channel, picture_y + i, picture_x)] =
                    pack(ssim, moments, weight[i]);
        }
        __syncthreads();
    }
    write_partial(s, sums, block);
}

// Which of this tile and its eight neighbours, row by row, are equal in both pictures, or outside of them.
constexpr int kAround = 9;

__device__ bool is_equal(const LossStage<float>& s, int neighbour) {
    const int row = int(blockIdx.y) + neighbour / 3 - 1, column = int(blockIdx.x) + neighbour % 3 - 1;
    if (unsigned(row) >= gridDim.y || unsigned(column) >= gridDim.x) return true;
    return __ldg(s.equal_tiles() + tile_of(int(blockIdx.z), row, column)) != 0.0f;
}

// Of the pixels that a thread loads, a bit each: whether forward kept something.
__device__ unsigned kept_pixels(const LossStage<float>& s, const bool (&equal)[kAround]) {
    const int top = int(blockIdx.y) * kLossTile - kSsimRadius, left = int(blockIdx.x) * kLossTile - kSsimRadius;
    unsigned kept = 0;
#pragma unroll
    for (int n = 0; n < kSteps; ++n) {
        const int i = step_pixel(n), row = i / kReach, column = i % kReach;
        const bool inside = i < kReach * kReach & unsigned(top + row) < unsigned(s.height) &
                            unsigned(left + column) < unsigned(s.width);
        constexpr int kShift = kLossTile - kSsimRadius;  // 0 to 4 are of the first neighbour, 5 to 36 of this tile
        const bool is_equal = equal[(row + kShift) / kLossTile * 3 + (column + kShift) / kLossTile];
        kept |= unsigned(inside & !is_equal) << n;
    }
    return kept;
}

// What is there, or 0, without a branch, so that no read waits for another.
__device__ float2 read_if(bool condition, const float2* from) {
    float2 value;
    asm("{\n"
        ".reg .pred p;\n"
        "setp.ne.s32 p, %2, 0;\n"
        "mov.f32 %0, 0f00000000;\n"
        "mov.f32 %1, 0f00000000;\n"
        "@p ld.global.nc.v2.f32 {%0, %1}, [%3];\n"
        "}"
        : "=f"(value.x), "=f"(value.y)
        : "r"(int(condition)), "l"(from));
    return value;
}

// A channel of what forward kept to shared memory.
__device__ void load_kept(const LossStage<float>& s, int channel, unsigned kept_pixels, Plane (&kept)[kSsimKept]) {
    const int picture = int(blockIdx.z), top = int(blockIdx.y) * kLossTile - kSsimRadius,
              left = int(blockIdx.x) * kLossTile - kSsimRadius;
    float2 value[kSteps];
#pragma unroll
    for (int n = 0; n < kSteps; ++n) {
        const int i = step_pixel(n), y = top + i / kReach, x = left + i % kReach;
        value[n] = read_if(kept_pixels >> n & 1,
                           reinterpret_cast<const float2*>(s.kept) + s.kept_index(picture, channel, y, x));
    }
#pragma unroll
    for (int n = 0; n < kSteps; ++n) {
        const int i = step_pixel(n), row = i / kReach, column = i % kReach;
        if (i >= kReach * kReach) break;
        const unsigned bits = __float_as_uint(value[n].y);
        const float2 others = __half22float2(*reinterpret_cast<const __half2*>(&bits));
        kept[0][row][column] = value[n].x;
        kept[1][row][column] = others.x;
        kept[2][row][column] = others.y;
    }
}

__global__ void __launch_bounds__(kThreads, 3) ssim_backward_kernel(LossStage<float> s) {
    __shared__ __align__(16) BackwardMemory memory;
    __shared__ bool equal[kAround];
    const int t = int(threadIdx.x), x = t % kWarp, y = t / kWarp * kDown;
    const int picture = int(blockIdx.z), picture_x = int(blockIdx.x) * kLossTile + x,
              picture_y = int(blockIdx.y) * kLossTile + y;
    if (t < kAround) equal[t] = is_equal(s, t);
    if (__syncthreads_and(t >= kAround || equal[t])) {
#pragma unroll
        for (int i = 0; i < kDown; ++i)
            if (picture_x < s.width && picture_y + i < s.height)
                reinterpret_cast<float4*>(s.picture_gradient)[pixel_of(s, picture, picture_y + i, picture_x)] = {};
        return;
    }
    const unsigned kept = kept_pixels(s, equal);
    float blurred[3][kSsimKept][kDown];
#pragma unroll
    for (int channel = 0; channel < 3; ++channel) {
        load_kept(s, channel, kept, memory.kept);
        __syncthreads();
        if (const int row = t / kGroups, column = t % kGroups * kAlong; row < kReach) {
#pragma unroll
            for (int i = 0; i < kSsimKept; ++i) {
                float in[kAlong + 2 * kSsimRadius];
                read(memory.kept[i], row, column, in);
                blur_along(in, memory.rows[i], row, column);
            }
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < kSsimKept; ++i) blur_down(memory.rows[i], y, x, blurred[channel][i]);
    }

    const LossSums<float> scale = loss_scales(s);
    if (picture_x >= s.width) return;
    constexpr int kPair = 2;  // pixels whose reads are under way together; below the picture its last row is read
#pragma unroll
    for (int first = 0; first < kDown; first += kPair) {
        float4 given[kPair];
        TargetPixel<float> wanted[kPair];
        float weight[kPair];
#pragma unroll
        for (int i = 0; i < kPair; ++i) {
            const int row = min(picture_y + first + i, s.height - 1);
            const int64_t pixel = pixel_of(s, picture, row, picture_x);
            given[i] = picture_at(s, pixel);
            wanted[i] = target_at(s, pixel, s.background.at(picture, row, picture_x));
            weight[i] = s.weight_of(pixel);
        }
#pragma unroll
        for (int i = 0; i < kPair; ++i) {
            if (picture_y + first + i >= s.height) continue;
            const float4 p = given[i];
            const TargetPixel<float> target = wanted[i];
            const auto by_ssim = [&](int c, float a, float b) {
                const int at = first + i;
                return scale.dssim * fused(b, blurred[c][2][at], fused(2.0f * a, blurred[c][1][at], blurred[c][0][at]));
            };
            float4 gradient = pixel_gradient(s, scale, weight[i], p, target);
            gradient.x -= by_ssim(0, p.x, target.colour.x);
            gradient.y -= by_ssim(1, p.y, target.colour.y);
            gradient.z -= by_ssim(2, p.z, target.colour.z);
            reinterpret_cast<float4*>(s.picture_gradient)[pixel_of(s, picture, picture_y + first + i, picture_x)] =
                gradient;
        }
    }
}

// ---------------------------------------------------------------- without

constexpr int kPixelsPerThread = 4;

// What is behind a pixel of the batch.
__device__ Vector3<float> background_of(const LossStage<float>& s, int64_t pixel) {
    const int of_picture = s.height * s.width, picture = int(pixel / of_picture), rest = int(pixel % of_picture);
    return s.background.at(picture, rest / s.width, rest % s.width);
}

__global__ void __launch_bounds__(kThreads) difference_kernel(LossStage<float> s, int64_t pixels) {
    LossSums<float> sums{0, 0, 0};
#pragma unroll
    for (int i = 0; i < kPixelsPerThread; ++i) {
        const int64_t pixel = (int64_t(blockIdx.x) * kPixelsPerThread + i) * kThreads + int(threadIdx.x);
        if (pixel < pixels)
            add_pixel(s, s.weight_of(pixel), picture_at(s, pixel), target_at(s, pixel, background_of(s, pixel)), sums);
    }
    write_partial(s, sums, int(blockIdx.x));
}

__global__ void __launch_bounds__(kThreads) difference_backward_kernel(LossStage<float> s, int64_t pixels) {
    const int64_t pixel = int64_t(blockIdx.x) * kThreads + int(threadIdx.x);
    if (pixel >= pixels) return;
    reinterpret_cast<float4*>(s.picture_gradient)[pixel] = pixel_gradient(
        s, loss_scales(s), s.weight_of(pixel), picture_at(s, pixel), target_at(s, pixel, background_of(s, pixel)));
}

// ---------------------------------------------------------------- the end of both

// All blocks' sums, by one block.
__global__ void __launch_bounds__(kThreads) sum_kernel(LossStage<float> s, int blocks) {
    __shared__ double of_thread[3][kThreads];
    const int t = int(threadIdx.x);
    double sum[3] = {0, 0, 0};
    for (int i = t; i < blocks; i += kThreads)
#pragma unroll
        for (int k = 0; k < 3; ++k) sum[k] += s.partial[i * 3 + k];
#pragma unroll
    for (int k = 0; k < 3; ++k) of_thread[k][t] = sum[k];
    for (int half = kThreads / 2; half > 0; half /= 2) {
        __syncthreads();
        if (t < half)
#pragma unroll
            for (int k = 0; k < 3; ++k) of_thread[k][t] += of_thread[k][t + half];
    }
    if (t == 0) write_losses(s, LossSums<double>{of_thread[0][0], of_thread[1][0], of_thread[2][0]});
}

int64_t pixels_of(const LossStage<float>& s) {
    return int64_t(s.pictures) * s.height * s.width;
}

dim3 tiles_of(const LossStage<float>& s) {
    return {unsigned((s.width + kLossTile - 1) / kLossTile), unsigned((s.height + kLossTile - 1) / kLossTile),
            unsigned(s.pictures)};
}

}  // namespace

void launch_loss(const LossStage<float>& stage, CUstream_st* stream) {
    // As many pixels per block as in a tile: there are no more blocks than tiles, so their sums find room.
    static_assert(kPixelsPerThread * kThreads == kLossTile * kLossTile);
    const dim3 tiles = tiles_of(stage);
    const int64_t pixels = pixels_of(stage);
    unsigned blocks = unsigned((pixels + kPixelsPerThread * kThreads - 1) / (kPixelsPerThread * kThreads));
    if (stage.ssim) {
        blocks = tiles.x * tiles.y * tiles.z;
        cudaFuncSetAttribute(ssim_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(sizeof(ForwardMemory)));
        ssim_kernel<<<tiles, kThreads, sizeof(ForwardMemory), stream>>>(stage);
    } else {
        difference_kernel<<<blocks, kThreads, 0, stream>>>(stage, pixels);
    }
    sum_kernel<<<1, kThreads, 0, stream>>>(stage, int(blocks));
}

void launch_loss_backward(const LossStage<float>& stage, CUstream_st* stream) {
    const int64_t pixels = pixels_of(stage);
    if (stage.ssim)
        ssim_backward_kernel<<<tiles_of(stage), kThreads, 0, stream>>>(stage);
    else
        difference_backward_kernel<<<unsigned((pixels + kThreads - 1) / kThreads), kThreads, 0, stream>>>(stage,
                                                                                                          pixels);
}

}  // namespace being::training
