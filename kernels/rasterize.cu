// Stages `sort`, `rasterize` and `composite`: from the list of each 8x8 pixels to finished ones, each written once.
//
//   C = sum T_i alpha_i c_i,  T_i = prod_{j<i} (1 - alpha_j),  alpha = 2^(a dx^2 + b dx dy + c dy^2 + log2 opacity)
//
// A warp takes a list, a lane two of its pixels, one above the other; no warp waits for another. Per layer, head then
// torso:
// - The list's groups are expanded to keys, which are sorted in registers (warp_sort.cuh), so that there is no global
//   sort. What is more than fits is taken in batches of ascending depth, and never fetched once all pixels are opaque.
// - 32 splats at a time are copied to shared memory, a lane each, with their exponents rewritten as polynomials of the
//   pixel's place in the tile: seven instead of ten products per splat and pair of pixels.
// - A lane finds the weights T_i alpha_i of its two pixels, eight splats at a time; sums of weight times colour are a
//   matrix product, [64 pixels x 8 splats] [8 splats x (red, green, blue, depth)], and go to the tensor cores. Weights
//   and colours are half floats there, sums are floats: 2^-12 of a weight is 0.06 steps of 1/255.
// Where head and torso are both present, each is blended alone, with its depth, and then composited (composite.h).
// What bounds it is the blend's instructions, 22 per splat and tile.
#include <cuda_pipeline.h>

#include "kernels/common/colour.h"
#include "kernels/cuda_stages.h"
#include "kernels/device/launch.cuh"
#include "kernels/device/matrix.cuh"
#include "kernels/device/packed.cuh"
#include "kernels/device/warp_sort.cuh"

