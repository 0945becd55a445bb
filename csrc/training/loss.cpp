// The operation `photometric_loss` on the CPU, a tile at a time.
#include "kernels/training/loss.h"

#include <memory>

#include "csrc/training/parallel.h"
#include "kernels/common/photometric.h"
#include "kernels/common/ssim.h"

namespace being::training {
namespace {

constexpr int kReach = kLossTile + 2 * kSsimRadius;  // px a side that a tile's windows see

template <class Real>
using Wide = Real[kReach][kReach];  // of a tile and what its windows see around it; 0 outside the picture
template <class Real>
using Narrow = Real[kLossTile][kLossTile];

struct Tile {
    int picture, y, x, height, width;
};

template <class Real>
int64_t tiles_of(const LossStage<Real>& s) {
    return int64_t(s.pictures) * ((s.height + kLossTile - 1) / kLossTile) * ((s.width + kLossTile - 1) / kLossTile);
}

template <class Real>
Tile tile_of(const LossStage<Real>& s, int64_t index) {
    const int columns = (s.width + kLossTile - 1) / kLossTile, rows = (s.height + kLossTile - 1) / kLossTile;
    const int x = int(index % columns) * kLossTile, y = int(index / columns % rows) * kLossTile;
    return {int(index / columns / rows), y, x, std::min(kLossTile, s.height - y), std::min(kLossTile, s.width - x)};
}

template <class Real>
int64_t pixel_of(const LossStage<Real>& s, int picture, int y, int x) {
    return (int64_t(picture) * s.height + y) * s.width + x;
}

template <class Real>
TargetPixel<Real> target_at(const LossStage<Real>& s, int picture, int y, int x) {
    const uint8_t* p = s.target + pixel_of(s, picture, y, x) * 4;
    return target_pixel(p[0], p[1], p[2], p[3], s.background.at(picture, y, x));
}

// SSIM's window over the pixels around each pixel of a tile, along rows, then along columns.
template <class Real>
void blur(const Wide<Real>& in, Narrow<Real>& out) {
    Real rows[kReach][kLossTile];
    for (int y = 0; y < kReach; ++y) {
        for (int x = 0; x < kLossTile; ++x) rows[y][x] = 0;
        for (int k = 0; k < kSsimTaps; ++k)
            for (int x = 0; x < kLossTile; ++x) rows[y][x] = fused(ssim_window<Real>(k), in[y][x + k], rows[y][x]);
    }
    for (int y = 0; y < kLossTile; ++y) {
        for (int x = 0; x < kLossTile; ++x) out[y][x] = 0;
        for (int k = 0; k < kSsimTaps; ++k)
            for (int x = 0; x < kLossTile; ++x) out[y][x] = fused(ssim_window<Real>(k), rows[y + k][x], out[y][x]);
    }
}

template <class Real>
struct ForwardMemory {
    Wide<Real> a[3], b[3];  // both pictures, by channel
    Wide<Real> square, product;
    Narrow<Real> mean_a, mean_b, mean_square, mean_product;
};

// Sum of weighted 1 - SSIM over a tile; keeps the weighted derivatives.
template <class Real>
Real dssim_of_tile(const LossStage<Real>& s, const Tile& tile) {
    // Not on the stack, which is small in some threads; not cleared, for all of it is written.
    const std::unique_ptr<ForwardMemory<Real>> memory(new ForwardMemory<Real>);
    ForwardMemory<Real>& m = *memory;
    for (int y = 0; y < kReach; ++y)
        for (int x = 0; x < kReach; ++x) {
            const int py = tile.y + y - kSsimRadius, px = tile.x + x - kSsimRadius;
            Vector3<Real> a{0, 0, 0}, b{0, 0, 0};
            if (py >= 0 && px >= 0 && py < s.height && px < s.width) {
                const Real* p = s.picture + pixel_of(s, tile.picture, py, px) * 4;
                a = {p[0], p[1], p[2]};
                b = target_at(s, tile.picture, py, px).colour;
            }
            m.a[0][y][x] = a.x, m.a[1][y][x] = a.y, m.a[2][y][x] = a.z;
            m.b[0][y][x] = b.x, m.b[1][y][x] = b.y, m.b[2][y][x] = b.z;
        }

    Real sum = 0;
    for (int channel = 0; channel < 3; ++channel) {
        const Wide<Real>&a = m.a[channel], &b = m.b[channel];
        for (int y = 0; y < kReach; ++y)
            for (int x = 0; x < kReach; ++x) {
                m.square[y][x] = fused(a[y][x], a[y][x], b[y][x] * b[y][x]);
                m.product[y][x] = a[y][x] * b[y][x];
            }
        blur(a, m.mean_a);
        blur(b, m.mean_b);
        blur(m.square, m.mean_square);
        blur(m.product, m.mean_product);
        for (int y = 0; y < tile.height; ++y)
            for (int x = 0; x < tile.width; ++x) {
                const Real weight = s.weight_of(pixel_of(s, tile.picture, tile.y + y, tile.x + x));
                const SsimMoments<Real> moments{m.mean_a[y][x], m.mean_b[y][x], m.mean_square[y][x],
                                                m.mean_product[y][x]};
                const Ssim<Real> ssim = structural_similarity(moments);
                sum += weight * (Real(1) - ssim.value);
                if (!s.kept) continue;
                Real* kept = s.kept + s.kept_index(tile.picture, channel, tile.y + y, tile.x + x) * kSsimKept;
                kept[0] = weight * by_mean_alone(ssim, moments);
                kept[1] = weight * ssim.by_square;
                kept[2] = weight * ssim.by_product;
            }
    }
    return sum;
}

template <class Real>
LossSums<Real> sums_of_tile(const LossStage<Real>& s, const Tile& tile) {
    LossSums<Real> sums{0, 0, 0};
    for (int y = tile.y; y < tile.y + tile.height; ++y)
        for (int x = tile.x; x < tile.x + tile.width; ++x) {
            const int64_t pixel = pixel_of(s, tile.picture, y, x);
            const Real* p = s.picture + pixel * 4;
            const TargetPixel<Real> target = target_at(s, tile.picture, y, x);
            sums.l1 += s.weight_of(pixel) *
                       (robust(p[0] - target.colour.x, s.huber) + robust(p[1] - target.colour.y, s.huber) +
                        robust(p[2] - target.colour.z, s.huber));
            sums.alpha += coverage_cost(p[3], target.alpha, s.tolerance);
        }
    if (s.ssim) sums.dssim = dssim_of_tile(s, tile);
    return sums;
}

template <class Real>
struct BackwardMemory {
    Wide<Real> kept[kSsimKept];  // of one channel
    Narrow<Real> blurred[3][kSsimKept];
};

template <class Real>
void blur_kept(const LossStage<Real>& s, const Tile& tile, BackwardMemory<Real>& m) {
    for (int channel = 0; channel < 3; ++channel) {
        for (int y = 0; y < kReach; ++y)
            for (int x = 0; x < kReach; ++x) {
                const int py = tile.y + y - kSsimRadius, px = tile.x + x - kSsimRadius;
                const bool inside = py >= 0 && px >= 0 && py < s.height && px < s.width;
                const Real* kept = s.kept + (inside ? s.kept_index(tile.picture, channel, py, px) * kSsimKept : 0);
                for (int i = 0; i < kSsimKept; ++i) m.kept[i][y][x] = inside ? kept[i] : Real(0);
            }
        for (int i = 0; i < kSsimKept; ++i) blur(m.kept[i], m.blurred[channel][i]);
    }
}

template <class Real>
void differentiate_tile(const LossStage<Real>& s, const Tile& tile) {
    const LossSums<Real> scale = loss_scales(s);
    std::unique_ptr<BackwardMemory<Real>> memory;
    if (s.ssim) {
        memory.reset(new BackwardMemory<Real>);
        blur_kept(s, tile, *memory);
    }
    for (int y = 0; y < tile.height; ++y)
        for (int x = 0; x < tile.width; ++x) {
            const int64_t pixel = pixel_of(s, tile.picture, tile.y + y, tile.x + x);
            const Real* p = s.picture + pixel * 4;
            Real* out = s.picture_gradient + pixel * 4;
            const TargetPixel<Real> target = target_at(s, tile.picture, tile.y + y, tile.x + x);
            const Real colour[3] = {target.colour.x, target.colour.y, target.colour.z};
            const Real l1 = scale.l1 * s.weight_of(pixel);
            for (int c = 0; c < 3; ++c) {
                out[c] = l1 * robust_slope(p[c] - colour[c], s.huber);
                if (!memory) continue;
                const Narrow<Real>* blurred = memory->blurred[c];
                out[c] -= scale.dssim * (blurred[0][y][x] + 2 * p[c] * blurred[1][y][x] + colour[c] * blurred[2][y][x]);
            }
            out[3] = scale.alpha * coverage_slope(p[3], target.alpha, s.tolerance);
        }
}

}  // namespace

template <class Real>
void run_loss(const LossStage<Real>& stage) {
    const int64_t tiles = tiles_of(stage);
    parallel_for(tiles, 1, [&](int64_t index) {
        const LossSums<Real> sums = sums_of_tile(stage, tile_of(stage, index));
        Real* partial = stage.partial + index * 3;
        partial[0] = sums.l1, partial[1] = sums.dssim, partial[2] = sums.alpha;
    });
    LossSums<double> sums{0, 0, 0};
    for (int64_t i = 0; i < tiles; ++i) {
        const Real* partial = stage.partial + i * 3;
        sums.l1 += partial[0], sums.dssim += partial[1], sums.alpha += partial[2];
    }
    write_losses(stage, sums);
}

template <class Real>
void run_loss_backward(const LossStage<Real>& stage) {
    parallel_for(tiles_of(stage), 1, [&](int64_t index) { differentiate_tile(stage, tile_of(stage, index)); });
}

template void run_loss(const LossStage<float>&);
template void run_loss(const LossStage<double>&);
template void run_loss_backward(const LossStage<float>&);
template void run_loss_backward(const LossStage<double>&);

}  // namespace being::training
