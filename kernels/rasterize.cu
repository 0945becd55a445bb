// Stages `sort`, `rasterize` and `composite`: from the lists of a part of the picture to finished pixels, each written
// once.
//
//   C = sum T_i alpha_i c_i,  T_i = prod_{j<i} (1 - alpha_j),  alpha = 2^(a dx^2 + b dx dy + c dy^2 + log2 opacity)
//
// A block of eight warps takes 32x16 pixels, a warp 8x8 of them, a lane two of those, one above the other. Per layer,
// head then torso:
// - The list's groups are expanded to (depth, id) keys in shared memory and sorted there (tile_sort.cuh), so that there
//   is no global sort. What is more than fits is taken in batches of ascending depth, and never fetched once all pixels
//   are opaque.
// - 256 splats at a time are copied to shared memory, a thread each, which also tests its splat exactly against the
//   eight 8x8 tiles; each warp then walks the bits of those that reach its own.
// Where head and torso are both present, each is blended alone, with its depth, and then composited (composite.h).
#include "kernels/common/colour.h"
#include "kernels/common/tile_test.h"
#include "kernels/cuda_stages.h"
#include "kernels/device/overlap.cuh"
#include "kernels/device/packed.cuh"
#include "kernels/device/tile_sort.cuh"

namespace being::cuda {
namespace {

constexpr int kTile = 8, kAcross = config::kListWidth / kTile, kDown = config::kListHeight / kTile;
constexpr int kTiles = kAcross * kDown, kThreads = kTiles * kWarp, kRowsPerLane = 2;
static_assert(kThreads == kSortThreads && kTiles == 8, "a warp per tile");

// Splats side by side, as many as there are threads, and which of them reach each tile.
struct Staged {
    float4 centre[kThreads];  // x, y, a, b
    float4 middle[kThreads];  // c, log opacity, red, green
    float2 last[kThreads];    // blue, depth
};

struct Shared {
    uint64_t keys[kSortCapacity];
    union {
        uint64_t binned[kSortCapacity];
        Staged staged;
        uint8_t picture[config::kListHeight * config::kListWidth * 4];
    };
    uint32_t reach[kTiles][kTiles];  // [tile][warp of the stage]: bit per lane
    SortScratch sort;
};

// What blending leaves of a layer in a lane's pixels.
struct LaneState {
    float transmittance[kRowsPerLane], red[kRowsPerLane], green[kRowsPerLane], blue[kRowsPerLane], depth[kRowsPerLane];
};

__device__ float fast_power_of_two(float x) {
    float result;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
}

// Where a list's part of the picture is.
struct Part {
    int left, top;
};

// Copies splat `i` of the sorted keys to the stage, and returns which tiles it reaches, a bit each.
__device__ uint32_t stage_splat(const RasterizeStage& s, const Part& part, uint64_t key, Staged& staged) {
    const int t = int(threadIdx.x);
    const auto* words = reinterpret_cast<const float4*>(s.splats + uint32_t(key));
    const float4 first = words[0], second = words[1];
    const float2 red_green = unpack_halves(__float_as_uint(second.z));
    const float blue = unpack_halves(__float_as_uint(second.w)).x;
    staged.centre[t] = first;
    staged.middle[t] = {second.x, second.y, red_green.x, red_green.y};
    staged.last[t] = {blue, __uint_as_float(uint32_t(key >> 32))};

    const Conic<float> conic{first.z, first.w, second.x};
    const float slope_x = __fdividef(-0.5f * conic.b, conic.a), slope_y = __fdividef(-0.5f * conic.b, conic.c);
    const float left = float(part.left) + 0.5f - first.x, top = float(part.top) + 0.5f - first.y;
    // The margin is for the rounding of the fast divisions: a pixel is only ever tested too often.
    const float cutoff = config::kLog2AlphaCutoff - second.y - 1e-3f;
    uint32_t reach = 0;
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
        const float exponent =
            largest_exponent(conic, slope_x, slope_y, left + float(tile % kAcross * kTile),
                             top + float(tile / kAcross * kTile), float(kTile - 1), float(kTile - 1));
        reach |= uint32_t(exponent >= cutoff) << tile;
    }
    return reach;
}

// Blends the staged splats of `mask`, which are those of one warp of the stage.
template <bool kDepthToo>
__device__ void blend(const Staged& staged, int first, uint32_t mask, float x, float y, LaneState& state) {
    while (mask) {
        const int i = first + __ffs(int(mask)) - 1;
        mask &= mask - 1;
        const float4 p = staged.centre[i], q = staged.middle[i];
        const float2 r = staged.last[i];
        const float dx = x - p.x, dy = y - p.y;
        const float across = fused(p.z * dx, dx, q.y), mixed = p.w * dx;
#pragma unroll
        for (int row = 0; row < kRowsPerLane; ++row) {
            const float d = dy + float(row);
            const float alpha = fast_power_of_two(fused(d, fused(q.x, d, mixed), across));
            if (alpha >= config::kAlphaCutoff) {
                const float weight = alpha * state.transmittance[row];
                state.transmittance[row] -= weight;
                state.red[row] = fused(weight, q.z, state.red[row]);
                state.green[row] = fused(weight, q.w, state.green[row]);
                state.blue[row] = fused(weight, r.x, state.blue[row]);
                if (kDepthToo) state.depth[row] = fused(weight, r.y, state.depth[row]);
            }
        }
    }
}

// Blends `count` sorted splats; true if no pixel of the block lets anything more through.
template <bool kDepthToo>
__device__ bool blend_sorted(const RasterizeStage& s, const Part& part, Shared& shared, int count, float x, float y,
                             bool& finished, LaneState& state) {
    const int t = int(threadIdx.x), warp = t / kWarp, lane = t % kWarp;
    for (int first = 0; first < count; first += kThreads) {
        const uint32_t reach = first + t < count ? stage_splat(s, part, shared.keys[first + t], shared.staged) : 0;
        uint32_t mine = 0;
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
            const uint32_t reaching = __ballot_sync(~0u, reach >> tile & 1);
            if (lane == tile) mine = reaching;
        }
        if (lane < kTiles) shared.reach[lane][warp] = mine;
        __syncthreads();
        for (int w = 0; w < kTiles && !finished && first + w * kWarp < count; ++w) {
            blend<kDepthToo>(shared.staged, w * kWarp, shared.reach[warp][w], x, y, state);
            finished = __all_sync(~0u, state.transmittance[0] < config::kTransmittanceStop &&
                                           state.transmittance[1] < config::kTransmittanceStop);
        }
        if (__syncthreads_and(finished)) return true;
    }
    return false;
}

