// First half of the differentiable rasterizer: which splats reach which 8x8 pixels, nearest first.
//
// `bin` runs twice with one and the same test: once to count, once to fill. In between, one scan gives every splat a
// range of slots, one per tile that it reaches, and every tile a range of entries. A slot is where the backward pass
// leaves what that tile has to say about that splat (rasterize_blending.cu): so nothing is ever added atomically, and
// the same input gives the same bits. Slots ascend with splats, so that (depth, slot) orders as (depth, index) does.
//
// A block of `bin` takes kBinSplats splats. The tiles of their bounding boxes, one splat's after the other's, are its
// candidates, and its threads take kEach of them at a time, wherever one splat's end: a splat that may reach hundreds
// of tiles keeps no thread busy alone, and the atomic additions of kEach candidates are under way together. The bits of
// who is reached, summed up, give the slots.
//
// `sort` gives a warp a tile and sorts up to 512 entries in registers; longer lists go to `sort_long`, where a warp
// sorts 1024 and a block what is more, in shared memory or, beyond that, in place.
#include "kernels/common/blend.h"
#include "kernels/common/tile_test.h"
#include "kernels/device/warp_sort.cuh"
#include "kernels/training/rasterize.h"

namespace being::training {
namespace {

using cuda::kAllLanes;

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int kEach = 4, kChunk = kThreads * kEach;  // candidates that a thread, a block tests at a time
constexpr int kScanThreads = 1024;
static_assert(kChunk == 32 * 32, "a lane has a word of bits");
static_assert(kBinSplats % 32 == 0 && kBinSplats <= kThreads);
constexpr uint32_t kRegisters = 512;                   // entries that a warp sorts
constexpr uint32_t kBlockKeys = 2048;                  // entries that a block sorts in shared memory
constexpr int kLongThreads = 128, kLongBlocks = 1056;  // eight for each multiprocessor of an H200
// The blend rounds otherwise than the test of a tile does and must not find a splat missing: how far the test errs on
// the safe side, in the exponent, base 2, and relative to its terms, which for a needle are large and cancel.
constexpr float kMargin = 1e-3f, kRelativeMargin = 1e-6f;

// The tiles of a splat's bounding box, and what the test of each of them needs.
struct alignas(16) Reach {
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

// What a block knows of its splats.
struct BinShared {
    Reach reach[kBinSplats];
    uint32_t first_tile[kBinSplats], depth[kBinSplats];
    uint32_t begin[kBinSplats + 1];  // first candidate of each
    uint32_t reached[2][32];         // a bit per candidate of a chunk; of the next one, too, while some still read
    uint32_t warp_sums[kWarps];
};

// The splat that a candidate is of: the last one that begins at or before it.
__device__ uint32_t owner_of(const uint32_t* begin, uint32_t candidate) {
    uint32_t owner = 0;
#pragma unroll
    for (uint32_t step = kBinSplats / 2; step > 0; step /= 2)
        if (begin[owner + step] <= candidate) owner += step;
    return owner;
}

template <bool kFill>
__global__ void __launch_bounds__(kThreads) bin_kernel(const __grid_constant__ RasterizeStage<float> s) {
    __shared__ BinShared shared;
    const unsigned t = threadIdx.x, lane = t % 32, warp = t / 32;
    const int columns = tiles_across(s.width), rows = tiles_across(s.height);
    const int64_t all = int64_t(s.frames) * s.splats_per_frame, first = int64_t(blockIdx.x) * kBinSplats;
    const bool present = t < kBinSplats && first + t < all;
    uint32_t first_slot = 0;
    if (kFill) {
        const uint32_t needed = s.block_slots[gridDim.x];
        const bool overflow = needed > s.capacity;
        if (blockIdx.x == 0 && t == 0) {
            s.splat_slots[all] = needed;
            s.status[1] = overflow;
        }
        if (overflow) return;
        first_slot = s.block_slots[blockIdx.x];
        if (present) s.splat_slots[first + t] += first_slot;
    }
    uint32_t count = 0;
    if (present) {
        const float* splat = s.splats + (first + t) * kSplatFloats;
        const Reach reach = reach_of(splat, columns, rows);
        count = uint32_t(reach.count());
        shared.reach[t] = reach;
        shared.first_tile[t] = uint32_t((first + t) / s.splats_per_frame) * uint32_t(columns * rows);
        if (kFill) shared.depth[t] = ordered_bits(splat[9]);
    }
    uint32_t candidates;
    const uint32_t begin = block_exclusive_sum<kWarps>(count, shared.warp_sums, candidates);
    if (t < kBinSplats) shared.begin[t] = begin;
    __syncthreads();

    uint32_t found = 0, before_splat = 0;  // reached candidates before this chunk; before this thread's splat
    for (uint32_t chunk = 0, turn = 0; chunk < candidates; chunk += kChunk, turn ^= 1) {
        uint32_t owner[kEach], tile[kEach];
#pragma unroll
        for (int e = 0; e < kEach; ++e) {
            const uint32_t candidate = chunk + uint32_t(e) * kThreads + t;
            bool here = false;
            owner[e] = tile[e] = 0;
            if (candidate < candidates) {
                owner[e] = owner_of(shared.begin, candidate);
                const Reach& reach = shared.reach[owner[e]];
                const uint32_t place = candidate - shared.begin[owner[e]], across = uint32_t(reach.columns);
                const int row = reach.top + int(place / across), column = reach.left + int(place % across);
                tile[e] = shared.first_tile[owner[e]] + uint32_t(row * columns + column);
                here = reaches(reach, column, row);
                if (!kFill && here) atomicAdd(s.tile_cursor + tile[e], 1u);
            }
            const uint32_t bits = __ballot_sync(kAllLanes, here);
            if (lane == 0) shared.reached[turn][e * kWarps + int(warp)] = bits;
        }
        __syncthreads();
        // Lane i has the chunk's i-th word, and how many were found before it.
        const uint32_t word = shared.reached[turn][lane];
        uint32_t sum = __popc(word);
#pragma unroll
        for (int offset = 1; offset < 32; offset *= 2) {
            const uint32_t below = __shfl_up_sync(kAllLanes, sum, offset);
            if (lane >= unsigned(offset)) sum += below;
        }
        const uint32_t before = found + sum - __popc(word);
        if (kFill) {
            uint32_t slot[kEach], place[kEach];
            bool here[kEach];
#pragma unroll
            for (int e = 0; e < kEach; ++e) {
                const int source = e * kWarps + int(warp);
                const uint32_t bits = __shfl_sync(kAllLanes, word, source);
                slot[e] = first_slot + __shfl_sync(kAllLanes, before, source) + cuda::lanes_below(bits, lane);
                here[e] = bits >> lane & 1;
            }
#pragma unroll
            for (int e = 0; e < kEach; ++e)
                if (here[e]) place[e] = atomicAdd(s.tile_cursor + tile[e], 1u);
#pragma unroll
            for (int e = 0; e < kEach; ++e) {
                if (!here[e]) continue;
                s.entries[place[e]] = uint64_t(shared.depth[owner[e]]) << 32 | slot[e];
                s.owner[slot[e]] = uint32_t(first) + owner[e];
            }
        } else if (warp < kBinSplats / 32) {
            const uint32_t within = begin - chunk;  // large where the splat began earlier
            const int source = int(within / 32 % 32);
            const uint32_t bits = __shfl_sync(kAllLanes, word, source), base = __shfl_sync(kAllLanes, before, source);
            if (within < uint32_t(kChunk)) before_splat = base + cuda::lanes_below(bits, within % 32);
        }
        found += __shfl_sync(kAllLanes, sum, 31);
    }
    if (kFill) return;
    if (present) s.splat_slots[first + t] = begin < candidates ? before_splat : found;
    if (t == 0) s.block_slots[blockIdx.x] = found;
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
    constexpr int kAtOnce = 8;  // so that loads do not wait for each other
    const int each = (blocks + kScanThreads - 1) / kScanThreads, begin = min(int(threadIdx.x) * each, blocks),
              end = min(begin + each, blocks);
    const auto load = [&](int first, uint32_t (&value)[kAtOnce]) {
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) value[i] = first + i < end ? s.block_slots[first + i] : 0;
    };
    uint32_t sum = 0, value[kAtOnce];
    for (int first = begin; first < end; first += kAtOnce) {
        load(first, value);
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) sum += value[i];
    }
    uint32_t before = block_exclusive_sum<kScanThreads / 32>(sum, warp_sums, all);
    for (int first = begin; first < end; first += kAtOnce) {
        load(first, value);
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) {
            if (first + i < end) s.block_slots[first + i] = before;
            before += value[i];
        }
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
