// Stages `rasterize` and `composite`: the lists of macro tiles to finished pixels, each written once.
//
//   C = sum T_i alpha_i c_i,  T_i = prod_{j<i} (1 - alpha_j),  alpha = 2^(a dx^2 + b dx dy + c dy^2 + log2 opacity)
//
// A worker takes a macro tile (32x32) at a time. It copies a batch of its splats side by side, testing each exactly
// against the 16 tiles (8x8) at once, one per lane; then it blends tile by tile. In a tile, transmittance and colour of
// 64 pixels are 16 vectors, which AVX-512 keeps in registers; a splat is read by broadcast. The exponent is quadratic,
// so going down a column the weight follows a recurrence: two exponentials per splat and vector of columns, then two
// products per two rows.
//
// Where head and torso are both in a tile, each is blended alone, with its depth, and then composited; elsewhere
// nothing of that is paid. Bound by arithmetic: about 30 cycles per splat and tile on AVX-512, 60 to 90 % of a frame.
// Tried and lost: rows of 16 pixels with state in the first-level cache (1.5 to 2.2 times slower), 8x4 tiles (more list
// work), magic-number exponentials in place of vreduceps + vscalefps (equal).
#include "csrc/cpu/pixels.h"
#include "csrc/cpu/stages.h"
#include "kernels/common/tile_test.h"