namespace being::cuda {
namespace {

constexpr int kTile = config::kListSize, kPixels = kTile * kTile, kRowsPerLane = 2;
constexpr unsigned kWarps = kListsPerBlock, kThreads = kWarps * kWarp;
constexpr unsigned kStep = 8;  // splats that are blended together
// 96 registers per thread: with 64 (eight blocks), 80 and 128 the frame takes 11, 2 and 6 % longer; independent
// instructions hide more here than more warps do.
constexpr unsigned kBlocksPerProcessor = 20 / kWarps;
static_assert(kTile == 8 && kPixels == 2 * kWarp, "two pixels per lane");

// alpha = 2^(constant + x (along_x + x squared_x) + y (along_y + y squared_y) + mixed x y), from the tile's middle.
struct Staged {
    float4 first[kWarp];   // constant, along_x, along_y, squared_x
    float4 second[kWarp];  // squared_y, mixed, then half floats: red, green, blue, depth
};

struct WarpShared {
    KeyBatch keys;
    float4 raw[2][kWarp];    // of the splats that are staged next
    float4 parked[kPixels];  // colours of the head while the torso is blended
    union {
        struct {
            Staged staged;
            union {
                uint4 weights[kPixels];   // of eight splats each; rows `lane` and 32 + `lane` are a lane's own
                float4 colours[kPixels];  // of the finished layer: red, green, blue, depth
            };
        };
        uint32_t bins[256];
        alignas(16) uint8_t picture[kPixels * 4];
    };
};

// What blending leaves of a layer in a lane's pixels.
struct LaneState {
    float transmittance[kRowsPerLane];
    float4 colour[kRowsPerLane];  // premultiplied; w: depth, weighted
};

// Read once: the compiler takes threadIdx for cheap and would read it again in every loop.
__device__ unsigned lane_of_warp() {
    unsigned lane;
    asm volatile("mov.u32 %0, %%laneid;" : "=r"(lane));
    return lane;
}

__device__ float fast_power_of_two(float x) {
    float result;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
}

// Where a warp's tile is.
struct Place {
    int left, top;
    float middle_x, middle_y;
};

// A splat to the stage, from raw[..][lane]. depth: relative to the layer's least, for halves are precise near 0 only.
__device__ void stage_splat(WarpShared& shared, float depth, const Place& place, unsigned lane) {
    const float4 first = shared.raw[0][lane], second = shared.raw[1][lane];
    const float ux = first.x - place.middle_x, uy = first.y - place.middle_y, a = first.z, b = first.w, c = second.x;
    const float along_x = -__fmaf_rn(2.0f * a, ux, b * uy), along_y = -__fmaf_rn(2.0f * c, uy, b * ux);
    const float constant = __fmaf_rn(a * ux, ux, __fmaf_rn(b * ux, uy, __fmaf_rn(c * uy, uy, second.y)));
    shared.staged.first[lane] = {constant, along_x, along_y, a};
    shared.staged.second[lane] = {
        c, b, second.z, __uint_as_float(__float_as_uint(second.w) & 0xffff | pack_halves(0.0f, depth) & 0xffff0000)};
}

// Blends `count` staged splats; true if no pixel lets anything more through. sums: the accumulators of four products of
// 16 pixels.
__device__ bool blend(WarpShared& shared, unsigned count, float x, float y, unsigned lane,
                      float (&transmittance)[kRowsPerLane], float (&sums)[4][4]) {
    for (unsigned first = 0; first < count; first += kStep) {
        float weight[kRowsPerLane][kStep];
#pragma unroll
        for (unsigned k = 0; k < kStep; ++k) {
            const float4 p = shared.staged.first[first + k];
            const float2 q = *reinterpret_cast<const float2*>(shared.staged.second + first + k);
            const float in_x = __fmaf_rn(__fmaf_rn(p.w, x, p.y), x, p.x), in_y = __fmaf_rn(q.y, x, p.z);
#pragma unroll
            for (int row = 0; row < kRowsPerLane; ++row) {
                const float at = row == 0 ? y : y + float(row);
                const float alpha = fast_power_of_two(__fmaf_rn(__fmaf_rn(q.x, at, in_y), at, in_x));
                const float w = alpha >= config::kAlphaCutoff ? alpha * transmittance[row] : 0.0f;
                transmittance[row] -= w;
                weight[row][k] = w;
            }
        }
#pragma unroll
        for (int row = 0; row < kRowsPerLane; ++row) {
            const float (&w)[kStep] = weight[row];
            shared.weights[row * kWarp + lane] = {pack_halves(w[0], w[1]), pack_halves(w[2], w[3]),
                                                  pack_halves(w[4], w[5]), pack_halves(w[6], w[7])};
        }
        __syncwarp();
        const uint32_t colours = load_matrix_transposed(shared.staged.second + first + lane % kStep);
        uint32_t rows[8];
        load_matrices(shared.weights + lane, rows);
        load_matrices(shared.weights + kWarp + lane, rows + 4);
#pragma unroll
        for (int tile = 0; tile < 4; ++tile) multiply_16x8x8(sums[tile], rows + 2 * tile, colours);
        if (__all_sync(kAllLanes, larger(transmittance[0], transmittance[1]) < config::kTransmittanceStop)) return true;
    }
    return false;
}

// Blends sorted keys; true if no pixel lets anything more through.
__device__ bool blend_sorted(const Splat* splats, const Place& place, WarpShared& shared, uint32_t first,
                             uint32_t count, uint32_t low, int shift, float nearest, unsigned lane,
                             float (&transmittance)[kRowsPerLane], float (&sums)[4][4], uint32_t& blended) {
    const float x = float(int(lane % kTile)) + (0.5f - kTile / 2),
                y = float(int(lane / kTile * kRowsPerLane)) + (0.5f - kTile / 2);
    const auto fetch = [&](uint32_t at) {
        if (at >= count) {  // one that is nowhere
            shared.raw[0][lane] = {0, 0, 0, 0};
            shared.raw[1][lane] = {0, -1e4f, 0, 0};
            return;
        }
        const auto* words =
            reinterpret_cast<const float4*>(splats + shared.keys.id[shared.keys.order[first + at] & (kBatch - 1)]);
        __pipeline_memcpy_async(&shared.raw[0][lane], words, 16);
        __pipeline_memcpy_async(&shared.raw[1][lane], words + 1, 16);
    };
    fetch(lane);
    __pipeline_commit();
    for (uint32_t done = 0; done < count; done += kWarp) {
        blended += kWarp;
        const uint32_t order = done + lane < count ? shared.keys.order[first + done + lane] : 0;
        __pipeline_wait_prior(0);  // a lane reads only what it fetched itself
        stage_splat(shared, __uint_as_float(low + (order >> kPlaceBits << shift)) - nearest, place, lane);
        __syncwarp();
        if (done + kWarp < count) fetch(done + kWarp + lane);  // arrives while the others are blended
        __pipeline_commit();
        if (blend(shared, min(kWarp, int(count - done)), x, y, lane, transmittance, sums)) {
            __pipeline_wait_prior(0);
            return true;
        }
        __syncwarp();
    }
    return false;
}

// What blending leaves of a layer in a warp, tensor cores' layout and all.
struct Blended {
    float transmittance[kRowsPerLane] = {1, 1}, sums[4][4] = {};
    uint32_t splats = 0;
};

// Sorts and blends keys first .. first + count - 1 of the batch; true if no pixel lets anything more through.
__device__ bool blend_batch(const Splat* splats, const float* depth, const Place& place, WarpShared& shared,
                            uint32_t first, uint32_t count, uint32_t low, uint32_t high, float nearest, unsigned lane,
                            Blended& blended) {
    const int shift = sort_batch(shared.keys, first, count, low, high, depth, lane);
    return blend_sorted(splats, place, shared, first, count, low, shift, nearest, lane, blended.transmittance,
                        blended.sums, blended.splats);
}

// A layer in more than one batch. Not inlined: its registers would be the short lists' burden.
template <class Source>
__device__ __noinline__ Blended blend_long(const Splat* splats, const float* depth, Place place, WarpShared& shared,
                                           Source source, uint32_t low, uint32_t high, unsigned lane) {
    Blended blended;
    const float nearest = __uint_as_float(low);
    LongLayer batches(low, high);
    for (uint32_t n; (n = batches.next(source, shared.keys, shared.bins, lane, low, high)) > 0;)
        if (blend_batch(splats, depth, place, shared, 0, n, low, high, nearest, lane, blended)) break;
    return blended;
}

// Blends one layer of a list; returns how many splats that took. spilled: the list's keys if they do not fit, or null
// if there was no room for them.
__device__ uint32_t blend_layer(const RasterizeStage& s, const Place& place, const List& list, const Layers& layers,
                                int layer, bool fits, const uint64_t* spilled, unsigned lane, WarpShared& shared,
                                LaneState& state) {
    const uint32_t low = layers.low[layer], high = layers.high[layer], count = layers.count[layer];
    const float nearest = __uint_as_float(low);
    Blended blended;
    if (fits)
        blend_batch(s.splats, s.depth, place, shared, layer ? kBatch - count : 0, count, low, high, nearest, lane,
                    blended);
    else if (spilled)
        blended = blend_long(s.splats, s.depth, place, shared,
                             SpilledKeys{spilled + (layer ? layers.count[0] : 0), count}, low, high, lane);
    else
        blended = blend_long(s.splats, s.depth, place, shared, ListedKeys{list, layer == 1}, low, high, lane);
    // Accumulators hold rows lane / 4 and lane / 4 + 8 of each product, and two columns; colours are in columns 4 to 7.
    __syncwarp();
    if (lane % 4 >= 2) {
        auto* pairs = reinterpret_cast<float2*>(shared.colours);
#pragma unroll
        for (int tile = 0; tile < 4; ++tile) {
            pairs[(tile * 16 + lane / 4) * 2 + lane % 4 - 2] = {blended.sums[tile][0], blended.sums[tile][1]};
            pairs[(tile * 16 + lane / 4 + 8) * 2 + lane % 4 - 2] = {blended.sums[tile][2], blended.sums[tile][3]};
        }
    }
    __syncwarp();
#pragma unroll
    for (int row = 0; row < kRowsPerLane; ++row) {
        state.transmittance[row] = blended.transmittance[row];
        state.colour[row] = shared.colours[row * kWarp + lane];
        state.colour[row].w = fused(nearest, 1.0f - blended.transmittance[row], state.colour[row].w);
    }
    __syncwarp();
    return blended.splats;
}

// ---------------------------------------------------------------- composite

__device__ Pixel<float> pixel_of(const LaneState& state, int row) {
    const float4& c = state.colour[row];
    return {{c.x, c.y, c.z}, 1.0f - state.transmittance[row], c.w};
}

__device__ LayerPixel<float> layer_pixel(const LaneState& state, int row) {
    const Pixel<float> pixel = pixel_of(state, row);
    return {pixel.colour, pixel.alpha, __fdividef(pixel.weighted_depth, larger(pixel.alpha, 1e-9f))};
}

__device__ uint32_t to_byte(float x) {
    return __float2uint_rn(smaller(x * 255.0f, 255.0f));
}

// Rows of kBytes each, or fewer at a picture's edge, by a warp; in words where everything is a multiple of them.
template <unsigned kBytes>
__device__ void copy_rows(const uint8_t* from, size_t from_stride, uint8_t* to, size_t to_stride, unsigned bytes,
                          unsigned rows, unsigned lane) {
    const size_t all = reinterpret_cast<uintptr_t>(from) | from_stride | reinterpret_cast<uintptr_t>(to) | to_stride;
    if (bytes == kBytes && (all & 3) == 0) {
        constexpr unsigned kWords = kBytes / 4;
        for (unsigned i = lane; i < kWords * rows; i += kWarp) {
            const unsigned row = i / kWords, place = i % kWords * 4;
            *reinterpret_cast<uint32_t*>(to + row * to_stride + place) =
                *reinterpret_cast<const uint32_t*>(from + row * from_stride + place);
        }
    } else {
        for (unsigned i = lane; i < bytes * rows; i += kWarp)
            to[i / bytes * to_stride + i % bytes] = from[i / bytes * from_stride + i % bytes];
    }
}

template <Format kFormat>
constexpr unsigned kPixelBytes = kFormat == Format::kRgb    ? 3
                                 : kFormat == Format::kRgba ? 4
                                                            : 1;

// A tile's rectangle of a picture, from memory that is laid out alike or from one that holds the tile alone.
template <Format kFormat>
__device__ void copy_tile(const RasterizeStage& s, const Place& place, const uint8_t* plate, const uint8_t* tile,
                          unsigned lane) {
    constexpr unsigned kBytes = kPixelBytes<kFormat>;
    const unsigned width = unsigned(min(s.width - place.left, kTile)),
                   height = unsigned(min(s.height - place.top, kTile));
    const size_t stride = size_t(s.width) * kBytes, at = place.top * stride + size_t(place.left) * kBytes;
    uint8_t* pixels = s.state->pixels;
    copy_rows<kTile * kBytes>(plate ? plate + at : tile, plate ? stride : kTile * kBytes, pixels + at, stride,
                              width * kBytes, height, lane);
    if (kFormat == Format::kNv12) {
        const size_t chroma = (size_t(s.height) + place.top / 2) * s.width + place.left;
        copy_rows<kTile>(plate ? plate + chroma : tile + kPixels, plate ? stride : kTile, pixels + chroma, stride,
                         width, height / 2, lane);
    }
}

// The background alone, where no splat is.
template <Format kFormat>
__device__ void write_empty(const RasterizeStage& s, const Place& place, unsigned lane) {
    copy_tile<kFormat>(s, place, s.plate[int(kFormat)], nullptr, lane);
    for (float* values : {s.state->alpha, s.state->depth}) {
        if (!values) continue;
        for (unsigned i = lane; i < kPixels; i += kWarp) {
            const int x = place.left + int(i % kTile), y = place.top + int(i / kTile);
            if (x < s.width && y < s.height) values[size_t(y) * s.width + x] = 0;
        }
    }
}

template <Format kFormat>
__device__ void write_tile(const RasterizeStage& s, const Place& place, const Pixel<float>* pixel,
                           const uint32_t* plate, unsigned lane, uint8_t* picture) {
    const unsigned column = lane % kTile, first_row = lane / kTile * kRowsPerLane;
    float cb = 0, cr = 0;
#pragma unroll
    for (unsigned i = 0; i < kRowsPerLane; ++i) {
        const unsigned at = (first_row + i) * kTile + column;
        if constexpr (kFormat == Format::kRgba) {
            const float straight = __fdividef(1.0f, larger(pixel[i].alpha, 1e-9f));
            const Vector3<float> rgb = pixel[i].colour * straight;
            reinterpret_cast<uint32_t*>(picture)[at] =
                to_byte(rgb.x) | to_byte(rgb.y) << 8 | to_byte(rgb.z) << 16 | to_byte(pixel[i].alpha) << 24;
            continue;
        }
        constexpr float kScale = 1.0f / 255.0f;
        const Vector3<float> behind{float(plate[i] & 255) * kScale, float(plate[i] >> 8 & 255) * kScale,
                                    float(plate[i] >> 16 & 255) * kScale};
        const Vector3<float> rgb = over_background(pixel[i], behind);
        if constexpr (kFormat == Format::kRgb) {
            picture[at * 3] = uint8_t(to_byte(rgb.x));
            picture[at * 3 + 1] = uint8_t(to_byte(rgb.y));
            picture[at * 3 + 2] = uint8_t(to_byte(rgb.z));
        } else {
            const Vector3<float> ycc = rgb_to_ycbcr709(
                Vector3<float>{clamp(rgb.x, 0.0f, 1.0f), clamp(rgb.y, 0.0f, 1.0f), clamp(rgb.z, 0.0f, 1.0f)});
            picture[at] = uint8_t(__float2uint_rn(ycc.x));
            cb += ycc.y;
            cr += ycc.z;
        }
    }
    if constexpr (kFormat == Format::kNv12) {
        cb += __shfl_xor_sync(kAllLanes, cb, 1);
        cr += __shfl_xor_sync(kAllLanes, cr, 1);
        picture[kPixels + first_row / 2 * kTile + column] = uint8_t((column & 1 ? cr : cb) * 0.25f + 0.5f);
    }
    __syncwarp();
    copy_tile<kFormat>(s, place, nullptr, picture, lane);
}

template <Format kFormat, bool kOne>
__global__ void __launch_bounds__(kThreads, kBlocksPerProcessor)
    rasterize_kernel(const __grid_constant__ Sessions<RasterizeStage> sessions) {
    __shared__ WarpShared warps[kWarps];
    const RasterizeStage s = stage_of<kOne>(sessions, blockIdx.y);
    const unsigned warp = __shfl_sync(kAllLanes, threadIdx.x / kWarp, 0), lane = lane_of_warp();
    WarpShared& shared = warps[warp];
    const unsigned block = s.order[blockIdx.x], blocks_across = unsigned(s.columns + kBlockColumns - 1) / kBlockColumns;
    const unsigned list_column = block % blocks_across * kBlockColumns + warp % kBlockColumns,
                   list_row = block / blocks_across * kBlockRows + warp / kBlockColumns;
    uint32_t& list_cost = s.cost[block].list[warp];
    const FrameState& frame_state = *s.state;
    const uint32_t needed = frame_state.segments_needed;
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        const uint32_t frame = *s.frame;
        volatile FrameStatus* status = s.status + (frame - 1) % kInputSlots;
        status->segments_needed = needed;
        __threadfence_system();
        status->frame = frame;
    }
    // Where lists overflowed, what was drawn before stays; the host lets them grow and draws again.
    if (needed || list_column >= unsigned(s.columns) || list_row >= unsigned(s.rows)) return;

