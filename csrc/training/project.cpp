// Operation `project` on the CPU: threads share the Gaussians of all frames.
#include "kernels/training/project.h"

#include "csrc/training/parallel.h"

namespace being::training {
namespace {

// Adds up the camera's parts. A pose that all frames share has parts of all frames, one after the other.
template <class Real>
void sum_camera(const ProjectGradientStage<Real>& stage) {
    const int frames = stage.forward.frames, parts = project_parts(stage.forward.count);
    const auto sum = [&](int value, int frame, int count) {
        const Real* part = stage.values + (size_t(value) * size_t(frames) + size_t(frame)) * size_t(parts);
        Real total = 0;
        for (int p = 0; p < count; ++p) total += part[p];
        return total;
    };
    for (int value = 0; value < 12; ++value) {
        if (stage.forward.one_pose) {
            stage.world_to_camera[value] = sum(value, 0, frames * parts);
            continue;
        }
        for (int frame = 0; frame < frames; ++frame)
            stage.world_to_camera[frame * 12 + value] = sum(value, frame, parts);
    }
    for (int frame = 0; frame < frames; ++frame)
        for (int value = 0; value < kPinholeFloats; ++value)
            stage.intrinsics[frame * kPinholeFloats + value] = value < 4 ? sum(12 + value, frame, parts) : Real(0);
}

}  // namespace

template <class Real>
void run_project(const ProjectStage<Real>& stage) {
    parallel_for(int64_t(stage.frames) * stage.count, kProjectGroup, [&](int64_t row) {
        const int frame = int(row / stage.count), i = int(row % stage.count);
        write_splat(project(read_bound(stage.bound + size_t(row) * kBoundFloats), stage.facing[i] != 0,
                            stage.antialiased, stage.camera(frame)),
                    stage.splats + size_t(row) * kSplatFloats);
    });
}

template <class Real>
void run_project_backward(const ProjectGradientStage<Real>& stage) {
    const ProjectStage<Real>& forward = stage.forward;
    const int parts = project_parts(forward.count);
    parallel_for(int64_t(forward.frames) * parts, 1, [&](int64_t index) {
        const int frame = int(index / parts), part = int(index % parts);
        const Pinhole<Real> camera = forward.camera(frame);
        Real sums[kCameraValues]{};
        for (int i = part * kProjectGroup; i < std::min(forward.count, (part + 1) * kProjectGroup); ++i) {
            const size_t row = size_t(frame) * size_t(forward.count) + size_t(i);
            const ProjectionGradient<Real> gradient =
                project_gradient(read_bound(forward.bound + row * kBoundFloats), forward.facing[i] != 0,
                                 forward.antialiased, camera, read_splat(stage.splats + row * kSplatFloats));
            if (stage.bound) write_bound(gradient.gaussian, stage.bound + row * kBoundFloats);
            Real values[kCameraValues];
            write_camera(gradient.camera, values);
            for (int k = 0; k < kCameraValues; ++k) sums[k] += values[k];
        }
        if (!stage.camera_needed()) return;
        for (int k = 0; k < kCameraValues; ++k)
            stage.values[(size_t(k) * size_t(forward.frames) + size_t(frame)) * size_t(parts) + size_t(part)] = sums[k];
    });
    if (stage.camera_needed()) sum_camera(stage);
}

template void run_project(const ProjectStage<float>&);
template void run_project(const ProjectStage<double>&);
template void run_project_backward(const ProjectGradientStage<float>&);
template void run_project_backward(const ProjectGradientStage<double>&);

}  // namespace being::training
