// What a warp does with the keys of a list: it sorts up to 256 of them in registers, and takes longer lists in batches
// of ascending depth.
//
// A key is depth << 32 | id: depths are positive floats, whose bits are ordered as they are, and ids are unique, so
// that the order is one and only one, whatever order the list came in. What is sorted is 32 bits: the difference of the
// depth's bits to the least one of the batch, in 24 of them (exact where depths lie within 16 million steps of each
// other, which at a metre's distance is 0.9 m), and the key's place. Equal depths are put in order of their ids after.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace being::cuda {

constexpr uint32_t kBatch = 256;  // keys that are sorted at once
constexpr int kPlaceBits = 8;
constexpr unsigned kAllLanes = ~0u;

// Bitonic sort (Batcher 1968) of 32 * kEach values; lane i has values i * kEach and up, so that short strides stay
// within a lane.
template <int kEach>
__device__ inline void sort_in_registers(uint32_t (&value)[kEach], unsigned lane) {
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
                    const uint32_t other = __shfl_xor_sync(kAllLanes, value[e], stride / kEach);
                    value[e] = keep_least ? min(value[e], other) : max(value[e], other);
                }
            } else {
#pragma unroll
                for (int e = 0; e < kEach; ++e) {
                    if (e & stride) continue;
                    const uint32_t a = value[e], b = value[e + stride];
                    const bool descending =
                        size < kEach ? (e & size) != 0 : size / kEach < 32 && (lane & (size / kEach));
                    value[e] = descending ? max(a, b) : min(a, b);
                    value[e + stride] = descending ? min(a, b) : max(a, b);
                }
            }
        }
    }
}

// The keys of a batch: what is sorted, and ids by place.
struct KeyBatch {
    uint32_t order[kBatch];
    uint32_t id[kBatch];
};

// Puts runs of equal depth in order of what they were before the depth was cut to 24 bits, then of their ids.
__device__ __noinline__ inline void order_ties(KeyBatch& keys, uint32_t first, uint32_t count, const float* depth,
                                               unsigned lane) {
    const auto full = [&](uint32_t order) {
        const uint32_t id = keys.id[order & (kBatch - 1)];
        return uint64_t(__float_as_uint(depth[id])) << 32 | id;
    };
    for (uint32_t pass = 0, quiet = 0; quiet < 2; ++pass) {  // odd-even transposition, until nothing moves
        bool moved = false;
        for (uint32_t i = first + pass % 2 + 2 * lane; i + 1 < first + count; i += 64) {
            const uint32_t a = keys.order[i], b = keys.order[i + 1];
            if (a >> kPlaceBits != b >> kPlaceBits || full(a) <= full(b)) continue;
            keys.order[i] = b;
            keys.order[i + 1] = a;
            moved = true;
        }
        __syncwarp();
        quiet = __any_sync(kAllLanes, moved) ? 0 : quiet + 1;
    }
}

template <int kEach>
__device__ inline void sort_range(KeyBatch& keys, uint32_t first, uint32_t count, const float* depth, unsigned lane) {
    uint32_t value[kEach];
#pragma unroll
    for (int e = 0; e < kEach; ++e) value[e] = lane * kEach + e < count ? keys.order[first + lane * kEach + e] : ~0u;
    __syncwarp();
    sort_in_registers(value, lane);
    bool tie = false;
    const uint32_t next = __shfl_down_sync(kAllLanes, value[0], 1);
#pragma unroll
    for (int e = 0; e < kEach; ++e) {
        const uint32_t after = e + 1 < kEach ? value[e + 1 < kEach ? e + 1 : 0] : lane < 31 ? next : ~0u;
        tie |= value[e] >> kPlaceBits == after >> kPlaceBits && lane * kEach + e + 1 < count;
        if (lane * kEach + e < count) keys.order[first + lane * kEach + e] = value[e];
    }
    __syncwarp();
    if (__any_sync(kAllLanes, tie)) order_ties(keys, first, count, depth, lane);
}