namespace being::cpu::BEING_ISA {
namespace {

constexpr int kTile = config::kTile, kMacro = config::kMacroTile, kVectors = kTile * kTile / kLanes;
constexpr int kTilesAcross = kMacro / kTile, kTiles = kTilesAcross * kTilesAcross, kBatch = config::kBatch;
static_assert(kTiles == kLanes && kTile == 8 && kVectors == 4, "one lane per tile, two rows of a tile per vector");

// Weights carry a factor 2^kOpacityBias (it is part of a record's log opacity) so that none on the way down a column
// underflows that a later row needs: the dilation of 0.3 px^2 bounds how fast an exponent can rise over a tile (at most
// 2^147). Transmittance carries its inverse.
static_assert(config::kOpacityBias == 100.0f, "the powers of two below");
constexpr float kBiasFactor = 1.2676506e30f, kBiasInverse = 7.8886091e-31f;

// What blending leaves of a layer in a tile.
struct TileState {
    Floats transmittance[kVectors], red[kVectors], green[kVectors], blue[kVectors], depth[kVectors];
};

void clear(TileState& state) {
    for (int v = 0; v < kVectors; ++v) {
        state.transmittance[v] = Floats(kBiasInverse);
        state.red[v] = state.green[v] = state.blue[v] = state.depth[v] = Floats(0.0f);
    }
}

// Splats of a batch, side by side, and which tiles each reaches.
struct Batch {
    alignas(64) float splat[(kBatch + 2 * kLanes) * kSplatRows];
    alignas(64) uint32_t reach[kBatch + 3 * kLanes];  // bit t: tile t
    alignas(64) uint16_t list[kBatch + 3 * kLanes];   // of one tile
};

struct MacroTile {
    float x, y;        // of the upper left pixel's corner
    uint32_t visible;  // bit t: tile t has pixels of the picture
};

// Appends splats ids[first..] of one layer, as many as fit below `capacity`, to the batch at `count`, which is a
// multiple of 16; those that reach no tile of `alive` are dropped. Returns the id index reached; `count` grows, rounded
// up to 16.
int gather(const float* splats, const uint32_t* ids, int first, int last, const MacroTile& macro, uint32_t alive,
           Batch& batch, int& count, int capacity) {
    alignas(64) static constexpr float kTileX[kLanes] = {0, 8, 16, 24, 0, 8, 16, 24, 0, 8, 16, 24, 0, 8, 16, 24};
    alignas(64) static constexpr float kTileY[kLanes] = {0, 0, 0, 0, 8, 8, 8, 8, 16, 16, 16, 16, 24, 24, 24, 24};
    const Floats left = Floats::load(kTileX) + Floats(macro.x + 0.5f),
                 top = Floats::load(kTileY) + Floats(macro.y + 0.5f);
    const Floats span = float(kTile - 1), cutoff = config::kLog2AlphaCutoff + config::kOpacityBias;
    int n = count, i = first;
    for (; i < last && n < capacity; ++i) {
        if (i + 12 < last) prefetch(splats + size_t(ids[i + 12]) * kSplatRows);
        const float* p = splats + size_t(ids[i]) * kSplatRows;
        const Conic<Floats> conic{p[kConicA], p[kConicB], p[kConicC]};
        const Floats exponent = largest_exponent(conic, Floats(p[kSlopeX]), Floats(p[kSlopeY]),
                                                 left - Floats(p[kCentreX]), top - Floats(p[kCentreY]), span, span);
        const uint32_t reach = bits(exponent + Floats(p[kLogOpacity]) >= cutoff) & alive;
        Floats::load(p).store(batch.splat + n * kSplatRows);
        batch.reach[n] = reach;
        n += reach != 0;
    }
    count = (n + kLanes - 1) / kLanes * kLanes;
    for (; n < count; ++n) batch.reach[n] = 0;
    return i;
}

// Places in the batch, from `first` (a multiple of 16) to `last`, of the splats that reach a tile; returns how many.
int list_tile(const Batch& batch, int first, int last, int tile, uint16_t* list) {
    const Ints bit = int32_t(1u << tile);
    int n = 0;
    for (int i = first; i < last; i += kLanes) {
        const uint32_t reaching = bits(bits_set(Ints::load(batch.reach + i), bit));
        store_packed(reaching, Ints::counting() + Ints(i), list + n);
        n += count_bits(reaching);
    }
    return n;
}

// Blends splats front to back into a tile whose upper left corner is (x, y).
template <bool kDepthToo>
BEING_INLINE void blend(const float* splats, const uint16_t* list, int count, float x, float y, TileState& state) {
    alignas(64) static constexpr float kX[kLanes] = {.5f, 1.5f, 2.5f, 3.5f, 4.5f, 5.5f, 6.5f, 7.5f,
                                                     .5f, 1.5f, 2.5f, 3.5f, 4.5f, 5.5f, 6.5f, 7.5f};
    alignas(64) static constexpr float kY[kLanes] = {.5f,  .5f,  .5f,  .5f,  .5f,  .5f,  .5f,  .5f,
                                                     1.5f, 1.5f, 1.5f, 1.5f, 1.5f, 1.5f, 1.5f, 1.5f};
    const Floats px = Floats::load(kX) + Floats(x), py = Floats::load(kY) + Floats(y);
    const Floats cutoff = kBiasFactor * config::kAlphaCutoff, unbias = kBiasInverse;
    const Floats stop = kBiasInverse * config::kTransmittanceStop;
    Floats t[kVectors], r[kVectors], g[kVectors], b[kVectors], z[kVectors];
    for (int v = 0; v < kVectors; ++v) {
        t[v] = state.transmittance[v];
        r[v] = state.red[v];
        g[v] = state.green[v];
        b[v] = state.blue[v];
        if (kDepthToo) z[v] = state.depth[v];
    }
    for (int i = 0; i < count; ++i) {
        const float* p = splats + list[i] * kSplatRows;
        const Floats dx = px - Floats(p[kCentreX]), dy = py - Floats(p[kCentreY]);
        const Floats exponent = fused(dx, fused(Floats(p[kConicA]), dx, Floats(p[kConicB]) * dy),
                                      fused(Floats(p[kConicC]) * dy, dy, Floats(p[kLogOpacity])));
        // Two rows further down: exponent + 2 b dx + 4 c (dy + 1), and again with 8 c added to that step.
        const Floats step = fused(Floats(p[kTwoB]), dx, fused(Floats(p[kFourC]), dy, Floats(p[kFourC])));
        Floats alpha = power_of_two_fast<true>(exponent);
        Floats ratio = power_of_two_fast<true>(step);
        const Floats ratio_ratio = p[kRowRatio], red = p[kRed], green = p[kGreen], blue = p[kBlue];
        const Floats depth = kDepthToo ? p[kDepth] : 0.0f;
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC unroll 4
#endif
        for (int v = 0; v < kVectors; ++v) {
            const Floats weight = keep(alpha >= cutoff, alpha * t[v]);
            t[v] = fused_negative(weight, unbias, t[v]);
            r[v] = fused(weight, red, r[v]);
            g[v] = fused(weight, green, g[v]);
            b[v] = fused(weight, blue, b[v]);
            if (kDepthToo) z[v] = fused(weight, depth, z[v]);
            if (v + 1 < kVectors) {
                alpha = alpha * ratio;
                ratio = ratio * ratio_ratio;
            }
        }
        if (i % 8 == 7 && !any(larger(larger(t[0], t[1]), larger(t[2], t[3])) >= stop)) break;
    }
    for (int v = 0; v < kVectors; ++v) {
        state.transmittance[v] = t[v];
        state.red[v] = r[v];
        state.green[v] = g[v];
        state.blue[v] = b[v];
        if (kDepthToo) state.depth[v] = z[v];
    }
}

bool finished(const TileState& state) {
    Floats most = state.transmittance[0];
    for (int v = 1; v < kVectors; ++v) most = larger(most, state.transmittance[v]);
    return !any(most >= Floats(kBiasInverse * config::kTransmittanceStop));
}

Pixel<Floats> pixel_of(const TileState& state, int v) {
    const Floats alpha = fused_negative(state.transmittance[v], Floats(kBiasFactor), Floats(1.0f));
    return {{state.red[v], state.green[v], state.blue[v]}, alpha, state.depth[v]};
}

LayerPixel<Floats> layer_pixel(const TileState& state, int v) {
    const Pixel<Floats> pixel = pixel_of(state, v);
    return {pixel.colour, pixel.alpha, pixel.weighted_depth / larger(pixel.alpha, Floats(1e-9f))};
}

// ---------------------------------------------------------------- composite

int bytes_per_pixel(Format format) {
    return format == Format::kRgb ? 3 : format == Format::kRgba ? 4 : 1;
}

// Where a rectangle of pixels begins in a picture's planes, and how far apart rows are. Chroma and floats may be null.
struct Target {
    uint8_t *pixels, *chroma;
    float *alpha, *depth;
    ptrdiff_t stride, float_stride;  // chroma rows are as long as luma rows
};

Target target_at(const RasterizeStage& s, uint8_t* pixels, int x, int y) {
    const size_t stride = size_t(s.width) * bytes_per_pixel(s.format), place = size_t(y) * s.width + x;
    return {pixels + y * stride + size_t(x) * bytes_per_pixel(s.format),
            s.format == Format::kNv12 ? pixels + size_t(s.height) * s.width + size_t(y / 2) * s.width + x : nullptr,
            s.alpha ? s.alpha + place : nullptr,
            s.depth ? s.depth + place : nullptr,
            ptrdiff_t(stride),
            s.width};
}

template <size_t kBytes>
void copy_rows_of(uint8_t* to, ptrdiff_t to_stride, const uint8_t* from, ptrdiff_t from_stride, int rows) {
    for (int y = 0; y < rows; ++y) std::memcpy(to + y * to_stride, from + y * from_stride, kBytes);
}

// Rows of whole tiles have one of a few lengths, for which the copy is a few moves in place of a call.
void copy_rows(uint8_t* to, ptrdiff_t to_stride, const uint8_t* from, ptrdiff_t from_stride, size_t bytes, int rows) {
    if (bytes == kTile * 3) return copy_rows_of<kTile * 3>(to, to_stride, from, from_stride, rows);
    if (bytes == kTile * 4) return copy_rows_of<kTile * 4>(to, to_stride, from, from_stride, rows);
    if (bytes == kTile) return copy_rows_of<kTile>(to, to_stride, from, from_stride, rows);
    for (int y = 0; y < rows; ++y) std::memcpy(to + y * to_stride, from + y * from_stride, bytes);
}

// The background alone, where no splat is.
void write_empty(const RasterizeStage& s, int x, int y, int width, int height) {
    const Target to = target_at(s, s.pixels, x, y), from = target_at(s, const_cast<uint8_t*>(s.plate), x, y);
    copy_rows(to.pixels, to.stride, from.pixels, from.stride, size_t(width) * bytes_per_pixel(s.format), height);
    if (to.chroma) copy_rows(to.chroma, to.stride, from.chroma, from.stride, size_t(width), height / 2);
    for (int row = 0; row < height; ++row) {
        if (to.alpha) std::memset(to.alpha + row * to.float_stride, 0, size_t(width) * sizeof(float));
        if (to.depth) std::memset(to.depth + row * to.float_stride, 0, size_t(width) * sizeof(float));
    }
}

// Head and torso (either may be null) of a whole 8x8 tile at (x, y), over the background, into `to`.
void composite_tile(const RasterizeStage& s, const TileState* head, const TileState* torso, int x, int y,
                    const Target& to) {
    alignas(64) static constexpr float kX[kLanes] = {.5f, 1.5f, 2.5f, 3.5f, 4.5f, 5.5f, 6.5f, 7.5f,
                                                     .5f, 1.5f, 2.5f, 3.5f, 4.5f, 5.5f, 6.5f, 7.5f};
    alignas(64) static constexpr float kY[kLanes] = {.5f,  .5f,  .5f,  .5f,  .5f,  .5f,  .5f,  .5f,
                                                     1.5f, 1.5f, 1.5f, 1.5f, 1.5f, 1.5f, 1.5f, 1.5f};
    const float fx = float(x), fy = float(y);
    const bool near_seam = s.seam.x + s.seam.reach_x > fx && s.seam.x - s.seam.reach_x < fx + kTile &&
                           s.seam.y + s.seam.reach_y > fy && s.seam.y - s.seam.reach_y < fy + kTile;
    for (int v = 0; v < kVectors; ++v) {
        Pixel<Floats> pixel;
        if (head && torso) {
            const LayerPixel<Floats> h = layer_pixel(*head, v), t = layer_pixel(*torso, v);
            pixel = composite_layers(h, t, head_in_front(h, t, Floats(s.inverse_softness)));
        } else {
            pixel = pixel_of(head ? *head : *torso, v);
        }
        if (near_seam)
            pixel = fill_holes(pixel, s.seam, Floats::load(kX) + Floats(fx), Floats::load(kY) + Floats(fy + 2 * v));

        uint8_t *row0 = to.pixels + 2 * v * to.stride, *row1 = row0 + to.stride;
        if (s.format == Format::kRgba) {
            const Floats straight = Floats(1.0f) / larger(pixel.alpha, Floats(1e-9f));
            const Vector3<Floats> c = pixel.colour * straight;
            store_rgba(pack_rgb(c) | shift_left<24>(to_byte(pixel.alpha)), row0, row1);
        } else {
            Vector3<Floats> rgb = pixel.colour;
            if (s.background && any(pixel.alpha < Floats(1.0f - config::kTransmittanceStop))) {
                const size_t stride = size_t(s.columns) * kMacro * 4;
                const uint8_t* plate = s.background + size_t(y + 2 * v) * stride + size_t(x) * 4;
                rgb = over_background(pixel, unpack_rgb(Ints::load_halves(plate, plate + stride)));
            }
            if (s.format == Format::kRgb)
                store_rgb(pack_rgb(rgb), row0, row1);
            else
                store_nv12(rgb, row0, row1, to.chroma + v * to.stride);
        }
        if (to.alpha)
            store_floats(pixel.alpha, to.alpha + 2 * v * to.float_stride, to.alpha + (2 * v + 1) * to.float_stride);
        if (to.depth)
            store_floats(pixel.weighted_depth / larger(pixel.alpha, Floats(1e-9f)), to.depth + 2 * v * to.float_stride,
                         to.depth + (2 * v + 1) * to.float_stride);
    }
}

// The same for a tile that may stick out of the picture: through a scratch tile then.
void write_tile(const RasterizeStage& s, const TileState* head, const TileState* torso, int x, int y) {
    const int width = s.width - x < kTile ? s.width - x : kTile, height = s.height - y < kTile ? s.height - y : kTile;
    if (!head && !torso) return write_empty(s, x, y, width, height);
    const Target to = target_at(s, s.pixels, x, y);
    if (width == kTile && height == kTile) return composite_tile(s, head, torso, x, y, to);
    uint8_t pixels[kTile * kTile * 4], chroma[kTile * kTile / 2];
    float alpha[kTile * kTile], depth[kTile * kTile];
    const ptrdiff_t stride = ptrdiff_t(kTile) * bytes_per_pixel(s.format);
    const Target scratch{pixels, chroma, to.alpha ? alpha : nullptr, to.depth ? depth : nullptr, stride, kTile};
    composite_tile(s, head, torso, x, y, scratch);
    copy_rows(to.pixels, to.stride, pixels, stride, size_t(width) * bytes_per_pixel(s.format), height);
    if (to.chroma) copy_rows(to.chroma, to.stride, chroma, stride, size_t(width), height / 2);
    for (int row = 0; row < height; ++row) {
        if (to.alpha) std::memcpy(to.alpha + row * to.float_stride, alpha + row * kTile, size_t(width) * sizeof(float));
        if (to.depth) std::memcpy(to.depth + row * to.float_stride, depth + row * kTile, size_t(width) * sizeof(float));
    }
}

// ---------------------------------------------------------------- a macro tile

struct Scratch {
    Batch batch;
    TileState state[2][kTiles];  // head, torso
};

void rasterize_macro_tile(const RasterizeStage& s, int index, Scratch& scratch) {
    const int x0 = index % s.columns * kMacro, y0 = index / s.columns * kMacro;
    const uint32_t* ids = s.list + s.begin[index];
    const int count = int(s.begin[index + 1] - s.begin[index]);
    MacroTile macro{float(x0), float(y0), 0};
    for (int tile = 0; tile < kTiles; ++tile)
        if (x0 + tile % kTilesAcross * kTile < s.width && y0 + tile / kTilesAcross * kTile < s.height)
            macro.visible |= 1u << tile;

    // Lists are sorted by layer first.
    int torso_first = 0;
    for (int high = count; torso_first < high;) {
        const int middle = (torso_first + high) / 2;
        if (ids[middle] < s.torso_begin)
            torso_first = middle + 1;
        else
            high = middle;
    }
    const bool mixed = torso_first > 0 && torso_first < count;

    if (s.background) {  // rows of the background lie far apart: asked for now, they are here when tiles are composited
        const uint8_t* plate = s.background + (size_t(y0) * s.columns * kMacro + x0) * 4;
        for (int y = 0; y < kMacro; ++y)
            for (int line = 0; line < kMacro * 4; line += 64)
                prefetch(plate + size_t(y) * s.columns * kMacro * 4 + line);
    }

    Batch& batch = scratch.batch;
    uint32_t alive[2] = {macro.visible, macro.visible}, touched[2] = {0, 0};
    int next_head = 0, next_torso = torso_first;
    for (bool first = true, last = false; !last; first = false) {
        int head_count = 0;
        next_head = gather(s.splats, ids, next_head, torso_first, macro, alive[0], batch, head_count, kBatch);
        if (!alive[0]) next_head = torso_first;
        int end = head_count;
        if (next_head == torso_first) {
            next_torso = gather(s.splats, ids, next_torso, count, macro, alive[1], batch, end, kBatch);
            if (!alive[1]) next_torso = count;
        }
        last = next_head == torso_first && next_torso == count;
        const bool single = first && last;

        for (int tile = 0; tile < kTiles; ++tile) {
            if (!(macro.visible >> tile & 1)) continue;
            const int x = x0 + tile % kTilesAcross * kTile, y = y0 + tile / kTilesAcross * kTile;
            uint16_t* list = batch.list;
            const int heads = list_tile(batch, 0, head_count, tile, list);
            const int torsos = list_tile(batch, head_count, end, tile, list + heads);
            // A state that no further batch needs stays at one place, which stays in the first-level cache.
            TileState &head = scratch.state[0][single ? 0 : tile], &torso = scratch.state[1][single ? 0 : tile];
            const bool depth = s.depth || (single ? heads > 0 && torsos > 0 : mixed);
            const auto add = [&](TileState& state, int layer, const uint16_t* from, int n) {
                if (n == 0) return;
                if (!(touched[layer] >> tile & 1)) clear(state);
                touched[layer] |= 1u << tile;
                if (depth)
                    blend<true>(batch.splat, from, n, float(x), float(y), state);
                else
                    blend<false>(batch.splat, from, n, float(x), float(y), state);
                if (!last && finished(state)) alive[layer] &= ~(1u << tile);
            };
            add(head, 0, list, heads);
            add(torso, 1, list + heads, torsos);
            if (last)
                write_tile(s, touched[0] >> tile & 1 ? &head : nullptr, touched[1] >> tile & 1 ? &torso : nullptr, x,
                           y);
        }
    }
}

}  // namespace

void launch_rasterize(const RasterizeStage& s, Worker) {
    const FlushDenormals flush;
    Scratch scratch;
    for (int next; (next = s.next_job->fetch_add(1, std::memory_order_relaxed)) < s.job_count;) {
        const TileJob job = s.jobs[next];
        if (!job.empty) {
            rasterize_macro_tile(s, job.first, scratch);
            continue;
        }
        const int x = job.first % s.columns * kMacro, y = job.first / s.columns * kMacro, span = job.count * kMacro;
        write_empty(s, x, y, s.width - x < span ? s.width - x : span, s.height - y < kMacro ? s.height - y : kMacro);
    }
}

}  // namespace being::cpu::BEING_ISA
