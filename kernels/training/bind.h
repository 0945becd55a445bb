// Contract of the operations `bind_head` and `bind_torso`: from stored Gaussians to Gaussians in world space, for B
// frames at once, and back. Both are one computation over two carriers; the formulas are in kernels/common/binding.h.
#pragma once

#include <cstdint>

#include "kernels/common/binding_gradient.h"
#include "kernels/training/records.h"

struct CUstream_st;  // what cudaStream_t points to; named here so that this header needs no CUDA

namespace being::training {

// Gaussians that a part of a sum over Gaussians covers; parts are added up in their order.
constexpr int kBindGroup = 32;
constexpr int bind_parts(int count) {
    return (count + kBindGroup - 1) / kBindGroup;
}

template <class Real>
struct GaussianTensors {
    const Real* position;       // [N][3]
    const Real* rotation;       // [N][4]
    const Real* log_scale;      // [N][3]
    const Real* opacity_logit;  // [N]
    const Real* colour;         // [N][3]

    BEING_HD RestGaussian<Real> at(int i) const {
        const Real* q = rotation + size_t(i) * 4;
        return {read3(position + size_t(i) * 3),
                {q[0], q[1], q[2], q[3]},
                read3(log_scale + size_t(i) * 3),
                opacity_logit[i],
                read3(colour + size_t(i) * 3)};
    }
};

// ---------------------------------------------------------------- what carries a head: triangles of a posed mesh

template <class Real>
struct TriangleCarrier {
    int vertex_count;
    const Real* vertices;     // [B][V][3]
    const int32_t* faces;     // [F][3]
    const Real* face_frames;  // [F][4]
    const int32_t* face;      // [N]
    const Real* barycentric;  // [N][3]

    // What is the same in every frame.
    struct Place {
        int corner0, corner1, corner2;
        Matrix2<Real> inverse_rest;
        Vector3<Real> barycentric;
    };
    BEING_HD Place place(int i) const {
        const int triangle = face[i];
        const int32_t* corner = faces + size_t(triangle) * 3;
        const Real* rest = face_frames + size_t(triangle) * 4;
        return {
            corner[0], corner[1], corner[2], {rest[0], rest[1], rest[2], rest[3]}, read3(barycentric + size_t(i) * 3)};
    }
    using Posed = SurfacePoint<Real>;
    BEING_HD Posed posed(const Place& at, int frame) const {
        const Real* v = vertices + size_t(frame) * size_t(vertex_count) * 3;
        return {read3(v + size_t(at.corner0) * 3), read3(v + size_t(at.corner1) * 3), read3(v + size_t(at.corner2) * 3),
                at.inverse_rest, at.barycentric};
    }
    static BEING_HD Frame3<Real> frame(const Posed& point) { return surface_frame(point); }

    // A Gaussian's part of the gradient of its three corners; gathered by vertex.
    static constexpr bool kSummed = false;
    static constexpr int kValues = 9;
    static BEING_HD Vector3<Real> gradient(const Posed& point, const Frame3<Real>& g, Real* values) {
        const SurfacePoint<Real> result = surface_frame_gradient(point, g);
        write3(result.corner0, values);
        write3(result.corner1, values + 3);
        write3(result.corner2, values + 6);
        return result.barycentric;
    }
    struct Gradient {
        Real* values;                  // scratch [B][N][9]
        const int32_t* vertex_begin;   // [V + 1]
        const int32_t* vertex_corner;  // [3 N] by vertex: 3 i + k, for a Gaussian i that has the vertex as corner k
        Real* vertices;                // out [B][V][3]; null: not needed, nor is anything above
        BEING_HD bool needed() const { return vertices; }
    };
};

// ---------------------------------------------------------------- what carries a torso: root and joints

template <class Real>
struct BodyCarrier {
    const Real* weights;  // [N][3]
    const Real* body;     // [B][3][3][4] root, global joint, neck joint

    using Place = Vector3<Real>;
    BEING_HD Place place(int i) const { return read3(weights + size_t(i) * 3); }

    struct Posed {
        BodyFrames<Real> body;
        Vector3<Real> weights;
    };
    BEING_HD Posed posed(const Place& place, int frame) const {
        const Real* rows = body + size_t(frame) * kValues;
        return {{frame_of_rows(rows), frame_of_rows(rows + 12), frame_of_rows(rows + 24)}, place};
    }
    static BEING_HD Frame3<Real> frame(const Posed& p) { return blended_frame(p.body, p.weights); }

