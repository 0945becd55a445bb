// The contract of a frame on a CUDA device: one plain struct of pointers and sizes per stage, and one launch_* that
// takes one of them per session, so that any number of sessions is drawn by one sequence of launches. The order is in
// csrc/cuda/engine.cpp. All pointers are device pointers unless it says otherwise.
//
// Gaussians lie in groups of 32, one per lane of a warp; a group holds one kind only: head with offset bases, head
// without, torso that is matched to the head's colour, torso that is not. A Gaussian's id is group * 32 + lane.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/common/composite.h"
#include "kernels/common/format.h"
#include "kernels/common/projection.h"
#include "kernels/config.h"

namespace being::cuda {

using Half = uint16_t;  // IEEE half float
using Frame3f = Frame3<float>;

constexpr int kWarp = 32;
constexpr int kExpressions = 100;
constexpr int kSkinColumns = kExpressions + 2 + config::kPoseFeatures;  // expression, eyelids, pose feature
constexpr int kSkinLanes = 8;                                           // threads that share a vertex
constexpr int kSkinColumnsPerLane = 18;                                 // 8 * 18 = 144 >= 138
constexpr int kSkinPadded = kSkinLanes * kSkinColumnsPerLane;
constexpr int kSkinChunks = 7;  // of 8 halves: 18 columns * 3 axes = 54, padded to 56

// The rasterizer's blocks take so many lists across and down, a warp each: neighbours read the same splats. What took
// longest in the last frame is drawn first.
constexpr int kBlockColumns = 2, kBlockRows = 2, kListsPerBlock = kBlockColumns * kBlockRows;
constexpr int kCostClasses = 64, kCostPerClass = 32;

// What the lists of a block took in the last frame: splats blended, and something for the rest; 0: background alone.
struct alignas(kListsPerBlock < 4 ? 4 * kListsPerBlock : 16) BlockCost {
    uint32_t list[kListsPerBlock];
};

// What the host gives a frame of a session; lies in pinned memory that the device reads.
struct alignas(16) FrameInput {
    float expression[kExpressions], rotation[3], neck[3], jaw[3], eyes[6], translation[3], eyelids[2];
    Frame3f world_to_camera, root;  // root: of the body, rest pose to world
    Intrinsics camera;
    uint8_t* pixels;
    float* alpha;  // [height][width] or null
    float* depth;  // likewise
};

// What the parameters come to before any vertex or Gaussian is touched; written by `pose`.
struct FrameState {
    Frame3f joint[config::kJoints];  // rest pose to camera space
    Frame3f torso[3];                // root, global joint, neck joint: rest pose to camera space
    Intrinsics camera;
    SeamEllipse seam;
    float coefficient[kSkinPadded];
    float shared[256];            // hidden layer of the offset network, the part that all anchors share
    uint32_t largest_latent[64];  // per rank: bits of the largest |latent| of any anchor
    uint32_t segments_needed;     // longest list that did not fit; 0: all fitted
    // Blocks of the rasterizer by what they cost in the last frame: how many there are, and have been placed.
    uint32_t class_count[kCostClasses], class_placed[kCostClasses];
    uint32_t spilled;  // keys in RasterizeStage::spill, or that there was no room for
    uint8_t* pixels;
    float *alpha, *depth;
};

// What a frame reports to the host; lies in pinned memory.
struct FrameStatus {
    uint32_t frame;            // which frame this is about: the count of frames of this engine, from 1
    uint32_t segments_needed;  // not 0: lists overflowed and nothing was drawn
};

// The stages of all sessions, on the host and once more in device memory.
template <class Stage>
struct StageArray {
    const Stage* host;
    const Stage* device;
    int count;
};

constexpr int kMatchValues = config::kSectors * 3;  // what each sector of the colour match adds

constexpr int kInputSlots = 8;  // frames that may be on their way at once

// ---------------------------------------------------------------- pose

struct PoseStage {
    const float* joint_rest;        // [5][3]
    const float* joint_expression;  // [5][3][100]
    Vector3<float> seam_centre, seam_axis;
    float seam_radius, seam_half_height;
    // Offset network: what depends on the frame alone. hidden0 0: no network. Padded to multiples of 16.
    int hidden0, hidden1, hidden2;
    const float *trunk_weight_0, *trunk_bias_0;  // [138][hidden0]
    const float *trunk_weight_1, *trunk_bias_1;  // [hidden0][hidden1]
    const float* head_weight_0;                  // [hidden1][hidden2]
    const FrameInput* input;                     // [kInputSlots], pinned
    uint32_t* frame;                             // count of frames before this one
    FrameState* state;                           // out
};

void launch_pose(const StageArray<PoseStage>& stages, cudaStream_t stream);

// ---------------------------------------------------------------- skin, and the anchors of the offset network

struct SkinStage {
    int vertices;
    const uint4* basis;    // [vertices / 4][kSkinChunks][32] of 8 halves, see skin.cu
    const float4* rest;    // [vertices] x y z and nothing
    const float* weights;  // [vertices][8], 5 used
    // anchors
    int anchors, hidden, rank;  // hidden is unpadded
    const float* anchor_bias;   // [anchors / 16][hidden][16]
    const float* head_weight;   // [hidden][rank]
    const float* head_bias;     // [rank]
    FrameState* state;
    // colour match: what the anchors add to it, sixteen at a time
    const float* match_coefficient;  // [anchors][rank][kMatchValues], zeros for anchors that the band lacks
    const uint8_t* match_used;       // [anchors / 16] whether any of these is not zero
    float4* posed;                   // out [vertices] camera space
    float* latent;                   // out [anchors][rank]
    float* match;                    // out [anchors / 16][kMatchValues]
    uint32_t* list_count;            // emptied here for `bin`
    int lists;
    const BlockCost* cost;  // [blocks], see DeformStage
    int blocks;
};

// most_*: over the sessions.
void launch_skin(const StageArray<SkinStage>& stages, int most_vertices, cudaStream_t stream);

// ---------------------------------------------------------------- deform, project and bin

struct Face {
    int32_t corner[3];
    float inverse_rest[4];  // Rig.face_frames
    int32_t unused;
};

enum GroupRow { kPosition = 0, kRotation = 3, kUnfading = 7, kScale = 8, kOpacity = 11, kColour = 12, kGroupRows = 15 };

// A splat as the rasterizer reads it: 32 bytes.
struct Splat {
    float x, y;          // px
    float a, b;          // exponent in base 2, see Conic
    float c;             //
    float log_opacity;   // base 2
    uint32_t red_green;  // half floats
    uint32_t blue;
};

struct DeformStage {
    int offset_groups, head_groups, matched_groups, groups;  // ends of the four kinds, in order
    const float* gaussians;                                  // [groups][kGroupRows][32]
    const int32_t* face;                                     // [head_groups * 32]
    const Face* faces;
    const float4* posed;
    // offset network; rank is padded, see padded_rank
    int rank;
    const uint2* basis;              // stored channels, group by group: [..][rank / 4][32] of 4 halves
    const uint32_t* basis_begin;     // [offset_groups] first stored channel
    const uint32_t* basis_channels;  // [offset_groups] bit c: channel c is stored
    const float* basis_bound;        // [offset_groups][2][rank] of position and rotation, largest over lanes
    const uint2* anchor_index;       // [offset_groups * 32] four of 16 bits
    const float4* anchor_weight;     // [offset_groups * 32]
    const float* latent;             // [anchors][rank]
    // torso
    const float* torso_weights;  // [groups - head_groups][3][32]
    int match_parts;             // anchors / 16
    const float* match;          // [match_parts][kMatchValues], see SkinStage
    const float* match_rest;     // [kMatchValues]
    const float* match_weight;   // [matched groups][kSectors][32]
    bool antialiased;
    int width, height, columns, rows;  // picture; lists across and down
    FrameState* state;
    // out
    Splat* splats;         // [groups * 32], written where visible
    float* depth;          // [groups * 32], metres; negative where not visible
    uint32_t* list_count;  // [rows * columns] groups that reach these 8x8 pixels of the picture
    uint2* list;           // [rows * columns][list_capacity] group, mask of its lanes
    int list_capacity;
    const BlockCost* cost;  // [blocks] of the last frame, of each of a block's lists
    int blocks;             // of the rasterizer
    uint32_t* order;        // out [blocks]
};

void launch_deform_project(const StageArray<DeformStage>& stages, int most_groups, int rank, cudaStream_t stream);

// The rank that the bases and latents of a network of this rank are padded to, with zeros.
int padded_rank(int rank);

// ---------------------------------------------------------------- sort, rasterize and composite

struct RasterizeStage {
    int width, height, columns, rows;
    uint32_t torso_group;  // groups from here on are of the torso's layer
    const Splat* splats;
    const float* depth;
    const uint32_t* list_count;
    const uint2* list;
    int list_capacity;
    float inverse_softness;
    const uint32_t* background;  // [height][width] RGBX, or null: black
    const uint8_t* plate[3];     // the same in every format, as it is written; of RGBA, zeros
    const uint32_t* order;       // see DeformStage
    BlockCost* cost;             // out [blocks]
    uint64_t* spill;             // room for keys of lists that are longer than what a warp sorts at once
    uint32_t spill_capacity;
    FrameState* state;
    const uint32_t* frame;
    FrameStatus* status;  // [kInputSlots], pinned
};

void launch_rasterize(const StageArray<RasterizeStage>& stages, int blocks, Format format, cudaStream_t stream);

}  // namespace being::cuda
