// Which splats a tile of the picture has to blend, nearest first.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/common/blend.h"

namespace being::training {

// px. Tiles of 8 px took the same time, with up to four times the entries, each of which has its sums in backward.
constexpr int kCpuTileSize = 16;

// A splat that is on the picture.
template <class Real>
struct Drawn {
    SplatShape<Real> shape;
    Real red, green, blue, depth;
    int left, top, right, bottom;  // tiles it may reach, inclusive
    int64_t first_entry;           // of all splats' (splat, tile) pairs, its own begin here, row by row

    int64_t entry(int column, int row) const {
        return first_entry + int64_t(row - top) * (right - left + 1) + (column - left);
    }
};

// One frame's lists. Entries are numbered by splat, whatever the depths, so that what is kept per entry can be summed
// per splat in one order.
template <class Real>
struct TileLists {
    int columns, rows;
    int64_t entries;
    std::vector<Drawn<Real>> drawn;  // in the order of the input
    std::vector<int> source;         // [drawn] index of the splat in the input
    std::vector<int64_t> begin;      // [columns * rows + 1] a tile's list begins here, and ends where the next begins
    std::vector<int> list;           // [entries] indices into `drawn`, by (depth, index)
};

// splats: [count][12], see kernels/training/rasterize.h.
template <class Real>
TileLists<Real> make_tile_lists(const Real* splats, int count, int width, int height);

}  // namespace being::training
