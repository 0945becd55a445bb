// Operations `bind_head` and `bind_torso` on the CPU: threads share the Gaussians, each of which goes through all
// frames.
#include "kernels/training/bind.h"

#include <vector>

#include "csrc/training/parallel.h"

namespace being::training {
namespace {

template <class Real>
GaussianOffsets<Real> offsets_at(const Real* offsets, size_t row) {
    return offsets ? read_offsets(offsets + row * kOffsetFloats) : GaussianOffsets<Real>{};
}

template <class Real, template <class> class Carrier>
void bind(const BindStage<Real, Carrier>& stage) {
    parallel_for(stage.count, 4 * kBindGroup, [&](int64_t index) {
        const int i = int(index);
        const RestGaussian<Real> rest = stage.gaussians.at(i);
        const auto place = stage.carrier.place(i);
        for (int frame = 0; frame < stage.frames; ++frame) {
            const size_t row = size_t(frame) * size_t(stage.count) + size_t(i);
            const Frame3<Real> carrying = Carrier<Real>::frame(stage.carrier.posed(place, frame));
            write_bound(bound_gaussian(carrying, deformed(rest, offsets_at(stage.offsets, row))),
                        stage.bound + row * kBoundFloats);
        }
    });
}

// One Gaussian's way back; visit(frame, values) gets what each frame's carrier gets of it.
template <class Real, template <class> class Carrier, class Visit>
void bind_backward(const BindGradientStage<Real, Carrier>& stage, int i, const Visit& visit) {
    const BindStage<Real, Carrier>& forward = stage.forward;
    const RestGaussian<Real> rest = forward.gaussians.at(i);
    const auto place = forward.carrier.place(i);
    Real sums[kRestFloats]{};
    for (int frame = 0; frame < forward.frames; ++frame) {
        const size_t row = size_t(frame) * size_t(forward.count) + size_t(i);
        const GaussianGradient<Real, Carrier> gradient =
            gaussian_gradient<Carrier>(rest, offsets_at(forward.offsets, row), forward.carrier.posed(place, frame),
                                       read_bound(stage.bound + row * kBoundFloats));
        for (int k = 0; k < kRestFloats; ++k) sums[k] += gradient.rest[k];
        if (stage.offsets) write_offsets(gradient.offsets, stage.offsets + row * kOffsetFloats);
        visit(frame, gradient.values);
    }
    for_each_rest(stage, [&](Real* tensor, int first, int width) {
        for (int k = 0; k < width; ++k) tensor[size_t(i) * size_t(width) + size_t(k)] = sums[first + k];
    });
}

// Every vertex gathers what the Gaussians on its triangles left for it.
template <class Real>
void gather_vertices(const BindHeadGradientStage<Real>& stage) {
    const typename TriangleCarrier<Real>::Gradient& carrier = stage.carrier;
    const int vertices = stage.forward.carrier.vertex_count;
    parallel_for(int64_t(stage.forward.frames) * vertices, 256, [&](int64_t index) {
        const int frame = int(index / vertices), vertex = int(index % vertices);
        const Real* values =
            carrier.values + size_t(frame) * size_t(stage.forward.count) * TriangleCarrier<Real>::kValues;
        Vector3<Real> sum{};
        for (int k = carrier.vertex_begin[vertex]; k < carrier.vertex_begin[vertex + 1]; ++k)
            sum = sum + read3(values + size_t(carrier.vertex_corner[k]) * 3);
        write3(sum, carrier.vertices + size_t(index) * 3);
    });
}

}  // namespace

template <class Real>
void run_bind(const BindHeadStage<Real>& stage) {
    bind(stage);
}

template <class Real>
void run_bind(const BindTorsoStage<Real>& stage) {
    bind(stage);
}

template <class Real>
void run_bind_backward(const BindHeadGradientStage<Real>& stage) {
    constexpr int kValues = TriangleCarrier<Real>::kValues;
    parallel_for(stage.forward.count, 4 * kBindGroup, [&](int64_t i) {
        bind_backward(stage, int(i), [&](int frame, const Real* values) {
            if (!stage.carrier.needed()) return;
            Real* row = stage.carrier.values + (size_t(frame) * size_t(stage.forward.count) + size_t(i)) * kValues;
            for (int k = 0; k < kValues; ++k) row[k] = values[k];
        });
    });
    if (stage.carrier.needed()) gather_vertices(stage);
}

template <class Real>
void run_bind_backward(const BindTorsoGradientStage<Real>& stage) {
    constexpr int kValues = BodyCarrier<Real>::kValues;
    const int frames = stage.forward.frames, count = stage.forward.count, parts = bind_parts(count);
    const typename BodyCarrier<Real>::Gradient& carrier = stage.carrier;
    parallel_for(parts, 4, [&](int64_t part) {
        std::vector<Real> sums(size_t(frames) * kValues);
        for (int i = int(part) * kBindGroup; i < std::min(count, int(part + 1) * kBindGroup); ++i)
            bind_backward(stage, i, [&](int frame, const Real* values) {
                for (int k = 0; k < kValues; ++k) sums[size_t(frame * kValues + k)] += values[k];
            });
        if (!carrier.needed()) return;
        for (int k = 0; k < kValues; ++k)
            for (int frame = 0; frame < frames; ++frame)
                carrier.values[size_t(k * frames + frame) * size_t(parts) + size_t(part)] =
                    sums[size_t(frame * kValues + k)];
    });
    if (!carrier.needed()) return;
    for (int frame = 0; frame < frames; ++frame) {
        for (int k = 0; k < kValues; ++k) {
            const Real* part = carrier.values + size_t(k * frames + frame) * size_t(parts);
            Real sum = 0;
            for (int p = 0; p < parts; ++p) sum += part[p];
            carrier.body[frame * kValues + k] = sum;
        }
    }
}

template void run_bind(const BindHeadStage<float>&);
template void run_bind(const BindHeadStage<double>&);
template void run_bind(const BindTorsoStage<float>&);
template void run_bind(const BindTorsoStage<double>&);
template void run_bind_backward(const BindHeadGradientStage<float>&);
template void run_bind_backward(const BindHeadGradientStage<double>&);
template void run_bind_backward(const BindTorsoGradientStage<float>&);
template void run_bind_backward(const BindTorsoGradientStage<double>&);

}  // namespace being::training