// How far bits must be shifted so that `range` fits `kept` of them.
__device__ inline int shift_to(uint64_t range, int kept) {
    const int bits = 64 - __clzll(int64_t(range));
    return bits > kept ? bits - kept : 0;
}

// Sorts keys first .. first + count - 1, whose `order` holds bits of depths, between `low` and `high`; afterwards it
// holds sorted places. Returns the shift with which bits of depths are had back: low + (order >> 8 << shift).
__device__ inline int sort_batch(KeyBatch& keys, uint32_t first, uint32_t count, uint32_t low, uint32_t high,
                                 const float* depth, unsigned lane) {
    const int shift = shift_to(high - low, 32 - kPlaceBits);
    for (uint32_t i = lane; i < count; i += 32)
        keys.order[first + i] = (keys.order[first + i] - low) >> shift << kPlaceBits | (first + i);
    __syncwarp();
    if (count <= 32)
        sort_range<1>(keys, first, count, depth, lane);
    else if (count <= 64)
        sort_range<2>(keys, first, count, depth, lane);
    else if (count <= 128)
        sort_range<4>(keys, first, count, depth, lane);
    else
        sort_range<8>(keys, first, count, depth, lane);
    return shift;
}

// A list: groups of 32 ids and masks of which of them are meant, of one or of two layers.
struct List {
    const uint2* entry;
    uint32_t entries, torso_group;  // groups from here on are of the second layer
    const float* depth;
};

// Calls visit(group, depth bits, id, whether there is a key) for every entry of a list, a key per lane.
template <class Visit>
__device__ inline void walk(const List& list, unsigned lane, const Visit& visit) {
    for (uint32_t first = 0; first < list.entries; first += 32) {
        // A lane fetches an entry, so that 32 are on their way at once.
        const uint2 entry = first + lane < list.entries ? list.entry[first + lane] : make_uint2(0, 0);
        const uint32_t here = min(32u, list.entries - first);
#pragma unroll 4
        for (uint32_t i = 0; i < here; ++i) {
            const uint32_t group = __shfl_sync(kAllLanes, entry.x, i), mask = __shfl_sync(kAllLanes, entry.y, i);
            const uint32_t id = group * 32 + lane;
            const bool present = mask >> lane & 1;
            visit(group, present ? __float_as_uint(list.depth[id]) : 0u, id, present);
        }
    }
}

__device__ inline uint32_t lanes_below(uint32_t mask, unsigned lane) {
    return __popc(mask & ((1u << lane) - 1));
}

// The keys of each layer: how many, and the bounds of their depths' bits.
struct Layers {
    uint32_t count[2], low[2], high[2];
};

__device__ inline void find_bounds(uint32_t& low, uint32_t& high) {
    low = __reduce_min_sync(kAllLanes, low);
    high = __reduce_max_sync(kAllLanes, high);
}

// Of a list that does not fit.
__device__ __noinline__ inline Layers bound_all(const List& list, unsigned lane) {
    Layers layers{{0, 0}, {~0u, ~0u}, {0, 0}};
    walk(list, lane, [&](uint32_t group, uint32_t bits, uint32_t, bool present) {
        const int layer = group >= list.torso_group;
        layers.count[layer] += __popc(__ballot_sync(kAllLanes, present));
        if (!present) return;
        layers.low[layer] = min(layers.low[layer], bits);
        layers.high[layer] = max(layers.high[layer], bits);
    });
    find_bounds(layers.low[0], layers.high[0]);
    find_bounds(layers.low[1], layers.high[1]);
    return layers;
}

