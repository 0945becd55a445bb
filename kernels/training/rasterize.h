// Contract of the operation `rasterize`: splats to the sums that blending leaves in each pixel, and back. The formulas
// are in kernels/common/blend.h.
#pragma once

#include <cstdint>

struct CUstream_st;  // what cudaStream_t points to; named here so that this header needs no CUDA

namespace being::training {

constexpr int kSplatFloats = 12;  // x, y, conic a, b, c, opacity, red, green, blue, depth, 0, 0
constexpr int kSumFloats = 5;     // red, green, blue, alpha, weighted depth

// B frames of N splats each, on pictures of one size. What is written is fully written.
template <class Real>
struct RasterizeStage {
    int frames, splats_per_frame, width, height;
    Real stop;                  // a pixel takes no further splat once its transmittance is below; 0: never
    const Real* splats;         // [B][N][12], in any order; equal depths keep theirs
    Real* sums;                 // [B][H][W][5], out of forward, in of backward
    const Real* sums_gradient;  // [B][H][W][5], in of backward
    Real* splats_gradient;      // [B][N][12], out of backward

    // CUDA only; the CPU takes what it needs. An instance is a splat in a tile of 8x8 pixels.
    int64_t capacity;       // instances that there is room for; with more than that nothing is drawn
    uint32_t* splat_slots;  // [B * N + 1] first slot of each splat
    uint32_t* block_slots;  // [bin_blocks(B * N) + 1]; the last one is the number of instances
    uint32_t* tile_begin;   // [B * tiles] first entry of each tile
    uint32_t* tile_cursor;  // [B * tiles + kCounters] at first counts, at last the end of each tile's entries; counters
    uint32_t* long_tiles;   // [B * tiles] those that no warp can sort
    uint64_t* entries;      // [capacity] at first depth << 32 | slot; sorted: splat << 32 | slot
    uint32_t* owner;        // [capacity] splat of a slot
    float* slots;           // [capacity][12] gradient of each instance, backward only
    int32_t* status;        // [2] the number of instances; 1 if that is more than `capacity`, else 0
};

// After the tiles' cursors: entries and places in long_tiles that are taken.
enum Counter { kEntriesTaken, kLongTiles, kCounters };

constexpr int kTileSize = 8;
constexpr int kBinSplats = 64;  // that a block of `bin` takes

constexpr int tiles_across(int pixels) {
    return (pixels + kTileSize - 1) / kTileSize;
}
constexpr int bin_blocks(int64_t splats) {
    return int((splats + kBinSplats - 1) / kBinSplats);
}

// CPU, float and double.
template <class Real>
void run_rasterize(const RasterizeStage<Real>& stage);
template <class Real>
void run_rasterize_backward(const RasterizeStage<Real>& stage);

// CUDA: the forward pass is count, fill, blend; after `count`, status[0] is the capacity that is needed.
void launch_count(const RasterizeStage<float>& stage, CUstream_st* stream);
void launch_fill(const RasterizeStage<float>& stage, CUstream_st* stream);
void launch_blend(const RasterizeStage<float>& stage, CUstream_st* stream);
void launch_rasterize_backward(const RasterizeStage<float>& stage, CUstream_st* stream);

}  // namespace being::training