// Blends one layer of a list.
__device__ void blend_layer(const RasterizeStage& s, const Part& part, const uint2* list, int groups, bool depth_too,
                            bool outside, float x, float y, Shared& shared, LaneState& state) {
#pragma unroll
    for (int row = 0; row < kRowsPerLane; ++row) {
        state.transmittance[row] = 1;
        state.red[row] = state.green[row] = state.blue[row] = state.depth[row] = 0;
    }
    bool finished = outside;
    DepthBatches batches(list, groups, s.depth, shared.keys, shared.sort);
    for (int count; (count = batches.next()) > 0;) {
        sort_keys(shared.keys, shared.binned, count, shared.sort);
        if (depth_too ? blend_sorted<true>(s, part, shared, count, x, y, finished, state)
                      : blend_sorted<false>(s, part, shared, count, x, y, finished, state))
            return;
    }
}

// ---------------------------------------------------------------- composite

__device__ Pixel<float> pixel_of(const LaneState& state, int row) {
    return {{state.red[row], state.green[row], state.blue[row]}, 1.0f - state.transmittance[row], state.depth[row]};
}

__device__ LayerPixel<float> layer_pixel(const LaneState& state, int row) {
    const Pixel<float> pixel = pixel_of(state, row);
    return {pixel.colour, pixel.alpha, pixel.weighted_depth / larger(pixel.alpha, 1e-9f)};
}

__device__ uint32_t to_byte(float x) {
    return __float2uint_rn(smaller(x * 255.0f, 255.0f));
}