// All keys of a list if they fit, head's from the front of the batch, the torso's from its end; else bounds alone.
__device__ inline Layers collect_all(const List& list, KeyBatch& keys, unsigned lane) {
    Layers layers{{0, 0}, {~0u, ~0u}, {0, 0}};
    // Ids first, a lane per entry; depths after, a lane per key, so that all of them are on their way at once.
    uint32_t counts = 0;  // head's, and the torso's in the upper half
    for (uint32_t first = 0; first < list.entries; first += 32) {
        const uint2 entry = first + lane < list.entries ? list.entry[first + lane] : make_uint2(0, 0);
        const bool torso = entry.x >= list.torso_group;
        const uint32_t mine = torso ? __popc(entry.y) << 16 : __popc(entry.y);
        uint32_t sum = mine;
#pragma unroll
        for (int offset = 1; offset < 32; offset *= 2) {
            const uint32_t below = __shfl_up_sync(kAllLanes, sum, offset);
            if (lane >= unsigned(offset)) sum += below;
        }
        const uint32_t before = counts + sum - mine;
        counts += __shfl_sync(kAllLanes, sum, 31);
        if ((counts & 0xffff) + (counts >> 16) > kBatch) return bound_all(list, lane);
        uint32_t place = torso ? kBatch - 1 - (before >> 16) : before & 0xffff, step = torso ? ~0u : 1u;
        for (uint32_t mask = entry.y; mask; mask &= mask - 1, place += step)
            keys.id[place] = entry.x * 32 + __ffs(int(mask)) - 1;
    }
    __syncwarp();
#pragma unroll
    for (int layer = 0; layer < 2; ++layer) {
        const uint32_t count = layers.count[layer] = layer ? counts >> 16 : counts & 0xffff;
        const uint32_t first = layer ? kBatch - count : 0;
        if (count == 0) continue;
#pragma unroll 4
        for (uint32_t i = lane; i < count; i += 32) {
            const uint32_t bits = __float_as_uint(list.depth[keys.id[first + i]]);
            keys.order[first + i] = bits;
            layers.low[layer] = min(layers.low[layer], bits);
            layers.high[layer] = max(layers.high[layer], bits);
        }
        find_bounds(layers.low[layer], layers.high[layer]);
    }
    __syncwarp();
    return layers;
}

// Keys that lie side by side in memory; what walk() does for a list.
struct SpilledKeys {
    const uint64_t* key;
    uint32_t count;

    template <class Visit>
    __device__ void for_each(unsigned lane, const Visit& visit) const {
#pragma unroll 4
        for (uint32_t first = 0; first < count; first += 32) {
            const bool present = first + lane < count;
            visit(present ? key[first + lane] : 0, present);
        }
    }
};

// The keys of one layer of a list, found by walking it.
struct ListedKeys {
    List list;
    bool torso;

    template <class Visit>
    __device__ void for_each(unsigned lane, const Visit& visit) const {
        walk(list, lane, [&](uint32_t group, uint32_t bits, uint32_t id, bool present) {
            visit(uint64_t(bits) << 32 | id, present && (group >= list.torso_group) == torso);
        });
    }
};

// Writes all keys of a list to memory, head's from the front of the `count` places, the torso's from their end.
__device__ __noinline__ inline void spill_keys(const List& list, uint64_t* keys, uint32_t count, unsigned lane) {
    uint32_t head = 0, torso = 0;
    for (uint32_t first = 0; first < list.entries; first += 32) {
        const uint2 entry = first + lane < list.entries ? list.entry[first + lane] : make_uint2(0, 0);
        const bool in_torso = entry.x >= list.torso_group;
        uint32_t sum[2] = {in_torso ? 0u : uint32_t(__popc(entry.y)), in_torso ? uint32_t(__popc(entry.y)) : 0u};
        const uint32_t mine = sum[0] + sum[1];
#pragma unroll
        for (int offset = 1; offset < 32; offset *= 2) {
            const uint32_t below0 = __shfl_up_sync(kAllLanes, sum[0], offset),
                           below1 = __shfl_up_sync(kAllLanes, sum[1], offset);
            if (lane >= unsigned(offset)) {
                sum[0] += below0;
                sum[1] += below1;
            }
        }
        uint32_t place = in_torso ? count - 1 - (torso + sum[1] - mine) : head + sum[0] - mine;
        const uint32_t step = in_torso ? ~0u : 1u;
        for (uint32_t mask = entry.y; mask; mask &= mask - 1, place += step)
            keys[place] = entry.x * 32 + __ffs(int(mask)) - 1;
        head += __shfl_sync(kAllLanes, sum[0], 31);
        torso += __shfl_sync(kAllLanes, sum[1], 31);
    }
    __syncwarp();
#pragma unroll 4
    for (uint32_t i = lane; i < count; i += 32) {  // all depths on their way at once
        const uint32_t id = uint32_t(keys[i]);
        keys[i] = uint64_t(__float_as_uint(list.depth[id])) << 32 | id;
    }
    __syncwarp();
}