    const unsigned index = list_row * s.columns + list_column;
    Place place;
    place.left = int(list_column) * kTile;
    place.top = int(list_row) * kTile;
    place.middle_x = float(place.left + kTile / 2);
    place.middle_y = float(place.top + kTile / 2);
    const uint32_t entries = s.list_count[index];
    if (entries == 0) {
        if (lane == 0) list_cost = 0;
        return write_empty<kFormat>(s, place, lane);
    }

    const List list{s.list + size_t(index) * s.list_capacity, entries, s.torso_group, s.depth};
    const Layers layers = collect_all(list, shared.keys, lane);
    const bool fits = layers.count[0] + layers.count[1] <= kBatch, mixed = layers.count[0] && layers.count[1];
    uint64_t* spilled = nullptr;
    if (!fits) {
        const uint32_t count = layers.count[0] + layers.count[1];
        uint32_t at = 0;
        if (lane == 0) at = atomicAdd(&s.state->spilled, count);
        at = __shfl_sync(kAllLanes, at, 0);
        if (at <= s.spill_capacity && count <= s.spill_capacity - at) {
            spilled = s.spill + at;
            spill_keys(list, spilled, count, lane);
        }
    }
    LaneState head{}, state{};
    uint32_t cost = kWarp;  // of everything but blending
#pragma unroll 1            // one copy of the code: what does not fit the instruction cache is slow
    for (int layer = 0; layer < 2; ++layer) {
        if (layers.count[layer] == 0) continue;
        if (layer == 1 && mixed) {
#pragma unroll
            for (int i = 0; i < kRowsPerLane; ++i) {
                shared.parked[i * kWarp + lane] = state.colour[i];
                head.transmittance[i] = state.transmittance[i];
            }
        }
        cost += blend_layer(s, place, list, layers, layer, fits, spilled, lane, shared, state);
    }
    if (lane == 0) list_cost = cost;
#pragma unroll
    for (int i = 0; i < kRowsPerLane; ++i) head.colour[i] = shared.parked[i * kWarp + lane];

