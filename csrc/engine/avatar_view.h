// An avatar as the caller has it: plain arrays, row-major, borrowed for the duration of a call. Checked by whoever
// fills it.
#pragma once

#include <cstdint>

#include "kernels/launch.h"

namespace being {

struct RigView {
    int vertices, faces, expressions;
    const float* rest;              // [V][3]
    const int32_t* face;            // [F][3]
    const Half* expression_basis;   // [V][3][expressions]
    const Half* eyelid_basis;       // [V][3][2]
    const Half* pose_basis;         // [V][3][36]
    const float* skinning_weights;  // [V][5]
    const float* joint_rest;        // [5][3]
    const float* joint_expression;  // [5][3][expressions]
    const float* face_frames;       // [F][2][2]
};

struct GaussiansView {
    int count;
    const float* position;       // [N][3]
    const float* rotation;       // [N][4]
    const float* log_scale;      // [N][3]
    const float* opacity_logit;  // [N]
    const float* colour;         // [N][3]
    const uint8_t* facing_fade;  // [N]
};

struct NetworkView {
    int count, rank, hidden0, hidden1, hidden2, anchors, code;  // count 0: no network
    const float *trunk_weight_0, *trunk_bias_0, *trunk_weight_1, *trunk_bias_1;
    const float *anchor_code, *head_weight_0, *head_bias_0, *head_weight_1, *head_bias_1;
    const uint16_t* anchor_index;  // [count][4]
    const float* anchor_weight;    // [count][4]
    const Half* basis;             // [count][13][rank]
};

struct SeamView {
    const float *centre, *axis;  // [3]
    float radius, half_height, depth_softness;
    int head_band_count, torso_band_count;
    const int32_t *head_band, *torso_band;
    const float* torso_band_weight;
};

struct AvatarView {
    RigView rig;
    GaussiansView head;
    const int32_t* head_face;       // [N]
    const float* head_barycentric;  // [N][3]
    GaussiansView torso;
    const float* torso_weights;  // [N][3]
    BodyResponse response;
    NetworkView network;
    SeamView seam;
    bool antialiased;
};

}  // namespace being