// A layer that does not fit: its keys in batches, each deeper than the one before. Keys between two bounds are counted
// in 256 bins; as many bins as fit are a batch; a bin that does not fit by itself is cut into 256 again.
class LongLayer {
  public:
    __device__ LongLayer(uint32_t low, uint32_t high) : next_(uint64_t(low) << 32), end_(uint64_t(high) << 32 | ~0u) {}

    // Puts the next batch into `keys`; how many there are, 0: none is left. bins: 256 words that are free to use.
    template <class Source>
    __device__ uint32_t next(const Source& source, KeyBatch& keys, uint32_t* bins, unsigned lane, uint32_t& low,
                             uint32_t& high) {
        while (next_ <= end_ && next_ != 0) {
            const uint64_t last = end_of_batch(source, bins, lane);
            const uint32_t found = collect(source, keys, lane, last, low, high);
            next_ = last + 1;
            if (found) return found;
        }
        return 0;
    }

  private:
    template <class Source>
    __device__ uint64_t end_of_batch(const Source& source, uint32_t* bins, unsigned lane) const {
        for (uint64_t window = end_;;) {
            const int shift = shift_to(window - next_, 8);
            for (uint32_t i = lane; i < 256; i += 32) bins[i] = 0;
            __syncwarp();
            source.for_each(lane, [&](uint64_t key, bool present) {
                if (present && key >= next_ && key <= window) atomicAdd(bins + uint32_t((key - next_) >> shift), 1u);
            });
            __syncwarp();
            // Bins from the first on that fit together: eight per lane.
            uint32_t mine = 0;
            for (int i = 0; i < 8; ++i) mine += bins[lane * 8 + i];
            uint32_t before = mine;
            for (int offset = 1; offset < 32; offset *= 2) {
                const uint32_t below = __shfl_up_sync(kAllLanes, before, offset);
                if (lane >= unsigned(offset)) before += below;
            }
            const uint32_t all = __shfl_sync(kAllLanes, before, 31);
            before -= mine;
            uint32_t fitting = 0;
            for (int i = 0; i < 8; ++i) {
                before += bins[lane * 8 + i];
                fitting += before <= kBatch;
            }
            fitting = __reduce_add_sync(kAllLanes, fitting);
            __syncwarp();
            if (all <= kBatch) return window;
            window = next_ + (uint64_t(fitting > 0 ? fitting : 1) << shift) - 1;
            if (fitting > 0) return window;
        }
    }

    template <class Source>
    __device__ uint32_t collect(const Source& source, KeyBatch& keys, unsigned lane, uint64_t last, uint32_t& low,
                                uint32_t& high) const {
        uint32_t count = 0;
        low = ~0u;
        high = 0;
        source.for_each(lane, [&](uint64_t key, bool present) {
            present = present && key >= next_ && key <= last;
            const uint32_t mask = __ballot_sync(kAllLanes, present), place = count + lanes_below(mask, lane);
            count += __popc(mask);
            if (!present) return;
            const uint32_t bits = uint32_t(key >> 32);
            keys.order[place] = bits;
            keys.id[place] = uint32_t(key);
            low = min(low, bits);
            high = max(high, bits);
        });
        find_bounds(low, high);
        __syncwarp();
        return count;
    }

    uint64_t next_, end_;
};

}  // namespace being::cuda
