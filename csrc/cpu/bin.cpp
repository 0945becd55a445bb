// Stage `bin`: for every macro tile, the splats whose bounding box touches it, in depth order.
//
// The same count, prefix, scatter as a pass of the sort, with macro tiles for digits; each worker takes a contiguous
// part of the sorted splats, so lists come out sorted. 1.3 to 4 entries per splat; bound by the cache misses of `box`.
#include "csrc/cpu/stages.h"

namespace being::cpu::BEING_ISA {
namespace {

template <class Use>
void for_each_entry(const BinStage& s, Worker worker, Use use) {
    const int last = int(worker.end(s.visible));
    for (int i = int(worker.begin(s.visible)); i < last; ++i) {
        const uint32_t id = s.order[i];
        prefetch(s.box + s.order[i + 16]);  // order is padded by 16 zeros
        const uint32_t box = s.box[id], left = box & 255, right = box >> 16 & 255, bottom = box >> 24;
        for (uint32_t y = box >> 8 & 255; y <= bottom; ++y)
            for (uint32_t x = left; x <= right; ++x) use(y * s.columns + x, id);
    }
}

}  // namespace

void launch_bin_count(const BinStage& s, Worker worker) {
    const size_t tiles = size_t(s.columns) * s.rows;
    uint32_t* count = s.histogram + worker.index * tiles;
    std::memset(count, 0, tiles * sizeof *count);
    for_each_entry(s, worker, [&](uint32_t tile, uint32_t) { ++count[tile]; });
}

// After the engine has turned the counts into each worker's first position per tile.
void launch_bin_scatter(const BinStage& s, Worker worker) {
    uint32_t* next = s.histogram + worker.index * (size_t(s.columns) * s.rows);
    for_each_entry(s, worker, [&](uint32_t tile, uint32_t id) { s.list[next[tile]++] = id; });
}

}  // namespace being::cpu::BEING_ISA
