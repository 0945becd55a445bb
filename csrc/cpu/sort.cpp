// Stage `sort`: visible splats by layer and depth. A least-significant-digit radix sort, two digits of kSortBits.
//
// Each pass: every worker counts the digits of its share, barrier, every worker scatters its share to where the counts
// of all digits before, and of the workers before for the same digit, say. So equal keys keep their order whatever the
// number of workers. Bound by cache misses of the scatter; 1 to 7 % of a frame.
#include "csrc/cpu/stages.h"

namespace being::cpu::BEING_ISA {
namespace {

constexpr int kDigits = 1 << config::kSortBits;

// Calls use(position in worker's share, key, id) for the share of the first pass.
template <class Use>
void for_each_input(const SortStage& s, Worker worker, Use use) {
    for (int chunk = int(worker.begin(s.chunks)); chunk < int(worker.end(s.chunks)); ++chunk) {
        const size_t first = size_t(chunk) * s.chunk_size;
        for (int i = 0; i < s.chunk_count[chunk]; ++i) use(s.key[first + i], s.id[first + i]);
    }
}

uint32_t* histogram_of(const SortStage& s, int digit, int worker, int workers) {
    return s.histogram + (size_t(digit) * workers + worker) * kDigits;
}

}  // namespace

void launch_sort_count(const SortStage& s, int digit, Worker worker) {
    uint32_t* count = histogram_of(s, digit, worker.index, worker.count);
    std::memset(count, 0, kDigits * sizeof *count);
    if (digit == 0) {
        for_each_input(s, worker, [&](uint32_t key, uint32_t) { ++count[key & (kDigits - 1)]; });
    } else {
        const int last = int(worker.end(s.visible));
        for (int i = int(worker.begin(s.visible)); i < last; ++i) ++count[s.halfway[i] >> (32 + config::kSortBits)];
    }
}

void launch_sort_scatter(const SortStage& s, int digit, Worker worker) {
    uint32_t next[kDigits];
    std::memset(next, 0, sizeof next);
    uint32_t total[kDigits];
    std::memset(total, 0, sizeof total);
    for (int w = 0; w < worker.count; ++w) {
        const uint32_t* count = histogram_of(s, digit, w, worker.count);
        for (int d = 0; d < kDigits; ++d) {
            next[d] += w < worker.index ? count[d] : 0;
            total[d] += count[d];
        }
    }
    uint32_t before = 0;
    for (int d = 0; d < kDigits; ++d) {
        next[d] += before;
        before += total[d];
    }
    if (digit == 0) {
        for_each_input(s, worker, [&](uint32_t key, uint32_t id) {
            s.halfway[next[key & (kDigits - 1)]++] = uint64_t(key) << 32 | id;
        });
    } else {
        const int last = int(worker.end(s.visible));
        for (int i = int(worker.begin(s.visible)); i < last; ++i) {
            const uint64_t entry = s.halfway[i];
            prefetch(s.box + uint32_t(s.halfway[i + 16]));  // padded
            s.order[next[entry >> (32 + config::kSortBits)]++] =
                uint64_t(s.box[uint32_t(entry)]) << 32 | uint32_t(entry);
        }
    }
}

}  // namespace being::cpu::BEING_ISA
