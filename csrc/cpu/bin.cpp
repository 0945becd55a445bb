// Stage `bin`: for every macro tile, the splats whose bounding box touches it, in depth order.
//
// The same count, prefix, scatter as a pass of the sort, with macro tiles for digits; each worker takes a contiguous
// part of the sorted splats, so lists come out sorted. 1.3 to 4 entries per splat; bound by its writes to a thousand
// places.
#include "csrc/cpu/stages.h"

namespace being::cpu::BEING_ISA {
namespace {

template <class Use>
void for_each_entry(const BinStage& s, Worker worker, Use use) {
    const uint32_t columns = uint32_t(s.columns), spare = columns * uint32_t(s.rows);
    const int last = int(worker.end(s.visible));
    for (int i = int(worker.begin(s.visible)); i < last; ++i) {
        const uint32_t id = uint32_t(s.order[i]), box = uint32_t(s.order[i] >> 32), left = box & 255,
                       top = box >> 8 & 255;
        const uint32_t across = (box >> 16 & 255) - left, down = (box >> 24) - top, first = top * columns + left;
        if ((across | down) < 2) {
            // Nearly all, and without a branch on how many of the 2x2 (a product, for compilers make branches of ?:).
            // Those that are none go to spare counters, each its own, so that no addition waits for the one before.
            use(first, id);
            use(spare + (first + 1 - spare) * across, id);
            use(spare + 1 + (first + columns - spare - 1) * down, id);
            use(spare + 2 + (first + columns + 1 - spare - 2) * (across & down), id);
            continue;
        }
        for (uint32_t y = 0; y <= down; ++y)
            for (uint32_t x = 0; x <= across; ++x) use(first + y * columns + x, id);
    }
}

}  // namespace

void launch_bin_count(const BinStage& s, Worker worker) {
    uint32_t* count = s.histogram + size_t(worker.index) * s.histogram_stride;
    std::memset(count, 0, size_t(s.histogram_stride) * sizeof *count);
    for_each_entry(s, worker, [&](uint32_t tile, uint32_t) { ++count[tile]; });
}

// After the engine has turned the counts into each worker's first position per tile.
void launch_bin_scatter(const BinStage& s, Worker worker) {
    uint32_t* next = s.histogram + size_t(worker.index) * s.histogram_stride;
    uint32_t* spare = next + size_t(s.columns) * s.rows;
    for_each_entry(s, worker, [&](uint32_t tile, uint32_t id) {
        uint32_t& place = next[tile];
        s.list[place] = id;
        place += &place < spare;
    });
}

}  // namespace being::cpu::BEING_ISA
