// An avatar packed for the stages: reordered so that neighbours lie together, cut into blocks of 16, identity and
// whatever else no frame changes computed in advance. Immutable once made.
#pragma once

#include <vector>

#include "csrc/engine/avatar_view.h"
#include "csrc/engine/buffer.h"

namespace being {

// The mesh as `skin` wants it; only the vertices that some triangle needs.
struct SkinMesh {
    int vertices = 0, blocks = 0, columns = 0;
    Buffer<float> rest, weights;
    Buffer<Half> basis;
};

struct FaceMesh {
    int blocks = 0;
    Buffer<int32_t> corner;
    Buffer<float> inverse_rest;
};

struct PackedNetwork {
    int hidden0 = 0, hidden1 = 0, hidden2 = 0, rank = 0, anchors = 0, latent_stride = 0;
    Buffer<float> trunk_weight_0, trunk_bias_0, trunk_weight_1, trunk_bias_1;
    Buffer<float> head_weight_0, anchor_bias, head_weight_1, head_bias_1;
    Buffer<Half> basis;
    Buffer<float> basis_bound, anchor_weight;
    Buffer<int32_t> anchor_begin, anchor_index, basis_begin;
    Buffer<uint32_t> basis_channels;
};

// Colour match across the seam. Offsets are linear in the latents, so the head's mean colour per sector is too:
// mean[sector] = rest[sector] + sum over anchors and ranks of coefficient * latent.
struct ColourMatch {
    int matched_blocks = 0;
    bool active[config::kSectors] = {};  // both bands have members
    float rest_difference[config::kSectors][3] = {};
    std::vector<int32_t> anchor;     // that the head's band mixes
    std::vector<float> coefficient;  // [anchor][rank][kSectors][3]
    Buffer<float> weight;
};

struct Scene {
    std::vector<float> joint_rest, joint_expression;
    int expressions = 0;
    SkinMesh mesh;
    FaceMesh faces;
    int offset_blocks = 0, head_blocks = 0, blocks = 0;
    Buffer<float> gaussians, torso_weights;
    Buffer<int32_t> face;         // of each head Gaussian, into faces
    std::vector<int32_t> source;  // [blocks * 16] index in the avatar's head or torso layer; -1: padding
    PackedNetwork network;
    ColourMatch match;
    float head_reach = 0;           // metres from any head Gaussian to its triangle's first corner, at rest, with room
    Vector3<float> torso_centre{};  // and of a ball around the torso at rest
    float torso_radius = 0;
    BodyResponse response{};
    Vector3<float> seam_centre{}, seam_axis{};
    float seam_radius = 0, seam_half_height = 0, depth_softness = 0;
    bool antialiased = false;

    size_t bytes() const;
};

Scene pack_scene(const AvatarView& avatar);

// For skinning alone: all vertices, bases as floats. basis: of vertex v, axis a, column c.
template <class Storage, class Basis>
void pack_basis(Storage* out, int vertices, int columns, Basis basis) {
    for (int v = 0; v < vertices; ++v)
        for (int c = 0; c < columns; ++c)
            for (int a = 0; a < 3; ++a)
                out[((size_t(v / config::kLanes) * columns + c) * 3 + a) * config::kLanes + v % config::kLanes] =
                    basis(v, a, c);
}

}  // namespace being
