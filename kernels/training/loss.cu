// The operation `photometric_loss` on CUDA.
//
// With SSIM, a block has a tile of 32x32 pixels. Forward, both pictures of it and of the five pixels around it go to
// shared memory once; per channel the window's four means (ssim.h) are taken along rows, eight neighbours per thread,
// then along columns, four neighbours per thread, from registers as far as possible. Backward does the same with the
// three derivatives that forward kept. Bound by arithmetic and memory alike. Per pixel and channel: forward 4 means of
// 11 x (1 + 42/32) products, 8 + 8/3 bytes; backward 3 of them, 8 bytes (14 with the rim, mostly from the second-level
// cache) + 32/3 + 2.
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

__device__ void add_pixel(const LossStage<float>& s, int64_t pixel, const float4& p, const TargetPixel<float>& target,
                          LossSums<float>& sums) {
    sums.l1 += s.weight_of(pixel) * (robust(p.x - target.colour.x, s.huber) + robust(p.y - target.colour.y, s.huber) +
                                     robust(p.z - target.colour.z, s.huber));
    sums.alpha += fabsf(p.w - target.alpha);
}

// The gradient without SSIM's share.
__device__ float4 pixel_gradient(const LossStage<float>& s, const LossSums<float>& scale, int64_t pixel,
                                 const float4& p, const TargetPixel<float>& target) {
    const float l1 = scale.l1 * s.weight_of(pixel);
    return {l1 * robust_slope(p.x - target.colour.x, s.huber), l1 * robust_slope(p.y - target.colour.y, s.huber),
            l1 * robust_slope(p.z - target.colour.z, s.huber), scale.alpha * sign(p.w - target.alpha)};
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

// Both pictures of a tile to shared memory; the sums that need no window.
__device__ void load_pictures(const LossStage<float>& s, ForwardMemory& memory, LossSums<float>& sums) {
    const int picture = int(blockIdx.z), top = int(blockIdx.y) * kLossTile - kSsimRadius,
              left = int(blockIdx.x) * kLossTile - kSsimRadius;
#pragma unroll
    for (int n = 0; n < kSteps; ++n) {
        const int i = n * kThreads + int(threadIdx.x), row = i / kReach, column = i % kReach;
        if (i >= kReach * kReach) break;
        const int y = top + row, x = left + column;
        float4 p{0, 0, 0, 0};
        TargetPixel<float> target{{0, 0, 0}, 0};
        if (unsigned(y) < unsigned(s.height) && unsigned(x) < unsigned(s.width)) {
            const int64_t pixel = pixel_of(s, picture, y, x);
            p = picture_at(s, pixel);
            target = target_at(s, pixel, s.background.at(picture, y, x));
            if (unsigned(row - kSsimRadius) < unsigned(kLossTile) &&
                unsigned(column - kSsimRadius) < unsigned(kLossTile))
                add_pixel(s, pixel, p, target, sums);
        }
        memory.picture[0][row][column] = p.x;
        memory.picture[1][row][column] = p.y;
        memory.picture[2][row][column] = p.z;
        memory.target[0][row][column] = target.colour.x;
        memory.target[1][row][column] = target.colour.y;
        memory.target[2][row][column] = target.colour.z;
    }
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
    load_pictures(s, memory, sums);
    __syncthreads();

    const int picture = int(blockIdx.z), x = int(threadIdx.x) % kWarp, y = int(threadIdx.x) / kWarp * kDown;
    const int picture_x = int(blockIdx.x) * kLossTile + x, picture_y = int(blockIdx.y) * kLossTile + y;
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
            const float weight = s.weight_of(pixel_of(s, picture, picture_y + i, picture_x));
            sums.dssim = fused(weight, 1.0f - ssim.value, sums.dssim);
            if (s.kept)
                reinterpret_cast<float2*>(s.kept)[s.kept_index(picture, channel, picture_y + i, picture_x)] =
                    pack(ssim, moments, weight);
        }
        __syncthreads();
    }
    write_partial(s, sums, int((blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x));
}

// A channel of what forward kept to shared memory.
__device__ void load_kept(const LossStage<float>& s, int channel, Plane (&kept)[kSsimKept]) {
    const int picture = int(blockIdx.z), top = int(blockIdx.y) * kLossTile - kSsimRadius,
              left = int(blockIdx.x) * kLossTile - kSsimRadius;
#pragma unroll
    for (int n = 0; n < kSteps; ++n) {
        const int i = n * kThreads + int(threadIdx.x), row = i / kReach, column = i % kReach;
        if (i >= kReach * kReach) break;
        const int y = top + row, x = left + column;
        float2 value{0, 0};
        if (unsigned(y) < unsigned(s.height) && unsigned(x) < unsigned(s.width))
            value = __ldg(reinterpret_cast<const float2*>(s.kept) + s.kept_index(picture, channel, y, x));
        const unsigned bits = __float_as_uint(value.y);
        const float2 others = __half22float2(*reinterpret_cast<const __half2*>(&bits));
        kept[0][row][column] = value.x;
        kept[1][row][column] = others.x;
        kept[2][row][column] = others.y;
    }
}

__global__ void __launch_bounds__(kThreads, 3) ssim_backward_kernel(LossStage<float> s) {
    __shared__ __align__(16) BackwardMemory memory;
    const int t = int(threadIdx.x), x = t % kWarp, y = t / kWarp * kDown;
    float blurred[3][kSsimKept][kDown];
#pragma unroll
    for (int channel = 0; channel < 3; ++channel) {
        load_kept(s, channel, memory.kept);
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
    const int picture = int(blockIdx.z), picture_x = int(blockIdx.x) * kLossTile + x,
              picture_y = int(blockIdx.y) * kLossTile + y;
#pragma unroll
    for (int i = 0; i < kDown; ++i) {
        if (picture_x >= s.width || picture_y + i >= s.height) continue;
        const int64_t pixel = pixel_of(s, picture, picture_y + i, picture_x);
        const float4 p = picture_at(s, pixel);
        const TargetPixel<float> target = target_at(s, pixel, s.background.at(picture, picture_y + i, picture_x));
        const auto by_ssim = [&](int c, float a, float b) {
            return scale.dssim * fused(b, blurred[c][2][i], fused(2.0f * a, blurred[c][1][i], blurred[c][0][i]));
        };
        float4 gradient = pixel_gradient(s, scale, pixel, p, target);
        gradient.x -= by_ssim(0, p.x, target.colour.x);
        gradient.y -= by_ssim(1, p.y, target.colour.y);
        gradient.z -= by_ssim(2, p.z, target.colour.z);
        reinterpret_cast<float4*>(s.picture_gradient)[pixel] = gradient;
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
            add_pixel(s, pixel, picture_at(s, pixel), target_at(s, pixel, background_of(s, pixel)), sums);
    }
    write_partial(s, sums, int(blockIdx.x));
}

__global__ void __launch_bounds__(kThreads) difference_backward_kernel(LossStage<float> s, int64_t pixels) {
    const int64_t pixel = int64_t(blockIdx.x) * kThreads + int(threadIdx.x);
    if (pixel >= pixels) return;
    reinterpret_cast<float4*>(s.picture_gradient)[pixel] =
        pixel_gradient(s, loss_scales(s), pixel, picture_at(s, pixel), target_at(s, pixel, background_of(s, pixel)));
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