    const int x = place.left + int(lane % kTile), y = place.top + int(lane / kTile) * kRowsPerLane;
    const SeamEllipse seam = frame_state.seam;
    const bool near_seam = seam.x + seam.reach_x > float(place.left) &&
                           seam.x - seam.reach_x < float(place.left + kTile) &&
                           seam.y + seam.reach_y > float(place.top) && seam.y - seam.reach_y < float(place.top + kTile);
    Pixel<float> pixel[kRowsPerLane];
    uint32_t plate[kRowsPerLane];
#pragma unroll
    for (int i = 0; i < kRowsPerLane; ++i) {
        if (mixed) {
            const LayerPixel<float> h = layer_pixel(head, i), b = layer_pixel(state, i);
            pixel[i] = composite_layers(h, b, head_in_front(h, b, s.inverse_softness));
        } else {
            pixel[i] = pixel_of(state, i);
        }
        if (near_seam) pixel[i] = fill_holes(pixel[i], seam, float(x) + 0.5f, float(y + i) + 0.5f);
        plate[i] = 0;
        if (x >= s.width || y + i >= s.height) continue;
        const size_t at = size_t(y + i) * s.width + x;
        if (kFormat != Format::kRgba && s.background) plate[i] = __ldg(s.background + at);
        if (frame_state.alpha) frame_state.alpha[at] = pixel[i].alpha;
        if (frame_state.depth) frame_state.depth[at] = pixel[i].weighted_depth / larger(pixel[i].alpha, 1e-9f);
    }
    write_tile<kFormat>(s, place, pixel, plate, lane, shared.picture);
}

}  // namespace

void launch_rasterize(const StageArray<RasterizeStage>& stages, int blocks, Format format, cudaStream_t stream) {
    const dim3 grid{unsigned(blocks), unsigned(stages.count)};
    const Sessions<RasterizeStage> sessions{stages.host[0], stages.device};
    const auto start = [&](auto one, auto many) {
        (stages.count == 1 ? one : many)<<<grid, kThreads, 0, stream>>>(sessions);
    };
    switch (format) {
        case Format::kRgb:
            return start(rasterize_kernel<Format::kRgb, true>, rasterize_kernel<Format::kRgb, false>);
        case Format::kRgba:
            return start(rasterize_kernel<Format::kRgba, true>, rasterize_kernel<Format::kRgba, false>);
        case Format::kNv12:
            return start(rasterize_kernel<Format::kNv12, true>, rasterize_kernel<Format::kNv12, false>);
    }
}

}  // namespace being::cuda
