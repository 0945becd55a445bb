// Contract of FusedAdam: one step of all tensors of an optimizer in one launch. The formula is in
// kernels/common/adam.h.
#pragma once

#include <cstdint>

#include "kernels/common/real.h"

struct CUstream_st;  // what cudaStream_t points to; named here so that this header needs no CUDA

namespace being::training {

constexpr int kAdamChunk = 4096;   // numbers that a block takes
constexpr int kAdamSegments = 64;  // tensors per launch; their addresses travel as a kernel argument, which has 4 KB

template <class Real>
struct AdamSegment {
    Real* parameter;
    const Real* gradient;
    Real *first, *second;    // moments
    int64_t size;            // numbers in each of the four
    int32_t rate;            // index into learning_rate and epsilon
    int32_t first_chunk;     // of this launch
    Real second_forgetting;  // 1 - beta2
};

template <class Real>
struct AdamStage {
    const float* learning_rate;  // on the device
    const Real* epsilon;         // likewise
    int64_t* steps;              // [1] that were taken before; on the device
    int32_t* ticket;             // [1] CUDA: 0 between launches; on the device
    const int32_t* skip;         // [1] on the device, or null; not 0: nothing changes
    Real first_forgetting;       // 1 - beta1
    int segments, chunks;
    bool last;    // launch of this step: afterwards `steps` is one more
    bool beside;  // CUDA: other work is to go on meanwhile, so it leaves room on every multiprocessor
    AdamSegment<Real> segment[kAdamSegments];
};

// The segment that a chunk belongs to: the last one that begins at or before it.
template <class Real>
BEING_HD inline int segment_of(const AdamStage<Real>& stage, int chunk) {
    int low = 0, high = stage.segments;
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        (stage.segment[middle].first_chunk <= chunk ? low : high) = middle;
    }
    return low;
}

// CPU, float and double.
template <class Real>
void run_adam(const AdamStage<Real>& stage);

// CUDA.
void launch_adam(const AdamStage<float>& stage, CUstream_st* stream);

}  // namespace being::training