    // A Gaussian's part of the gradient of what carries it; summed over Gaussians.
    static constexpr bool kSummed = true;
    static constexpr int kValues = 36;
    static BEING_HD Vector3<Real> gradient(const Posed& p, const Frame3<Real>& g, Real* values) {
        write_rows(scaled(g, p.weights.x), values);
        write_rows(scaled(g, p.weights.y), values + 12);
        write_rows(scaled(g, p.weights.z), values + 24);
        return blend_weights_gradient(p.body, g);
    }
    struct Gradient {
        Real* values;  // scratch [36][B][parts]
        Real* body;    // out [B][3][3][4]; null: not needed, nor is anything above
        BEING_HD bool needed() const { return body; }
    };
};

// ---------------------------------------------------------------- stages

template <class Real, template <class> class Carrier>
struct BindStage {
    int frames, count;
    GaussianTensors<Real> gaussians;
    const Real* offsets;  // [B][N][13] or null
    Carrier<Real> carrier;
    Real* bound;  // out [B][N][16]; not used on the way back
};

// Any of the results may be null: it is not needed.
template <class Real, template <class> class Carrier>
struct BindGradientStage {
    BindStage<Real, Carrier> forward;
    const Real* bound;  // [B][N][16] dL/dbound
    Real* position;     // out [N][3], and so on: sums over frames
    Real* rotation;
    Real* log_scale;
    Real* opacity_logit;
    Real* colour;
    Real* place;    // out [N][3]: barycentric coordinates or weights
    Real* offsets;  // out [B][N][13]
    typename Carrier<Real>::Gradient carrier;
};

template <class Real>
using BindHeadStage = BindStage<Real, TriangleCarrier>;
template <class Real>
using BindTorsoStage = BindStage<Real, BodyCarrier>;
template <class Real>
using BindHeadGradientStage = BindGradientStage<Real, TriangleCarrier>;
template <class Real>
using BindTorsoGradientStage = BindGradientStage<Real, BodyCarrier>;

// ---------------------------------------------------------------- one Gaussian in one frame

constexpr int kRestFloats = 17;  // position 3, rotation 4, log scale 3, opacity logit, colour 3, place 3

// What one Gaussian gets from one frame.
template <class Real, template <class> class Carrier>
struct GaussianGradient {
    Real rest[kRestFloats];
    GaussianOffsets<Real> offsets;
    Real values[Carrier<Real>::kValues];
};

template <template <class> class Carrier, class Real>
BEING_HD inline GaussianGradient<Real, Carrier> gaussian_gradient(const RestGaussian<Real>& rest,
                                                                  const GaussianOffsets<Real>& offsets,
                                                                  const typename Carrier<Real>::Posed& posed,
                                                                  const BoundGaussian<Real>& g) {
    const BindingGradient<Real> bound =
        bound_gaussian_gradient(Carrier<Real>::frame(posed), deformed(rest, offsets), g);
    const DeformationGradient<Real> deformation = deformation_gradient(rest, offsets, bound.gaussian);
    const RestGaussian<Real>& r = deformation.gaussian;
    GaussianGradient<Real, Carrier> result;
    result.offsets = deformation.offsets;
    write3(r.position, result.rest);
    result.rest[3] = r.rotation.w, result.rest[4] = r.rotation.x;
    result.rest[5] = r.rotation.y, result.rest[6] = r.rotation.z;
    write3(r.log_scale, result.rest + 7);
    result.rest[10] = r.opacity_logit;
    write3(r.colour, result.rest + 11);
    write3(Carrier<Real>::gradient(posed, bound.frame, result.values), result.rest + 14);
    return result;
}

// visit(tensor, first value, width) for each result per Gaussian that is needed.
template <class Stage, class Visit>
BEING_HD inline void for_each_rest(const Stage& stage, const Visit& visit) {
    if (stage.position) visit(stage.position, 0, 3);
    if (stage.rotation) visit(stage.rotation, 3, 4);
    if (stage.log_scale) visit(stage.log_scale, 7, 3);
    if (stage.opacity_logit) visit(stage.opacity_logit, 10, 1);
    if (stage.colour) visit(stage.colour, 11, 3);
    if (stage.place) visit(stage.place, 14, 3);
}

// CPU, float and double.
template <class Real>
void run_bind(const BindHeadStage<Real>& stage);
template <class Real>
void run_bind(const BindTorsoStage<Real>& stage);
template <class Real>
void run_bind_backward(const BindHeadGradientStage<Real>& stage);
template <class Real>
void run_bind_backward(const BindTorsoGradientStage<Real>& stage);

// CUDA.
void launch_bind(const BindHeadStage<float>& stage, CUstream_st* stream);
void launch_bind(const BindTorsoStage<float>& stage, CUstream_st* stream);
void launch_bind_backward(const BindHeadGradientStage<float>& stage, CUstream_st* stream);
void launch_bind_backward(const BindTorsoGradientStage<float>& stage, CUstream_st* stream);

}  // namespace being::training
