// Sorting the splats of one part of the picture inside a block, in shared memory.
//
// A key is depth << 32 | id: depths are positive floats, whose bits are ordered as they are, and ids are unique, so
// that the order is one and only one, whatever order the list came in.
//
// Depths of a surface are spread well over their range, so the sort is one of buckets: one pass of counting into 512
// bins between the least and the greatest depth, then each key finds its place among the few that share its bin by
// counting those below it. The worst case, all in one bin, is quadratic in what fits (1024 keys: some 20 us) and never
// wrong.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace being::cuda {

constexpr int kSortThreads = 256, kSortCapacity = 1024, kBins = 512;

struct SortScratch {
    uint32_t bins[kBins + 1];
    uint32_t batch_bins[kBins + 1];  // of a whole list that does not fit
    uint32_t warp_total[kSortThreads / 32];
    uint32_t count, low, high;
};

struct BinScale {
    float low, scale;
    __device__ BinScale(uint32_t low_bits, uint32_t high_bits) {
        low = __uint_as_float(low_bits);
        const float range = __uint_as_float(high_bits) - low;
        scale = range > 0 ? float(kBins) / range : 0.0f;
    }
    __device__ int bin(uint64_t key) const {
        const int b = int((__uint_as_float(uint32_t(key >> 32)) - low) * scale);
        return b < kBins - 1 ? b : kBins - 1;
    }
};

// Counts per bin to first places, in place; bins[kBins] becomes the total. Ends with a barrier.
__device__ inline void scan_bins(uint32_t* bins, uint32_t* warp_total) {
    const int t = int(threadIdx.x), warp = t / 32, lane = t % 32;
    const uint32_t a = bins[2 * t], b = bins[2 * t + 1];
    uint32_t sum = a + b;
#pragma unroll
    for (int offset = 1; offset < 32; offset *= 2) {
        const uint32_t below = __shfl_up_sync(~0u, sum, offset);
        if (lane >= offset) sum += below;
    }
    if (lane == 31) warp_total[warp] = sum;
    __syncthreads();
    uint32_t before = 0;
#pragma unroll
    for (int w = 0; w < kSortThreads / 32; ++w) before += w < warp ? warp_total[w] : 0;
    const uint32_t first = before + sum - a - b;
    bins[2 * t] = first;
    bins[2 * t + 1] = first + a;
    if (t == kSortThreads - 1) bins[kBins] = first + a + b;
    __syncthreads();
}

// Sorts keys[0..count) ascending, by the whole block; scratch.low and .high bound the depths. `binned` is as large as
// `keys`. Begins and ends with a barrier.
__device__ inline void sort_keys(uint64_t* keys, uint64_t* binned, int count, SortScratch& scratch) {
    constexpr int kEach = kSortCapacity / kSortThreads;
    const int t = int(threadIdx.x);
    scratch.bins[2 * t] = scratch.bins[2 * t + 1] = 0;
    __syncthreads();
    const BinScale scale(scratch.low, scratch.high);
    uint64_t key[kEach];
    uint32_t rank[kEach];
#pragma unroll
    for (int e = 0; e < kEach; ++e) {
        const int i = e * kSortThreads + t;
        if (i >= count) break;
        key[e] = keys[i];
        rank[e] = atomicAdd(scratch.bins + scale.bin(key[e]), 1u);
    }
    __syncthreads();
    scan_bins(scratch.bins, scratch.warp_total);
#pragma unroll
    for (int e = 0; e < kEach; ++e) {
        if (e * kSortThreads + t >= count) break;
        binned[scratch.bins[scale.bin(key[e])] + rank[e]] = key[e];
    }
    __syncthreads();
#pragma unroll
    for (int e = 0; e < kEach; ++e) {
        if (e * kSortThreads + t >= count) break;
        const int bin = scale.bin(key[e]);
        const uint32_t first = scratch.bins[bin], end = scratch.bins[bin + 1];
        uint32_t place = first;
        for (uint32_t i = first; i < end; ++i) place += binned[i] < key[e];
        keys[place] = key[e];
    }
    __syncthreads();
}

// The keys of a list, in batches that fit, each deeper than the one before; within a batch in no order.
class DepthBatches {
  public:
    __device__ DepthBatches(const uint2* list, int groups, const float* depth, uint64_t* keys, SortScratch& scratch)
        : list_(list), groups_(groups), depth_(depth), keys_(keys), scratch_(scratch) {}

    // How many keys of the next batch are in `keys`; 0: there is no more. By the whole block.
    __device__ int next() {
        if (first_) {
            first_ = false;
            const int all = collect([](uint64_t) { return true; });
            if (all <= kSortCapacity) {
                bin_ = kBins;
                return all;
            }
            count_bins();
        }
        return bin_ >= kBins ? 0 : next_of_many();
    }

