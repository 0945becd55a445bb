// Contract of the operations `composite` and `over`: layers to a picture over a background, and back. The formulas are
// in kernels/common/composite.h and composite_gradient.h.
#pragma once

#include "kernels/training/background.h"

struct CUstream_st;  // what cudaStream_t points to; named here so that this header needs no CUDA

namespace being::training {

constexpr int kLayerSums = 5;  // red, green, blue, alpha, weighted depth

// B pictures of one size. What is written is fully written.
template <class Real>
struct CompositeStage {
    int pictures, height, width;
    Real inverse_softness;         // 1 / metres
    const Real* head;              // [B][H][W][5]
    const Real* torso;             // [B][H][W][5], or null: the head alone
    Background<Real> background;   // of B pictures
    Real* picture;                 // [B][H][W][4] out of forward: red, green, blue over the background, alpha
    const Real* picture_gradient;  // [B][H][W][4] in of backward
    Real* head_gradient;           // [B][H][W][5] out of backward
    Real* torso_gradient;          // [B][H][W][5] out of backward, or null as torso
};

// CPU, float and double.
template <class Real>
void run_composite(const CompositeStage<Real>& stage);
template <class Real>
void run_composite_backward(const CompositeStage<Real>& stage);

// CUDA.
void launch_composite(const CompositeStage<float>& stage, CUstream_st* stream);
void launch_composite_backward(const CompositeStage<float>& stage, CUstream_st* stream);

}  // namespace being::training
