// Contract of the operation `project`: Gaussians in world space to splats on the picture, for B frames at once, and
// back. The formulas are in kernels/common/splat.h and splat_gradient.h.
#pragma once

#include <cstdint>

#include "kernels/common/splat_gradient.h"
#include "kernels/training/rasterize.h"
#include "kernels/training/records.h"

namespace being::training {

// Gaussians that a part of a sum over Gaussians covers; parts are added up in their order.
constexpr int kProjectGroup = 256;
constexpr int project_parts(int count) {
    return (count + kProjectGroup - 1) / kProjectGroup;
}

template <class Real>
struct ProjectStage {
    int frames, count;
    bool antialiased;
    bool one_pose;                // for all frames
    const Real* bound;            // [B][N][16]
    const uint8_t* facing;        // [N]
    const Real* world_to_camera;  // [B][3][4], or [3][4]
    const Real* intrinsics;       // [B][6]
    Real* splats;                 // out [B][N][12]; not used on the way back

    BEING_HD Pinhole<Real> camera(int frame) const {
        return read_pinhole(world_to_camera + (one_pose ? 0 : size_t(frame) * 12),
                            intrinsics + size_t(frame) * kPinholeFloats);
    }
};

constexpr int kCameraValues = 16;  // that have a gradient: the pose and fx, fy, cx, cy

template <class Real>
struct ProjectGradientStage {
    ProjectStage<Real> forward;
    const Real* splats;     // [B][N][12] dL/dsplats
    Real* bound;            // out [B][N][16], or null: not needed
    Real* values;           // scratch [16][B][parts]
    Real* world_to_camera;  // out, as in forward
    Real* intrinsics;       // out [B][6]; both or, null, neither

    BEING_HD bool camera_needed() const { return world_to_camera; }
};

template <class Real>
BEING_HD inline void write_camera(const Pinhole<Real>& camera, Real* values) {
    write_rows(camera.pose, values);
    values[12] = camera.fx, values[13] = camera.fy, values[14] = camera.cx, values[15] = camera.cy;
}

// CPU, float and double.
template <class Real>
void run_project(const ProjectStage<Real>& stage);
template <class Real>
void run_project_backward(const ProjectGradientStage<Real>& stage);

// CUDA.
void launch_project(const ProjectStage<float>& stage, CUstream_st* stream);
void launch_project_backward(const ProjectGradientStage<float>& stage, CUstream_st* stream);

}  // namespace being::training
