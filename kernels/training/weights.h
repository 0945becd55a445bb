// Contract of the operation `box_weights`: maps of weights that are more, or less, within boxes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/common/linear.h"

struct CUstream_st;  // what cudaStream_t points to; named here so that this header needs no CUDA

namespace being::training {

template <class Real>
struct WeightStage {
    const Real* rows;       // [B, columns] boxes from column `first` on: left, top, right, bottom, one after the other
    const uint8_t* values;  // [boxes] within each; of several at a place, the last
    int boxes, first, columns;
    uint8_t base;  // outside them
    int batch, height, width;
    uint8_t* weight;  // out [B, H, W]
};

// The weight of pixel x of the line y, by its centre. A box of NaN is nowhere.
template <class Real>
BEING_HD inline uint8_t box_weight(const WeightStage<Real>& s, int b, int y, int x) {
    const Real across = Real(x) + Real(0.5f), down = Real(y) + Real(0.5f);
    const Real* box = s.rows + size_t(b) * s.columns + s.first;
    uint8_t weight = s.base;
    for (int k = 0; k < s.boxes; ++k, box += 4)
        if (across >= box[0] && down >= box[1] && across < box[2] && down < box[3]) weight = s.values[k];
    return weight;
}

// CPU, float and double.
template <class Real>
void run_box_weights(const WeightStage<Real>& stage);

// CUDA.
void launch_box_weights(const WeightStage<float>& stage, CUstream_st* stream);

}  // namespace being::training