// A rectangle of bytes, `width` of them a row, from shared memory to a picture whose rows are `stride` apart; of each
// row `valid` bytes, of the rows `rows`.
__device__ void write_rows(const uint8_t* from, int width, uint8_t* to, size_t stride, int valid, int rows) {
    const bool words = ((reinterpret_cast<uintptr_t>(to) | stride | size_t(valid)) & 3) == 0;
    const int unit = words ? 4 : 1, across = valid / unit;
    for (int i = int(threadIdx.x); i < across * rows; i += kThreads) {
        const int row = i / across, place = i % across * unit;
        const uint8_t* source = from + row * width + place;
        uint8_t* target = to + row * stride + place;
        if (words)
            *reinterpret_cast<uint32_t*>(target) = *reinterpret_cast<const uint32_t*>(source);
        else
            *target = *source;
    }
}

// Puts a lane's finished pixels into the block's picture, then writes that.
template <Format kFormat>
__device__ void write_picture(const RasterizeStage& s, const Part& part, const Pixel<float>* pixel, int column, int row,
                              Shared& shared) {
    constexpr int kWidth = config::kListWidth, kHeight = config::kListHeight;
    const int width = s.width - part.left < kWidth ? s.width - part.left : kWidth,
              height = s.height - part.top < kHeight ? s.height - part.top : kHeight;
    const FrameState& state = *s.state;
    Vector3<float> rgb[kRowsPerLane];
#pragma unroll
    for (int i = 0; i < kRowsPerLane; ++i) {
        const int y = row + i;
        rgb[i] = pixel[i].colour;
        const bool inside = column < width && y < height;
        const size_t place = size_t(part.top + y) * s.width + part.left + column;
        if (kFormat != Format::kRgba && s.background && inside && pixel[i].alpha < 1.0f - config::kTransmittanceStop) {
            const uint32_t plate = __ldg(s.background + place);
            constexpr float kScale = 1.0f / 255.0f;
            rgb[i] =
                over_background(pixel[i], Vector3<float>{float(plate & 255) * kScale, float(plate >> 8 & 255) * kScale,
                                                         float(plate >> 16 & 255) * kScale});
        }
        if (inside && state.alpha) state.alpha[place] = pixel[i].alpha;
        if (inside && state.depth) state.depth[place] = pixel[i].weighted_depth / larger(pixel[i].alpha, 1e-9f);
    }
    if constexpr (kFormat == Format::kRgb) {
#pragma unroll
        for (int i = 0; i < kRowsPerLane; ++i) {
            uint8_t* to = shared.picture + ((row + i) * kWidth + column) * 3;
            to[0] = uint8_t(to_byte(rgb[i].x));
            to[1] = uint8_t(to_byte(rgb[i].y));
            to[2] = uint8_t(to_byte(rgb[i].z));
        }
        __syncthreads();
        const size_t stride = size_t(s.width) * 3;
        write_rows(shared.picture, kWidth * 3, state.pixels + part.top * stride + size_t(part.left) * 3, stride,
                   width * 3, height);
    } else if constexpr (kFormat == Format::kRgba) {
#pragma unroll
        for (int i = 0; i < kRowsPerLane; ++i) {
            const float straight = 1.0f / larger(pixel[i].alpha, 1e-9f);
            reinterpret_cast<uint32_t*>(shared.picture)[(row + i) * kWidth + column] =
                to_byte(rgb[i].x * straight) | to_byte(rgb[i].y * straight) << 8 | to_byte(rgb[i].z * straight) << 16 |
                to_byte(pixel[i].alpha) << 24;
        }
        __syncthreads();
        const size_t stride = size_t(s.width) * 4;
        write_rows(shared.picture, kWidth * 4, state.pixels + part.top * stride + size_t(part.left) * 4, stride,
                   width * 4, height);
    } else {
        uint8_t* chroma = shared.picture + kWidth * kHeight;
        float cb = 0, cr = 0;
#pragma unroll
        for (int i = 0; i < kRowsPerLane; ++i) {
            const Vector3<float> ycc = rgb_to_ycbcr709(
                Vector3<float>{clamp(rgb[i].x, 0.0f, 1.0f), clamp(rgb[i].y, 0.0f, 1.0f), clamp(rgb[i].z, 0.0f, 1.0f)});
            shared.picture[(row + i) * kWidth + column] = uint8_t(__float2uint_rn(ycc.x));
            cb += ycc.y;
            cr += ycc.z;
        }
        cb += __shfl_xor_sync(~0u, cb, 1);
        cr += __shfl_xor_sync(~0u, cr, 1);
        chroma[row / 2 * kWidth + column] = uint8_t((column & 1 ? cr : cb) * 0.25f + 0.5f);
        __syncthreads();
        const size_t stride = size_t(s.width);
        write_rows(shared.picture, kWidth, state.pixels + part.top * stride + part.left, stride, width, height);
        write_rows(chroma, kWidth, state.pixels + (s.height + part.top / 2) * stride + part.left, stride, width,
                   height / 2);
    }
}

