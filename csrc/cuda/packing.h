// An avatar in device memory, as the CUDA stages want it: the packed scene of csrc/engine/scene.h, in groups of 32 and
// uploaded. Immutable once made; shared by all sessions of an engine.
#pragma once

#include <vector>

#include "csrc/cuda/runtime.h"
#include "csrc/engine/avatar_view.h"
#include "kernels/cuda_stages.h"

namespace being::cuda {

struct DeviceScene {
    int vertices = 0, offset_groups = 0, head_groups = 0, matched_groups = 0, groups = 0;
    int hidden0 = 0, hidden1 = 0, hidden2 = 0, hidden2_unpadded = 0, anchors = 0, rank = 0;
    int head_count = 0, torso_count = 0;
    Vector3<float> seam_centre{}, seam_axis{};
    float seam_radius = 0, seam_half_height = 0, depth_softness = 0;
    bool antialiased = false;
    BodyResponse response{};
    std::vector<int32_t> source;  // [groups * 32] index in the avatar's head or torso layer; -1: padding

    DeviceArray<float> joint_rest, joint_expression;
    DeviceArray<float> trunk_weight_0, trunk_bias_0, trunk_weight_1, trunk_bias_1, head_weight_0;
    DeviceArray<uint4> skin_basis;
    DeviceArray<float4> rest;
    DeviceArray<float> skin_weights;
    DeviceArray<float> anchor_bias, head_weight_1, head_bias_1;
    DeviceArray<float> gaussians;
    DeviceArray<int32_t> face;
    DeviceArray<Face> faces;
    DeviceArray<uint2> basis;
    DeviceArray<uint32_t> basis_begin, basis_channels;
    DeviceArray<float> basis_bound;
    DeviceArray<uint2> anchor_index;
    DeviceArray<float4> anchor_weight;
    DeviceArray<float> torso_weights;
    DeviceArray<uint8_t> match_used;
    DeviceArray<float> match_coefficient, match_rest, match_weight;

    size_t bytes() const;
    // What a frame reads of it at most, by stage: for reports.
    size_t skin_bytes() const;
    size_t deform_bytes() const;
};

// Throws std::invalid_argument for what only this backend limits: hidden layers of more than 256 neurons.
DeviceScene upload_scene(const AvatarView& avatar);

}  // namespace being::cuda
