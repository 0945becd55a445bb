// The contract of a frame: one plain struct of pointers and sizes per stage, and one launch_* per stage and backend
// that takes it. No stage knows who owns the memory or what ran before it. The order is in csrc/engine/engine.cpp.
//
// The CPU's launch_* functions are called once per worker, on any thread; each call does its share of the stage. There
// is one set of them per instruction set (csrc/cpu/dispatch.h).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "kernels/common/body.h"
#include "kernels/common/composite.h"
#include "kernels/common/format.h"
#include "kernels/common/projection.h"
#include "kernels/config.h"

namespace being {

using Half = uint16_t;  // IEEE half float
using Frame3f = Frame3<float>;

// Which of the `count` parts of a stage this call is.
struct Worker {
    int index, count;

    // First element of this worker's even share of `n`; the share ends where the next worker's begins.
    int64_t begin(int64_t n) const { return n * index / count; }
    int64_t end(int64_t n) const { return n * (index + 1) / count; }
};

// One frame of FLAME parameters: radians, metres.
struct FrameParams {
    const float* expression;   // [expression_count]
    const float* rotation;     // [3] axis-angle
    const float* neck;         // [3]
    const float* jaw;          // [3]
    const float* eyes;         // [6] left, right
    const float* translation;  // [3]
    const float* eyelids;      // [2]
};

// ---------------------------------------------------------------- pose

// How a body's rest pose answers the motion: kernels/common/body.h.
struct BodyResponse {
    float maps[kMotions][12];  // G: [3][4]
    float range[2][kMotions];  // lowest, highest
};

struct Skeleton {
    int expression_count;
    const float* joint_rest;        // [5][3]
    const float* joint_expression;  // [5][3][expression_count]
};

// What a frame's parameters come to before any vertex is touched.
struct Pose {
    Frame3f joint[config::kJoints];            // rest pose to world, the common translation included
    Matrix3<float> rotation[config::kJoints];  // each joint's own, relative to its parent
    float feature[config::kPoseFeatures];      // rotation of joints 1..4 minus identity, row-major
};

// ---------------------------------------------------------------- offset network (part of `pose`: depends on the frame
// alone)

// Blocks of 16 neurons or anchors lie side by side, one per lane; counts are padded with zeros to whole blocks.
struct NetworkStage {
    int inputs, hidden0, hidden1, hidden2, rank, anchors;  // unpadded; anchors is a multiple of 16
    int latent_stride;                                     // rank padded to 16
    const float* trunk_weight_0;                           // [inputs][hidden0 padded]
    const float* trunk_bias_0;
    const float* trunk_weight_1;  // [hidden0][hidden1 padded]
    const float* trunk_bias_1;
    const float* head_weight_0;  // [hidden1][hidden2 padded], the columns of the head's first layer that see the trunk
    const float* anchor_bias;  // [anchors / 16][hidden2][16], what those that see the anchor's code add, with the bias
    const float* head_weight_1;  // [hidden2][latent_stride]
    const float* head_bias_1;    // [latent_stride]
    const float* condition;      // [inputs]
    float* scratch;              // [workers][hidden0 + hidden1 + hidden2, each padded, + 16 latent_stride]
    float* latent;               // out [anchors][latent_stride]
};

// ---------------------------------------------------------------- skin

// Vertices that some Gaussian's triangle needs, 16 to a block; columns of the basis: expression, eyelids, pose feature.
template <class Storage>
struct SkinStage {
    int blocks, columns;
    const float* rest;         // [blocks][3][16]
    const Storage* basis;      // [blocks][columns][3][16]
    const float* weights;      // [blocks][5][16]
    const int32_t* active;     // [active_count] columns whose coefficient is not 0
    const float* coefficient;  // [active_count]
    int active_count;
    Frame3f joint[config::kJoints];  // rest pose to the space of the result: camera space when drawing
    float* vertices;                 // out [3][blocks * 16]
    float* depth_range;              // out [workers][2], least and greatest z; null: not wanted
};

struct FaceStage {
    int blocks, vertex_stride;
    const float* vertices;      // [3][vertex_stride] camera space
    const int32_t* corner;      // [blocks][3][16]
    const float* inverse_rest;  // [blocks][4][16], Rig.face_frames
    float* frames;              // out [blocks * 16][16]: rows of [t b n corner0], then padding to a cache line
};

// ---------------------------------------------------------------- deform and project (one pass: a deformed Gaussian is
// never stored)

// Rows of 16 floats of a block of Gaussians.
enum GaussianRow {
    kPosition = 0,
    kRotation = 3,
    kScale = 7,
    kOpacity = 10,
    kColour = 11,
    kUnfading = 14,
    kGaussianRows = 15
};

// Rows of a splat record, 16 floats, one cache line.
enum SplatRow {
    kCentreX,
    kCentreY,  // px
    kConicA,
    kConicB,
    kConicC,      // exponent in base 2, see Conic
    kLogOpacity,  // log2, plus kOpacityBias
    kRed,
    kGreen,
    kBlue,
    kSlopeX,
    kSlopeY,  // of the exact tile test
    kDepth,   // metres
    kTwoB,
    kFourC,
    kEightC,
    kRowRatio,  // of the blend's recurrence; kRowRatio = 2^(8c)
    kSplatRows
};

struct DeformStage {
    // Blocks in order: head with offset bases, head without, torso. Log scales are in base 2; blocks without bases hold
    // linear scales and opacities instead of logarithms and logits.
    int offset_blocks, head_blocks, blocks;
    const float* gaussians;  // [blocks][kGaussianRows][16]
    const int32_t* face;     // [head_blocks * 16] row of `frames`
    const float* frames;     // [faces][16]
    // offset network
    int rank, latent_stride;
    const Half* basis;               // stored channels, block by block: [..][rank][16]
    const int32_t* basis_begin;      // [offset_blocks] the block's first stored channel
    const uint32_t* basis_channels;  // [offset_blocks] bit c: channel c is stored
    const float* basis_bound;        // [offset_blocks][2][latent_stride]: of position and rotation, largest over lanes
    const int32_t* anchor_begin;     // [offset_blocks + 1] into the next two
    const int32_t* anchor_index;     // anchors that a block's Gaussians mix
    const float* anchor_weight;      // [..][16] by how much
    const float* latent;             // [anchors][latent_stride]
    const float* largest_latent;     // [latent_stride] over the anchors, absolute
    // torso
    const float* torso_weights;        // [torso blocks][3][16]
    Frame3f torso_frame[3];            // rest pose to camera space: root, global joint, neck joint
    int matched_blocks;                // of the torso's first blocks some Gaussian is matched to the head's colour
    const float* match_weight;         // [matched_blocks][kSectors][16]
    float match[config::kSectors][3];  // what each sector adds
    // camera
    Intrinsics camera;
    int width, height;
    bool antialiased;
    float near_depth[2], depth_scale[2];  // of head and torso: key = (z - near) * scale, 0 .. 2^21 - 1
    // out; a Gaussian's id is block * 16 + lane
    std::atomic<int>* next_chunk;
    float* splats;         // [blocks * 16][kSplatRows], written where the block has a visible Gaussian
    uint32_t* box;         // [blocks * 16] macro tiles: left | top << 8 | right << 16 | bottom << 24
    uint32_t* key;         // [chunks][kBlocksPerChunk * 16] visible ones only, packed
    uint32_t* id;          // likewise
    int32_t* chunk_count;  // [chunks]
};

// ---------------------------------------------------------------- sort and bin

// Stable radix sort of (key, id): two digits, each counted and scattered.
struct SortStage {
    int chunks, chunk_size;
    const int32_t* chunk_count;
    const uint32_t* key;
    const uint32_t* id;
    uint32_t* histogram;  // [2][workers][1 << kSortBits]
    uint64_t* halfway;    // key << 32 | id, sorted by the low digit
    const uint32_t* box;  // by id
    uint64_t* order;      // out [visible] box << 32 | id
    int visible;          // set by the engine from chunk_count
};

struct BinStage {
    int columns, rows;  // macro tiles
    int visible;
    const uint64_t* order;  // box << 32 | id
    uint32_t* histogram;    // [parts][histogram_stride]
    int histogram_stride;   // columns * rows, three spare counters, and a cache line between parts
    uint32_t* begin;        // out [columns * rows + 1]
    uint32_t* list;         // out, ids by macro tile, in order
};

// ---------------------------------------------------------------- rasterize and composite

// What a worker takes at a time: a macro tile that some splat touches, or a run of `count` in a row that none does.
struct TileJob {
    int32_t first;
    int16_t count;
    bool empty;
};

struct RasterizeStage {
    int width, height, columns, rows;
    const float* splats;
    const uint32_t* begin;
    const uint32_t* list;
    uint32_t torso_begin;  // ids from here on are of the torso's layer
    float inverse_softness;
    SeamEllipse seam;
    const TileJob* jobs;
    int job_count;
    std::atomic<int>* next_job;
    const uint8_t* background;  // [rows * 32][columns * 32][4] RGBX, padded to whole macro tiles; null: black
    const uint8_t* plate;       // the background in the output's format and size
    Format format;
    uint8_t* pixels;  // out, height * width * 3 or 4, or NV12
    float* alpha;     // out [height][width] or null
    float* depth;     // out [height][width] or null
};

}  // namespace being
