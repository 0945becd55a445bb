// The operation `rasterize` on the CPU: tile lists per frame, then tiles on all cores. Within a tile, splats are taken
// from front to back, and rows of pixels are what the compiler makes vectors of.
#include "kernels/training/rasterize.h"

#include <algorithm>
#include <cstring>

#include "csrc/training/parallel.h"
#include "csrc/training/power_of_two.h"
#include "csrc/training/tile_lists.h"

// GCC unrolls a loop of a few iterations before it looks for vectors, and finds none then.
#if defined(__GNUC__) && !defined(__clang__)
#define BEING_VECTOR_LOOP _Pragma("GCC unroll 1")
#else
#define BEING_VECTOR_LOOP
#endif

namespace being::training {
namespace {

constexpr int kPixels = kCpuTileSize * kCpuTileSize;
constexpr int kRun = 8;           // pixels that are computed or skipped together: two registers of floats
constexpr int kEndInterval = 32;  // splats after which a tile looks whether all of its pixels are finished
static_assert(kCpuTileSize % kRun == 0);

template <class Real>
using Pixels = Real[kPixels];

// ---------------------------------------------------------------- tiles

// A tile of one of the frames, and the part of it that lies on the picture.
struct Place {
    int frame, tile, column, row, left, top, across, down;
};

template <class Real>
using FrameLists = std::vector<TileLists<Real>>;

template <class Real>
FrameLists<Real> lists_of_frames(const RasterizeStage<Real>& s) {
    FrameLists<Real> lists(size_t(s.frames));
    parallel_for(s.frames, 1, [&](int64_t frame) {
        lists[size_t(frame)] = make_tile_lists(s.splats + size_t(frame) * s.splats_per_frame * kSplatFloats,
                                               s.splats_per_frame, s.width, s.height);
    });
    return lists;
}

template <class Real, class Work>
void for_each_tile(const RasterizeStage<Real>& s, const Work& work) {
    const int columns = (s.width + kCpuTileSize - 1) / kCpuTileSize,
              rows = (s.height + kCpuTileSize - 1) / kCpuTileSize;
    const int64_t tiles = int64_t(columns) * rows;
    parallel_for(s.frames * tiles, 4, [&](int64_t i) {
        Place place{int(i / tiles), int(i % tiles), 0, 0, 0, 0, 0, 0};
        place.column = place.tile % columns;
        place.row = place.tile / columns;
        place.left = place.column * kCpuTileSize;
        place.top = place.row * kCpuTileSize;
        place.across = std::min(kCpuTileSize, s.width - place.left);
        place.down = std::min(kCpuTileSize, s.height - place.top);
        work(place);
    });
}

// use(pixel of the tile, offset of the pixel's sums in the picture)
template <class Real, class Use>
void for_each_pixel(const RasterizeStage<Real>& s, const Place& place, const Use& use) {
    for (int y = 0; y < place.down; ++y)
        for (int x = 0; x < place.across; ++x)
            use(y * kCpuTileSize + x,
                ((size_t(place.frame) * s.height + place.top + y) * s.width + place.left + x) * kSumFloats);
}

// 1 in the picture and 0 outside it, where nothing needs to be waited for.
template <class Real>
void clear_transmittance(const Place& place, Pixels<Real>& transmittance) {
    for (int i = 0; i < kPixels; ++i)
        transmittance[i] = Real(i % kCpuTileSize < place.across && i / kCpuTileSize < place.down ? 1 : 0);
}

// use(first pixel of the run, its column, dx + shear dy of it, dy, the row's part of the exponent) for every run of
// pixels of the tile that the splat may reach.
template <class Real, class Use>
void for_each_run(const SplatShape<Real>& shape, const Place& place, const Use& use) {
    const Real lowest = Real(config::kLog2AlphaCutoff - 1e-4f);
    const Real dx = Real(place.left) + Real(0.5) - shape.x, top = Real(place.top) + Real(0.5) - shape.y;
    const int begin = int(std::max(Real(0), std::ceil(-shape.half_height - top)));
    const int end = int(std::min(Real(place.down), std::floor(shape.half_height - top) + 1));
    for (int y = begin; y < end; ++y) {
        const Real dy = top + Real(y), row = shape.row(dy), first = fused(shape.shear, dy, dx);
        for (int x = 0; x < kCpuTileSize; x += kRun) {
            const Real across = first + Real(x),
                       nearest = std::max(std::max(across, -across - Real(kRun - 1)), Real(0));
            if (shape.exponent(nearest, row) >= lowest) use(y * kCpuTileSize + x, x, across, dy, row);
        }
    }
}

// Alpha of a run's pixels before its limits. A loop by itself: in one with what follows, GCC finds that the bounds of
// the power decide what is drawn, and makes branches of both instead of vectors.
template <class Real>
void alpha_of_run(const SplatShape<Real>& shape, Real across, Real row, Real* alpha) {
    const Real a = shape.a;
    BEING_VECTOR_LOOP
    for (int k = 0; k < kRun; ++k) {
        const Real u = across + Real(k);
        alpha[k] = vectorisable_power_of_two(fused(a * u, u, row));
    }
}

template <class Real>
bool all_finished(const Pixels<Real>& transmittance, Real stop) {
    Real most = 0;
    for (int i = 0; i < kPixels; ++i) most = larger(most, transmittance[i]);
    return most < stop;
}

// use(splat) for a tile's splats from front to back, until its pixels are finished.
template <class Real, class Use>
void for_each_splat(const TileLists<Real>& lists, int tile, const Pixels<Real>& transmittance, Real stop,
                    const Use& use) {
    const int64_t begin = lists.begin[size_t(tile)], end = lists.begin[size_t(tile) + 1];
    for (int64_t i = begin; i < end; ++i) {
        if ((i - begin) % kEndInterval == kEndInterval - 1 && all_finished(transmittance, stop)) return;
        use(lists.drawn[size_t(lists.list[size_t(i)])]);
    }
}

// ---------------------------------------------------------------- forward

template <class Real>
struct TileSums {
    alignas(64) Pixels<Real> transmittance, red, green, blue, depth;
};

template <class Real>
void blend_run(const Drawn<Real>& splat, Real stop, Real across, Real row, int first, TileSums<Real>& sums) {
    const Real red = splat.red, green = splat.green, blue = splat.blue, depth = splat.depth;
    alignas(64) Real alpha[kRun];
    alpha_of_run(splat.shape, across, row, alpha);
    BEING_VECTOR_LOOP
    for (int k = 0; k < kRun; ++k) {
        Real& transmittance = sums.transmittance[first + k];
        const Real drawn = drawn_alpha(alpha[k], transmittance, stop), weight = transmittance * drawn;
        sums.red[first + k] += weight * red;
        sums.green[first + k] += weight * green;
        sums.blue[first + k] += weight * blue;
        sums.depth[first + k] += weight * depth;
        transmittance *= Real(1) - drawn;
    }
}

// ---------------------------------------------------------------- backward

template <class Real>
struct TileGradients {
    alignas(64) Pixels<Real> transmittance;
    Pixels<Real> behind;                   // R - g_A T_end, see blend.h
    Pixels<Real> red, green, blue, depth;  // g
};

template <class Real>
void load_gradients(const RasterizeStage<Real>& s, const Place& place, TileGradients<Real>& tile) {
    std::memset(&tile, 0, sizeof tile);
    clear_transmittance<Real>(place, tile.transmittance);
    for_each_pixel(s, place, [&](int i, size_t at) {
        const Real *sum = s.sums + at, *gradient = s.sums_gradient + at;
        tile.red[i] = gradient[0];
        tile.green[i] = gradient[1];
        tile.blue[i] = gradient[2];
        tile.depth[i] = gradient[4];
        tile.behind[i] = gradient[0] * sum[0] + gradient[1] * sum[1] + gradient[2] * sum[2] + gradient[4] * sum[4] -
                         gradient[3] * (Real(1) - sum[3]);
    });
}

// Sums over the rows of a tile, for each of its columns: dx is known per column, so moments in x can wait.
template <class Real>
struct ColumnSums {
    alignas(64) Real w[kCpuTileSize], wy[kCpuTileSize], wyy[kCpuTileSize];
    Real red[kCpuTileSize], green[kCpuTileSize], blue[kCpuTileSize], depth[kCpuTileSize];
};

template <class Real>
void gradient_of_run(const Drawn<Real>& splat, Real stop, Real across, Real dy, Real row, int first,
                     TileGradients<Real>& tile, ColumnSums<Real>& sums, int column) {
    const Real red = splat.red, green = splat.green, blue = splat.blue, depth = splat.depth;
    alignas(64) Real alpha[kRun];
    alpha_of_run(splat.shape, across, row, alpha);
    BEING_VECTOR_LOOP
    for (int k = 0; k < kRun; ++k) {
        const int i = first + k, x = column + k;
        const Real transmittance = tile.transmittance[i];
        const Real drawn = drawn_alpha(alpha[k], transmittance, stop), weight = transmittance * drawn;
        const Real seen = tile.red[i] * red + tile.green[i] * green + tile.blue[i] * blue + tile.depth[i] * depth;
        const Real behind = tile.behind[i] - weight * seen;
        const Real w = log_alpha_gradient(alpha[k], drawn, transmittance, seen, behind);
        sums.w[x] += w;
        sums.wy[x] += w * dy;
        sums.wyy[x] += w * dy * dy;
        sums.red[x] += weight * tile.red[i];
        sums.green[x] += weight * tile.green[i];
        sums.blue[x] += weight * tile.blue[i];
        sums.depth[x] += weight * tile.depth[i];
        tile.behind[i] = behind;
        tile.transmittance[i] = transmittance * (Real(1) - drawn);
    }
}

template <class Real>
SplatSums<Real> sum_of_columns(const ColumnSums<Real>& columns, Real dx) {
    SplatSums<Real> sums{};
    for (int x = 0; x < kCpuTileSize; ++x) {
        const Real d = dx + Real(x);
        sums.w += columns.w[x];
        sums.wx += columns.w[x] * d;
        sums.wy += columns.wy[x];
        sums.wxx += columns.w[x] * d * d;
        sums.wxy += columns.wy[x] * d;
        sums.wyy += columns.wyy[x];
        sums.red += columns.red[x];
        sums.green += columns.green[x];
        sums.blue += columns.blue[x];
        sums.depth += columns.depth[x];
    }
    return sums;
}

template <class Real>
void add(SplatSums<Real>& to, const SplatSums<Real>& sums) {
    to.w += sums.w;
    to.wx += sums.wx;
    to.wy += sums.wy;
    to.wxx += sums.wxx;
    to.wxy += sums.wxy;
    to.wyy += sums.wyy;
    to.red += sums.red;
    to.green += sums.green;
    to.blue += sums.blue;
    to.depth += sums.depth;
}

}  // namespace

template <class Real>
void run_rasterize(const RasterizeStage<Real>& s) {
    const FrameLists<Real> lists = lists_of_frames(s);
    for_each_tile(s, [&](const Place& place) {
        TileSums<Real> sums;
        std::memset(&sums, 0, sizeof sums);
        clear_transmittance<Real>(place, sums.transmittance);
        for_each_splat<Real>(lists[size_t(place.frame)], place.tile, sums.transmittance, s.stop,
                             [&](const Drawn<Real>& splat) {
                                 for_each_run(splat.shape, place, [&](int first, int, Real across, Real, Real row) {
                                     blend_run(splat, s.stop, across, row, first, sums);
                                 });
                             });
        for_each_pixel(s, place, [&](int i, size_t at) {
            s.sums[at] = sums.red[i];
            s.sums[at + 1] = sums.green[i];
            s.sums[at + 2] = sums.blue[i];
            s.sums[at + 3] = Real(1) - sums.transmittance[i];
            s.sums[at + 4] = sums.depth[i];
        });
    });
}

// Every entry of a tile's list has a place of its own for what the tile adds to the splat's sums; they are added per
// splat afterwards, in one order, so that results are the same on any number of cores.
template <class Real>
void run_rasterize_backward(const RasterizeStage<Real>& s) {
    const FrameLists<Real> lists = lists_of_frames(s);
    std::vector<std::vector<SplatSums<Real>>> parts(lists.size());
    for (size_t frame = 0; frame < lists.size(); ++frame) parts[frame].resize(size_t(lists[frame].entries));

    for_each_tile(s, [&](const Place& place) {
        TileGradients<Real> tile;
        load_gradients(s, place, tile);
        std::vector<SplatSums<Real>>& part = parts[size_t(place.frame)];
        for_each_splat<Real>(
            lists[size_t(place.frame)], place.tile, tile.transmittance, s.stop, [&](const Drawn<Real>& splat) {
                ColumnSums<Real> columns;
                std::memset(&columns, 0, sizeof columns);
                for_each_run(splat.shape, place, [&](int first, int column, Real across, Real dy, Real row) {
                    gradient_of_run(splat, s.stop, across, dy, row, first, tile, columns, column);
                });
                part[size_t(splat.entry(place.column, place.row))] =
                    sum_of_columns(columns, Real(place.left) + Real(0.5) - splat.shape.x);
            });
    });

    std::memset(s.splats_gradient, 0, sizeof(Real) * size_t(s.frames) * s.splats_per_frame * kSplatFloats);
    for (size_t frame = 0; frame < lists.size(); ++frame) {
        const TileLists<Real>& list = lists[frame];
        parallel_for(int64_t(list.drawn.size()), 1024, [&](int64_t i) {
            const Drawn<Real>& drawn = list.drawn[size_t(i)];
            SplatSums<Real> sums{};
            for (int64_t entry = drawn.first_entry; entry <= drawn.entry(drawn.right, drawn.bottom); ++entry)
                add(sums, parts[frame][size_t(entry)]);
            const size_t at = (frame * s.splats_per_frame + size_t(list.source[size_t(i)])) * kSplatFloats;
            splat_gradient(s.splats + at, sums, s.splats_gradient + at);
        });
    }
}

template void run_rasterize(const RasterizeStage<float>&);
template void run_rasterize(const RasterizeStage<double>&);
template void run_rasterize_backward(const RasterizeStage<float>&);
template void run_rasterize_backward(const RasterizeStage<double>&);

}  // namespace being::training
