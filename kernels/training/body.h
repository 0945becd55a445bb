// Contract of the operation `body_frames`: what carries a torso, in B frames. It is a few hundred numbers, so that what
// takes time is to launch it: one launch each way, a thread per number. Formulas: kernels/common/body.h.
#pragma once

#include <cstddef>

#include "kernels/common/body.h"

struct CUstream_st;  // what cudaStream_t points to; named here so that this header needs no CUDA

namespace being::training {

constexpr int kBodyFloats = 3 * 12;       // per frame: maps of root, global joint and neck joint
constexpr int kTransformFloats = 5 * 12;  // per frame
constexpr int kResponseFloats = kMotions * 12;
constexpr int kBodySlopes = kTransformFloats + 3;  // per frame: of transforms and translation

template <class Real>
struct BodyStage {
    const Real* translation;     // [B, 3]
    const Real* axis_angles;     // [B, 5, 3]; the first two joints count
    const Real* transforms;      // [B, 5, 3, 4]; the first two count; null on the way back
    const Real* response;        // H, [9, 3, 4]; null on the way back
    const Real* response_range;  // [2, 9] lowest, highest
    const Real* per_motion;      // u, [9]
    const Real* about;           // S, [4, 4]
    int frames;
    Real* body;           // out [B, 3, 3, 4]
    const Real* d_body;   // [B, 3, 3, 4]; this and what follows on the way back
    Real* d_translation;  // out [B, 3]; null: not wanted
    Real* d_transforms;   // out [B, 5, 3, 4]; null: not wanted
    Real* d_response;     // out [9, 3, 4]; null: not wanted
};

// f_i u_i
template <class Real>
BEING_HD inline Real motion_weight(const BodyStage<Real>& s, int frame, int i) {
    const Real value = i < 3 ? s.translation[3 * size_t(frame) + i] : s.axis_angles[15 * size_t(frame) + size_t(i - 3)];
    return motion_feature(value, s.response_range[i], s.response_range[kMotions + i]) * s.per_motion[i];
}

// Number `index` of [B, 3, 3, 4].
template <class Real>
BEING_HD inline void write_body(const BodyStage<Real>& s, int index) {
    const int frame = index / kBodyFloats, within = index % kBodyFloats;
    const int row = within % 12 / 4, column = within % 4;
    Real value;
    if (within < 12) {
        Real mixed[4] = {};
        for (int i = 0; i < kMotions; ++i) {
            const Real weight = motion_weight(s, frame, i);
            for (int k = 0; k < 4; ++k) mixed[k] = fused(weight, s.response[12 * i + 4 * row + k], mixed[k]);
        }
        value = times_column(mixed, s.about, column) + Real(row == column ? 1.0f : 0.0f);
    } else {
        value = s.transforms[kTransformFloats * size_t(frame) + size_t(within - 12)];
    }
    if (column == 3) value += s.translation[3 * size_t(frame) + row];
    s.body[index] = value;
}

// Threads of the way back: numbers of the response, which gather from all frames in their order, then those of frames.
constexpr int body_slopes(int frames) {
    return kResponseFloats + kBodySlopes * frames;
}

template <class Real>
BEING_HD inline void write_body_gradient(const BodyStage<Real>& s, int index) {
    if (index < kResponseFloats) {
        if (!s.d_response) return;
        const int motion = index / 12, row = index % 12 / 4, k = index % 4;
        Real sum = Real(0.0f);
        for (int frame = 0; frame < s.frames; ++frame) {
            const Real* d_row = s.d_body + kBodyFloats * size_t(frame) + 4 * row;
            sum = fused(motion_weight(s, frame, motion), times_column_gradient(d_row, s.about, k), sum);
        }
        s.d_response[index] = sum;
        return;
    }
    const int frame = (index - kResponseFloats) / kBodySlopes, within = (index - kResponseFloats) % kBodySlopes;
    const Real* d_body = s.d_body + kBodyFloats * size_t(frame);
    if (within < kTransformFloats) {
        if (s.d_transforms)
            s.d_transforms[kTransformFloats * size_t(frame) + within] = within < 24 ? d_body[12 + within] : Real(0.0f);
    } else if (s.d_translation) {
        const int row = within - kTransformFloats;
        s.d_translation[3 * size_t(frame) + row] = d_body[4 * row + 3] + d_body[4 * row + 15] + d_body[4 * row + 27];
    }
}

// CPU, float and double.
template <class Real>
void run_body(const BodyStage<Real>& stage);
template <class Real>
void run_body_backward(const BodyStage<Real>& stage);

// CUDA.
void launch_body(const BodyStage<float>& stage, CUstream_st* stream);
void launch_body_backward(const BodyStage<float>& stage, CUstream_st* stream);

}  // namespace being::training
