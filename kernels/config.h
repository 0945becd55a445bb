// Every tunable of the engine, with why it has its value.
#pragma once

namespace being::config {

// ---- the picture: part of the mathematics, equal in all backends and in reference.py
constexpr float kNear = 0.01f;           // metres; nearer Gaussians are culled
constexpr float kDilation = 0.3f;        // px^2, 3D Gaussian Splatting's low-pass filter
constexpr float kJacobianMargin = 1.3f;  // 3D Gaussian Splatting's clamp of the projection's Jacobian
constexpr float kAlphaCutoff = 1.0f / 255.0f;
constexpr float kLog2AlphaCutoff = -7.99435344f;
constexpr float kLargestAlpha = 0.999f;
// A tile all of whose pixels let less through is finished: what is left out is at most a quarter of a step of 1/255.
constexpr float kTransmittanceStop = 1.0f / 1024.0f;
constexpr float kFadeStart = 0.40f;  // cosine past the silhouette at which a surface Gaussian is gone
constexpr float kFadeWidth = 0.25f;
constexpr int kSectors = 8;            // of the colour match around the neck
constexpr int kLargestPicture = 8192;  // px a side: 256 macro tiles, which 8 bits hold

// ---- shape of the data
constexpr int kLanes = 16;     // Gaussians, vertices, anchors per block: one AVX-512 register of floats
constexpr int kChannels = 13;  // of an offset basis: position 3, rotation 3, log scale 3, opacity 1, colour 3
constexpr int kJoints = 5;
constexpr int kPoseFeatures = 36;
constexpr int kCondition = 138;

// ---- CPU rasterizer
// 8x8 pixels: transmittance and RGB of a tile are 16 AVX-512 registers, so that blending touches no memory but the
// splat. Against tiles of 16x8 and 16x16 with state in the first-level cache: 1.5 to 2.2 times faster.
constexpr int kTile = 8;
// 32x32 pixels: 4x4 tiles, one per lane of the exact test; a third of the list entries of binning 8x8 tiles.
constexpr int kMacroTile = 32;
// Parts per thread in which splats are binned: a torso's are larger than a head's, and come last in the order.
constexpr int kBinParts = 4;
// Empty macro tiles in a row that are filled with background together: rows of 1.5 KB, which the hardware prefetches.
constexpr int kEmptyRun = 16;
// Splats that a macro tile gathers at once: 16 KiB of records, which stay in the first- and second-level cache, and
// after which tiles that are already opaque drop out.
constexpr int kBatch = 256;
// Blocks of Gaussians that a thread takes at a time: long enough that the shared counter is cold, short enough that
// threads end together.
constexpr int kBlocksPerChunk = 32;
// Added to the log2 of opacities in splat records; see rasterize.cpp.
constexpr float kOpacityBias = 100.0f;
// How far ahead, in half floats, bases are prefetched: 8 KiB, a block with all its channels. 15 % of the stage.
constexpr int kBasisAhead = 4096;
// Digit of the depth sort: two passes give 22 bits, one for the layer and 21 for the depth, 0.5 micrometres over a
// head.
constexpr int kSortBits = 11;

// ---- CUDA
// A list, and the warp that draws it, is of 8x8 pixels, two per lane: warps then need each other for nothing. Lists of
// 32x16 pixels, which a block sorts and tests against eight tiles, took a quarter more time, most of it at barriers.
constexpr int kListSize = 8;

}  // namespace being::config