template <Format kFormat>
__global__ void __launch_bounds__(kThreads, 4) rasterize_kernel(const RasterizeStage* stages) {
    __shared__ Shared shared;
    const RasterizeStage& s = stages[blockIdx.y];
    const int t = int(threadIdx.x), warp = t / kWarp, lane = t % kWarp, list = int(blockIdx.x);
    wait_for_previous_kernel();
    const FrameState& frame_state = *s.state;
    const uint32_t needed = frame_state.segments_needed;
    if (list == 0 && t == 0) {
        const uint32_t frame = *s.frame;
        volatile FrameStatus* status = s.status + (frame - 1) % kInputSlots;
        status->frame = frame;
        status->segments_needed = needed;
    }
    if (needed) return;  // what was drawn before stays; the host lets the lists grow and draws again

    const Part part{list % s.columns * config::kListWidth, list / s.columns * config::kListHeight};
    const int column = warp % kAcross * kTile + lane % kTile,
              row = warp / kAcross * kTile + lane / kTile * kRowsPerLane;
    const float x = float(part.left + column) + 0.5f, y = float(part.top + row) + 0.5f;
    const uint2 counts = reinterpret_cast<const uint2*>(s.list_count)[list];
    Pixel<float> pixel[kRowsPerLane] = {};
    if (counts.x | counts.y) {
        const bool mixed = counts.x && counts.y, depth_too = mixed || frame_state.depth;
        const bool outside =
            part.left + warp % kAcross * kTile >= s.width || part.top + warp / kAcross * kTile >= s.height;
        const uint2* entries = s.list + size_t(list) * 2 * s.list_capacity;
        LaneState head{}, state{};
#pragma unroll 1  // one copy of the code: what does not fit the instruction cache is slow
        for (int layer = 0; layer < 2; ++layer) {
            if (!(layer ? counts.y : counts.x)) continue;
            head = state;
            blend_layer(s, part, entries + layer * s.list_capacity, int(layer ? counts.y : counts.x), depth_too,
                        outside, x, y, shared, state);
        }
        const SeamEllipse seam = frame_state.seam;
        const float tile_x = float(part.left + warp % kAcross * kTile),
                    tile_y = float(part.top + warp / kAcross * kTile);
        const bool near_seam = seam.x + seam.reach_x > tile_x && seam.x - seam.reach_x < tile_x + kTile &&
                               seam.y + seam.reach_y > tile_y && seam.y - seam.reach_y < tile_y + kTile;
#pragma unroll
        for (int i = 0; i < kRowsPerLane; ++i) {
            if (mixed) {
                const LayerPixel<float> h = layer_pixel(head, i), b = layer_pixel(state, i);
                pixel[i] = composite_layers(h, b, head_in_front(h, b, s.inverse_softness));
            } else {
                pixel[i] = pixel_of(state, i);
            }
            if (near_seam) pixel[i] = fill_holes(pixel[i], seam, x, y + float(i));
        }
        __syncthreads();  // the stage is free for the picture
    }
    write_picture<kFormat>(s, part, pixel, column, row, shared);
}

}  // namespace

void launch_rasterize(const RasterizeStage* stages, int sessions, int lists, Format format, bool overlap,
                      cudaStream_t stream) {
    const dim3 grid{unsigned(lists), unsigned(sessions)};
    const auto start = [&](auto kernel) { launch(kernel, grid, dim3(kThreads), 0, overlap, stream, stages); };
    switch (format) {
        case Format::kRgb:
            return start(rasterize_kernel<Format::kRgb>);
        case Format::kRgba:
            return start(rasterize_kernel<Format::kRgba>);
        case Format::kNv12:
            return start(rasterize_kernel<Format::kNv12>);
    }
}

}  // namespace being::cuda
