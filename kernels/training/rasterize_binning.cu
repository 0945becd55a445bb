// First half of the differentiable rasterizer: which splats reach which 8x8 pixels, nearest first.
//
// `bin` runs twice with one and the same test: once to count, once to fill. In between, one scan gives every splat a
// range of slots, one per tile that it reaches, and every tile a range of entries. A slot is where the backward pass
// leaves what that tile has to say about that splat (rasterize_blending.cu): so nothing is ever added atomically, and
// the same input gives the same bits. Slots ascend with splats, so that (depth, slot) orders as (depth, index) does.
//
// A thread takes a splat; one that may reach more than kShared tiles is taken by its whole warp. `sort` gives a warp a
// tile and sorts up to 512 entries in registers; longer lists go to `sort_long`, where a warp sorts 1024 and a block
// what is more, in shared memory or, beyond that, in place.
#include "kernels/common/blend.h"
#include "kernels/common/tile_test.h"
#include "kernels/device/warp_sort.cuh"
#include "kernels/training/rasterize.h"

namespace being::training {
namespace {

using cuda::kAllLanes;

constexpr int kThreads = kBinThreads, kWarps = kThreads / 32;
constexpr int kScanThreads = 1024;
constexpr int kShared = 32;                            // tiles from which on a warp shares a splat's
constexpr uint32_t kRegisters = 512;                   // entries that a warp sorts
constexpr uint32_t kBlockKeys = 2048;                  // entries that a block sorts in shared memory
constexpr int kLongThreads = 128, kLongBlocks = 1056;  // eight for each multiprocessor of an H200
// The blend rounds otherwise than the test of a tile does and must not find a splat missing: how far the test errs on
// the safe side, in the exponent, base 2, and relative to its terms, which for a needle are large and cancel.
constexpr float kMargin = 1e-3f, kRelativeMargin = 1e-6f;

// The tiles of a splat's bounding box, and what the test of each of them needs.
struct Reach {
    int left, top, columns, rows;
    float x, y;
    Conic<float> conic;
    float slope_x, slope_y, least;  // exponent below which alpha is too small
    __device__ int count() const { return columns * rows; }
};

// First and past the last tile of those whose pixels' centres lie within `half` of `middle`.
__device__ int2 tile_range(float middle, float half, int tiles) {
    constexpr float kScale = 1.0f / kTileSize;
    const float first = floorf((middle - half - 0.5f) * kScale), end = floorf((middle + half + 0.5f) * kScale) + 1.0f;
    return {int(fminf(fmaxf(first, 0.0f), float(tiles))), int(fminf(fmaxf(end, 0.0f), float(tiles)))};
}

// This and the next are not inlined, so that counting and filling run the same instructions and agree to the last bit.
__device__ __noinline__ Reach reach_of(const float* splat, int columns, int rows) {
    const auto* words = reinterpret_cast<const float4*>(splat);
    const float4 first = words[0], second = words[1];
    const float values[6]{first.x, first.y, first.z, first.w, second.x, second.y}, depth = splat[9];
    SplatShape<float> shape;
    Reach reach{};
    if (!make_splat_shape(values, shape) || !isfinite(first.x + first.y + depth)) return reach;
    const int2 across = tile_range(shape.x, shape.half_width, columns),
               down = tile_range(shape.y, shape.half_height, rows);
    reach = {across.x, down.x, max(across.y - across.x, 0), max(down.y - down.x, 0), shape.x, shape.y};
    constexpr float kScale = -1.44269504f;
    const float a = values[2], b = values[3], c = values[4];
    reach.conic = {0.5f * kScale * a, kScale * b, 0.5f * kScale * c};
    reach.slope_x = -b / a;
    reach.slope_y = -b / c;
    const float terms = reach.conic.a * shape.half_width * shape.half_width +
                        reach.conic.c * shape.half_height * shape.half_height;  // negative
    reach.least = config::kLog2AlphaCutoff - kMargin + kRelativeMargin * terms - shape.log2_opacity;
    return reach;
}

__device__ __noinline__ bool reaches(float left, float top, Conic<float> conic, float slope_x, float slope_y,
                                     float least) {
    return largest_exponent(conic, slope_x, slope_y, left, top, float(kTileSize - 1), float(kTileSize - 1)) >= least;
}

__device__ bool reaches(const Reach& reach, int column, int row) {
    return reaches(float(column * kTileSize) + 0.5f - reach.x, float(row * kTileSize) + 0.5f - reach.y, reach.conic,
                   reach.slope_x, reach.slope_y, reach.least);
}

// Exclusive sums over the threads of a block of kWarps * 32; `all` becomes the sum of all.
template <int kBlockWarps>
__device__ uint32_t block_exclusive_sum(uint32_t value, uint32_t* warp_sums, uint32_t& all) {
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    uint32_t sum = value;
#pragma unroll
    for (int offset = 1; offset < 32; offset *= 2) {
        const uint32_t below = __shfl_up_sync(kAllLanes, sum, offset);
        if (lane >= unsigned(offset)) sum += below;
    }
    if (lane == 31) warp_sums[warp] = sum;
    __syncthreads();
    uint32_t before = 0;
    all = 0;
#pragma unroll
    for (int i = 0; i < kBlockWarps; ++i) {
        before += i < int(warp) ? warp_sums[i] : 0;
        all += warp_sums[i];
    }
    return before + sum - value;
}

// Bits that are ordered as floats are.
__device__ uint32_t ordered_bits(float depth) {
    const uint32_t bits = __float_as_uint(depth);
    return bits ^ (bits >> 31 ? ~0u : 1u << 31);
}

__device__ void append(const RasterizeStage<float>& s, uint32_t tile, uint32_t slot, uint32_t index, uint32_t depth) {
    s.entries[atomicAdd(s.tile_cursor + tile, 1u)] = uint64_t(depth) << 32 | slot;
    s.owner[slot] = index;
}

template <bool kFill>
__global__ void __launch_bounds__(kThreads) bin_kernel(const __grid_constant__ RasterizeStage<float> s) {
    __shared__ uint32_t warp_sums[kWarps];
    const unsigned lane = threadIdx.x % 32;
    const int columns = tiles_across(s.width), rows = tiles_across(s.height);
    const int64_t all = int64_t(s.frames) * s.splats_per_frame, index = int64_t(blockIdx.x) * kThreads + threadIdx.x;
    const bool present = index < all;
    uint32_t base = 0;
    if (kFill) {
        const uint32_t needed = s.block_slots[gridDim.x];
        const bool overflow = needed > s.capacity;
        if (index == 0) {
            s.splat_slots[all] = needed;
            s.status[1] = overflow;
        }
        if (overflow) return;
        if (present) s.splat_slots[index] = base = s.block_slots[blockIdx.x] + s.splat_slots[index];
    }
    const float* splat = s.splats + index * kSplatFloats;
    const Reach reach = present ? reach_of(splat, columns, rows) : Reach{};
    const uint32_t depth = kFill && present ? ordered_bits(splat[9]) : 0;
    const uint32_t first_tile = present ? uint32_t(index / s.splats_per_frame) * uint32_t(columns * rows) : 0;
    const bool is_shared = reach.count() > kShared;
    uint32_t count = 0;
    if (!is_shared) {
        for (int row = reach.top; row < reach.top + reach.rows; ++row) {
            for (int column = reach.left; column < reach.left + reach.columns; ++column) {
                if (!reaches(reach, column, row)) continue;
                const uint32_t tile = first_tile + uint32_t(row * columns + column);
                if (kFill)
                    append(s, tile, base + count, uint32_t(index), depth);
                else
                    atomicAdd(s.tile_cursor + tile, 1u);
                ++count;
            }
        }
    }
    for (unsigned left = __ballot_sync(kAllLanes, is_shared); left; left &= left - 1) {
        const int owner = __ffs(int(left)) - 1;
        const auto of_owner = [&](auto value) { return __shfl_sync(kAllLanes, value, owner); };
        const Reach its{of_owner(reach.left),
                        of_owner(reach.top),
                        of_owner(reach.columns),
                        of_owner(reach.rows),
                        of_owner(reach.x),
                        of_owner(reach.y),
                        {of_owner(reach.conic.a), of_owner(reach.conic.b), of_owner(reach.conic.c)},
                        of_owner(reach.slope_x),
                        of_owner(reach.slope_y),
                        of_owner(reach.least)};
        const uint32_t its_tile = of_owner(first_tile), its_base = of_owner(base), its_depth = of_owner(depth);
        const auto its_index = uint32_t(of_owner(uint32_t(index)));
        uint32_t found = 0;
        for (int i = int(lane); i - int(lane) < its.count(); i += 32) {
            const int row = its.top + i / its.columns, column = its.left + i % its.columns;
            const bool here = i < its.count() && reaches(its, column, row);
            const uint32_t lanes = __ballot_sync(kAllLanes, here);
            if (here) {
                const uint32_t tile = its_tile + uint32_t(row * columns + column);
                if (kFill)
                    append(s, tile, its_base + found + cuda::lanes_below(lanes, lane), its_index, its_depth);
                else
                    atomicAdd(s.tile_cursor + tile, 1u);
            }
            found += __popc(lanes);
        }
        if (int(lane) == owner) count = found;
    }
    if (kFill) return;
    uint32_t sum;
    const uint32_t before = block_exclusive_sum<kWarps>(count, warp_sums, sum);
    if (present) s.splat_slots[index] = before;
    if (threadIdx.x == 0) s.block_slots[blockIdx.x] = sum;
}

// Gives every tile a range of entries and every block of splats one of slots. Block 0 scans all blocks' slots, for
// their order matters; each other block takes kScanThreads tiles, whose ranges may lie anywhere.
__global__ void __launch_bounds__(kScanThreads)
    scan_kernel(const __grid_constant__ RasterizeStage<float> s, int blocks, int tiles) {
    __shared__ uint32_t warp_sums[kScanThreads / 32], base;
    uint32_t all;
    if (blockIdx.x > 0) {
        const int tile = (int(blockIdx.x) - 1) * kScanThreads + int(threadIdx.x);
        const uint32_t before =
            block_exclusive_sum<kScanThreads / 32>(tile < tiles ? s.tile_cursor[tile] : 0, warp_sums, all);
        if (threadIdx.x == 0) base = atomicAdd(s.tile_cursor + tiles + kEntriesTaken, all);
        __syncthreads();
        if (tile < tiles) s.tile_begin[tile] = s.tile_cursor[tile] = base + before;
        return;
    }
    const int each = (blocks + kScanThreads - 1) / kScanThreads, begin = min(int(threadIdx.x) * each, blocks),
              end = min(begin + each, blocks);
    uint32_t sum = 0;
    for (int i = begin; i < end; ++i) sum += s.block_slots[i];
    uint32_t before = block_exclusive_sum<kScanThreads / 32>(sum, warp_sums, all);
    for (int i = begin; i < end; ++i) {
        const uint32_t value = s.block_slots[i];
        s.block_slots[i] = before;
        before += value;
    }
    if (threadIdx.x == 0) {
        s.block_slots[blocks] = all;
        s.status[0] = int32_t(all);
    }
}

// ---------------------------------------------------------------- sort

// Bitonic sort (Batcher 1968) of 32 * kEach keys in a warp's registers; lane i has keys i * kEach and up.
template <int kEach>
__device__ void sort_in_registers(uint64_t (&key)[kEach], unsigned lane) {
#pragma unroll
    for (int size = 2; size <= 32 * kEach; size *= 2) {
#pragma unroll
        for (int stride = size / 2; stride > 0; stride /= 2) {
            if (stride >= kEach) {
                const bool upper = lane & (stride / kEach);
                const bool descending = size / kEach < 32 && (lane & (size / kEach));
                const bool keep_least = upper == descending;
#pragma unroll
                for (int e = 0; e < kEach; ++e) {
                    const uint64_t other = __shfl_xor_sync(kAllLanes, key[e], stride / kEach);
                    key[e] = keep_least == (other < key[e]) ? other : key[e];
                }
            } else {
#pragma unroll
                for (int e = 0; e < kEach; ++e) {
                    if (e & stride) continue;
                    const bool descending =
                        size < kEach ? (e & size) != 0 : size / kEach < 32 && (lane & (size / kEach));
                    const uint64_t a = key[e], b = key[e + stride];
                    const bool swap = descending == (a < b);
                    key[e] = swap ? b : a;
                    key[e + stride] = swap ? a : b;
                }
            }
        }
    }
}

// What an entry becomes once its depth has done its work: splat << 32 | slot.
__device__ uint64_t owned(const uint32_t* owner, uint64_t key) {
    return uint64_t(owner[uint32_t(key)]) << 32 | uint32_t(key);
}

template <int kEach>
__device__ void sort_tile(uint64_t* entries, uint32_t count, const uint32_t* owner, unsigned lane) {
    uint64_t key[kEach];
#pragma unroll
    for (int e = 0; e < kEach; ++e) key[e] = lane * kEach + e < count ? entries[lane * kEach + e] : ~uint64_t(0);
    sort_in_registers(key, lane);
#pragma unroll
    for (int e = 0; e < kEach; ++e)
        if (lane * kEach + e < count) entries[lane * kEach + e] = owned(owner, key[e]);
}

__global__ void __launch_bounds__(kThreads)
    sort_kernel(const __grid_constant__ RasterizeStage<float> s, int blocks, int tiles) {
    const unsigned lane = threadIdx.x % 32;
    const int tile = int(blockIdx.x) * kWarps + int(threadIdx.x / 32);
    if (tile >= tiles || s.block_slots[blocks] > s.capacity) return;
    const uint32_t begin = s.tile_begin[tile], count = s.tile_cursor[tile] - begin;
    uint64_t* entries = s.entries + begin;
    if (count == 0) return;
    if (count <= 32)
        sort_tile<1>(entries, count, s.owner, lane);
    else if (count <= 64)
        sort_tile<2>(entries, count, s.owner, lane);
    else if (count <= 128)
        sort_tile<4>(entries, count, s.owner, lane);
    else if (count <= 256)
        sort_tile<8>(entries, count, s.owner, lane);
    else if (count <= kRegisters)
        sort_tile<16>(entries, count, s.owner, lane);
    else if (lane == 0)
        s.long_tiles[atomicAdd(s.tile_cursor + tiles + kLongTiles, 1u)] = uint32_t(tile);
}

// Bitonic sort of any count by a block, every exchange ascending: a merge first compares mirrored places, then halves.
// What would lie beyond the end is larger than everything, so exchanges with it are left out.
__device__ void sort_by_block(uint64_t* keys, uint32_t count) {
    uint32_t padded = 2;
    while (padded < count) padded *= 2;
    const auto exchange = [&](uint32_t low, uint32_t high) {
        if (high >= count) return;
        const uint64_t a = keys[low], b = keys[high];
        if (b < a) {
            keys[low] = b;
            keys[high] = a;
        }
    };
    for (uint32_t size = 2; size <= padded; size *= 2) {
        for (uint32_t i = threadIdx.x; i < padded / 2; i += kLongThreads) {
            const uint32_t within = i % (size / 2), first = i / (size / 2) * size;
            exchange(first + within, first + size - 1 - within);
        }
        __syncthreads();
        for (uint32_t stride = size / 4; stride > 0; stride /= 2) {
            for (uint32_t i = threadIdx.x; i < padded / 2; i += kLongThreads) {
                const uint32_t low = i / stride * stride * 2 + i % stride;
                exchange(low, low + stride);
            }
            __syncthreads();
        }
    }
}

// A list for each warp, as long as its registers hold them; then one for each block.
__global__ void __launch_bounds__(kLongThreads)
    sort_long_kernel(const __grid_constant__ RasterizeStage<float> s, int tiles) {
    __shared__ uint64_t shared[kBlockKeys];
    constexpr uint32_t kLongWarps = kLongThreads / 32;
    const uint32_t lists = s.tile_cursor[tiles + kLongTiles];
    for (uint32_t i = blockIdx.x * kLongWarps + threadIdx.x / 32; i < lists; i += gridDim.x * kLongWarps) {
        const uint32_t tile = s.long_tiles[i], begin = s.tile_begin[tile], count = s.tile_cursor[tile] - begin;
        if (count <= 2 * kRegisters)
            sort_tile<int(2 * kRegisters / 32)>(s.entries + begin, count, s.owner, threadIdx.x % 32);
    }
    for (uint32_t i = blockIdx.x; i < lists; i += gridDim.x) {
        const uint32_t tile = s.long_tiles[i], begin = s.tile_begin[tile], count = s.tile_cursor[tile] - begin;
        if (count <= 2 * kRegisters) continue;
        uint64_t* entries = s.entries + begin;
        const bool fits = count <= kBlockKeys;
        if (fits)
            for (uint32_t j = threadIdx.x; j < count; j += kLongThreads) shared[j] = entries[j];
        __syncthreads();
        uint64_t* const keys = fits ? shared : entries;
        sort_by_block(keys, count);
        for (uint32_t j = threadIdx.x; j < count; j += kLongThreads) entries[j] = owned(s.owner, keys[j]);
        __syncthreads();
    }
}

}  // namespace

void launch_count(const RasterizeStage<float>& s, cudaStream_t stream) {
    const int64_t splats = int64_t(s.frames) * s.splats_per_frame;
    const int blocks = bin_blocks(splats), tiles = s.frames * tiles_across(s.width) * tiles_across(s.height);
    cudaMemsetAsync(s.tile_cursor, 0, size_t(tiles + kCounters) * sizeof(uint32_t), stream);
    bin_kernel<false><<<blocks, kThreads, 0, stream>>>(s);
    scan_kernel<<<1 + (tiles + kScanThreads - 1) / kScanThreads, kScanThreads, 0, stream>>>(s, blocks, tiles);
}

void launch_fill(const RasterizeStage<float>& s, cudaStream_t stream) {
    const int64_t splats = int64_t(s.frames) * s.splats_per_frame;
    const int blocks = bin_blocks(splats), tiles = s.frames * tiles_across(s.width) * tiles_across(s.height);
    bin_kernel<true><<<blocks, kThreads, 0, stream>>>(s);
    sort_kernel<<<(tiles + kWarps - 1) / kWarps, kThreads, 0, stream>>>(s, blocks, tiles);
    sort_long_kernel<<<kLongBlocks, kLongThreads, 0, stream>>>(s, tiles);
}

}  // namespace being::training