  private:
    // Calls visit(key, wanted place) for every key of the list, a lane each; keys of a call have places of their own.
    template <class Visit>
    __device__ void walk(const Visit& visit) const {
        constexpr int kWarps = kSortThreads / 32;
        const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
        for (int first = warp; first < groups_; first += kSortThreads) {
            // A lane fetches an entry, so that 32 are on their way at once.
            const int mine = first + lane * kWarps;
            const uint2 entry = mine < groups_ ? list_[mine] : make_uint2(0, 0);
            const int entries = min(32, (groups_ - first + kWarps - 1) / kWarps);
#pragma unroll 4
            for (int i = 0; i < entries; ++i) {
                const uint32_t group = __shfl_sync(~0u, entry.x, i), mask = __shfl_sync(~0u, entry.y, i);
                const uint32_t id = group * 32 + uint32_t(lane);
                const bool present = mask >> lane & 1;
                const float depth = present ? depth_[id] : 0.0f;
                visit(uint64_t(__float_as_uint(depth)) << 32 | id, present);
            }
        }
    }

    // Puts the keys that are wanted into keys_, as far as they fit, and their bounds into the scratch; how many there
    // are. Ends with a barrier.
    template <class Wanted>
    __device__ int collect(const Wanted& wanted) {
        const int lane = int(threadIdx.x) % 32;
        __syncthreads();  // whoever still reads the last batch
        if (threadIdx.x == 0) {
            scratch_.count = 0;
            scratch_.low = 0xffffffffu;
            scratch_.high = 0;
        }
        __syncthreads();
        uint32_t low = 0xffffffffu, high = 0;
        walk([&](uint64_t key, bool present) {
            present = present && wanted(key);
            const uint32_t mask = __ballot_sync(~0u, present);
            uint32_t base = 0;
            if (lane == 0 && mask) base = atomicAdd(&scratch_.count, uint32_t(__popc(mask)));
            const uint32_t place = __shfl_sync(~0u, base, 0) + __popc(mask & ((1u << lane) - 1));
            if (!present) return;
            if (place < kSortCapacity) keys_[place] = key;
            low = min(low, uint32_t(key >> 32));
            high = max(high, uint32_t(key >> 32));
        });
        low = __reduce_min_sync(~0u, low);
        high = __reduce_max_sync(~0u, high);
        if (lane == 0) {
            atomicMin(&scratch_.low, low);
            atomicMax(&scratch_.high, high);
        }
        __syncthreads();
        return int(scratch_.count);
    }

    template <class Wanted>
    __device__ int count(const Wanted& wanted) {
        __syncthreads();
        if (threadIdx.x == 0) scratch_.count = 0;
        __syncthreads();
        walk([&](uint64_t key, bool present) {
            const uint32_t mask = __ballot_sync(~0u, present && wanted(key));
            if (threadIdx.x % 32 == 0 && mask) atomicAdd(&scratch_.count, uint32_t(__popc(mask)));
        });
        __syncthreads();
        return int(scratch_.count);
    }

    __device__ void count_bins() {
        low_ = scratch_.low;
        high_ = scratch_.high;
        const int t = int(threadIdx.x);
        scratch_.batch_bins[2 * t] = scratch_.batch_bins[2 * t + 1] = 0;
        __syncthreads();
        const BinScale scale(low_, high_);
        walk([&](uint64_t key, bool present) {
            if (present) atomicAdd(scratch_.batch_bins + scale.bin(key), 1u);
        });
        __syncthreads();
        scan_bins(scratch_.batch_bins, scratch_.warp_total);
    }

    // As many whole bins as fit; of a bin that does not fit by itself, the smallest keys that do.
    __device__ int next_of_many() {
        const uint32_t* begin = scratch_.batch_bins;
        const BinScale scale(low_, high_);
        while (bin_ < kBins) {
            const int t = int(threadIdx.x), from = bin_;
            const auto fits = [&](int end) {
                return end > from && begin[end] - begin[from] <= uint32_t(kSortCapacity);
            };
            const int more = __syncthreads_count(fits(2 * t + 1)) + __syncthreads_count(fits(2 * t + 2));
            if (more > 0 && last_ == 0) {
                bin_ += more;
                if (begin[bin_] == begin[from]) continue;
                const int to = bin_;
                return collect([&](uint64_t key) {
                    const int bin = scale.bin(key);
                    return bin >= from && bin < to;
                });
            }
            // The largest limit with no more than fit in (last, limit]: by bisection, since keys are unique.
            const auto within = [&](uint64_t key, uint64_t limit) {
                return scale.bin(key) == from && key > last_ && key <= limit;
            };
            uint64_t low = last_, high = ~uint64_t(0);
            if (count([&](uint64_t key) { return within(key, high); }) <= kSortCapacity) {
                low = high;
                ++bin_;
            }
            while (high - low > 1) {
                const uint64_t middle = low + (high - low) / 2;
                (count([&](uint64_t key) { return within(key, middle); }) <= kSortCapacity ? low : high) = middle;
            }
            const int found = collect([&](uint64_t key) { return within(key, low); });
            last_ = bin_ == from ? low : 0;
            if (found) return found;
        }
        return 0;
    }

    const uint2* list_;
    const int groups_;
    const float* depth_;
    uint64_t* keys_;
    SortScratch& scratch_;
    bool first_ = true;
    int bin_ = 0;
    uint64_t last_ = 0;
    uint32_t low_ = 0, high_ = 0;
};

}  // namespace being::cuda
