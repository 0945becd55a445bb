#include "csrc/training/tile_lists.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/training/rasterize.h"

namespace being::training {
namespace {

// Tiles, inclusive, with a pixel centre within `half` of `centre`, along an axis of `pixels`. False: none, or not a
// number.
template <class Real>
bool tile_range(Real centre, Real half, int pixels, int& first, int& last) {
    const Real low = std::ceil(centre - half - Real(0.5)), high = std::floor(centre + half - Real(0.5));
    if (!(low <= high && low <= Real(pixels - 1) && high >= 0)) return false;
    first = int(std::max(low, Real(0))) / kCpuTileSize;
    last = int(std::min(high, Real(pixels - 1))) / kCpuTileSize;
    return true;
}

template <class Real>
bool make_drawn(const Real* splat, int width, int height, Drawn<Real>& drawn) {
    if (!make_splat_shape(splat, drawn.shape) || !std::isfinite(splat[9])) return false;
    const SplatShape<Real>& shape = drawn.shape;
    if (!tile_range(shape.x, shape.half_width, width, drawn.left, drawn.right)) return false;
    if (!tile_range(shape.y, shape.half_height, height, drawn.top, drawn.bottom)) return false;
    drawn.red = splat[6];
    drawn.green = splat[7];
    drawn.blue = splat[8];
    drawn.depth = splat[9];
    return true;
}

}  // namespace

template <class Real>
TileLists<Real> make_tile_lists(const Real* splats, int count, int width, int height) {
    TileLists<Real> lists;
    lists.columns = (width + kCpuTileSize - 1) / kCpuTileSize;
    lists.rows = (height + kCpuTileSize - 1) / kCpuTileSize;
    lists.entries = 0;
    lists.begin.assign(size_t(lists.columns) * lists.rows + 1, 0);
    lists.drawn.reserve(size_t(count));
    lists.source.reserve(size_t(count));
    std::vector<std::pair<Real, int>> order;
    order.reserve(size_t(count));

    for (int i = 0; i < count; ++i) {
        Drawn<Real> drawn;
        if (!make_drawn(splats + size_t(i) * kSplatFloats, width, height, drawn)) continue;
        drawn.first_entry = lists.entries;
        lists.entries = drawn.entry(drawn.right, drawn.bottom) + 1;
        order.emplace_back(drawn.depth, int(lists.drawn.size()));
        lists.drawn.push_back(drawn);
        lists.source.push_back(i);
    }
    std::sort(order.begin(), order.end());

    // Count, sum, scatter; splats come in order of depth, so every list does.
    const auto for_each_tile = [&](const Drawn<Real>& drawn, const auto& use) {
        for (int row = drawn.top; row <= drawn.bottom; ++row)
            for (int column = drawn.left; column <= drawn.right; ++column) use(size_t(row) * lists.columns + column);
    };
    for (const Drawn<Real>& drawn : lists.drawn) for_each_tile(drawn, [&](size_t tile) { ++lists.begin[tile + 1]; });
    for (size_t tile = 1; tile < lists.begin.size(); ++tile) lists.begin[tile] += lists.begin[tile - 1];
    std::vector<int64_t> next(lists.begin.begin(), lists.begin.end() - 1);
    lists.list.resize(size_t(lists.entries));
    for (const auto& [depth, index] : order)
        for_each_tile(lists.drawn[size_t(index)], [&](size_t tile) { lists.list[size_t(next[tile]++)] = index; });
    return lists;
}

template TileLists<float> make_tile_lists(const float*, int, int, int);
template TileLists<double> make_tile_lists(const double*, int, int, int);

}  // namespace being::training
