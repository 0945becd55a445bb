// The fused per-Gaussian offset network: one plain struct of pointers and sizes, a plan of how it is spread over a
// device, and the launches. FlashAvatar's form (Xiang et al., CVPR 2024): every Gaussian's own positional inputs beside
// one condition per frame, hidden layers with ReLU, a linear output layer.
//
// Memory orders, all in fragments of mma.m16n8k16 so that every load is one 16-byte vector per lane:
//   activations  [tile of 16 rows][width / 16][32 lanes][8]   the A operand of 16 rows and 16 inputs
//   weights      [width / 16 inputs][outputs / 16][32 lanes][8]   two B operands: 16 inputs, 2 x 8 outputs
// and, for Hopper's wgmma, which reads hidden weights from shared memory as 8 x 8 matrices:
//   hopper       [width / 8 inputs][outputs / 8][8 outputs][8 inputs]
// The offset_mlp_*_index functions say where an element lies.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace being::cuda {

constexpr int kOffsetMlpWidths[] = {64, 128, 256};  // that hidden layers are padded to
constexpr int kOffsetMlpLargestCondition = 256;     // goes up as a kernel argument
constexpr int kOffsetMlpOutputs = 16;               // that the output layer is padded to
constexpr int kOffsetMlpTile = 16;                  // rows, as tensor cores take them
// Steps of 16 inputs by which weights are fetched ahead; so many follow the last hidden layer, and are never used.
constexpr int kOffsetMlpAhead = 4;

struct OffsetMlpStage {
    int points, width, products;       // products: layers from hidden to hidden, one fewer than hidden layers
    int conditions, outputs;           // unpadded
    const uint16_t* positional;        // [ceil(points / 16)] tiles of activations: W1p p + b1, half floats
    const uint16_t* condition_weight;  // [conditions][width] W1c
    const uint16_t*
        hidden_weight;  // [products] layers of weights, in the plan's order, and kOffsetMlpAhead steps of anything
    const float* hidden_bias;       // [products + 1][width], the last of anything
    const uint16_t* output_weight;  // weights, 16 outputs
    const float* output_bias;       // [16]
    float* offsets;                 // out [points][outputs]
    float condition[kOffsetMlpLargestCondition];
};

// Which kernel, how many tiles of rows a block of it takes at a time, and how many blocks share them.
struct OffsetMlpPlan {
    bool hopper;  // the one with wgmma, which reads hidden weights in an order of its own
    int tiles, blocks, buffers;
    size_t shared_bytes;
};

struct OffsetMlpCacheStage {
    int points, width, inputs;
    const float* positional;  // [points][inputs]
    const float* weight;      // [inputs][width] W1p
    const float* bias;        // [width]
    uint16_t* cache;          // out, OffsetMlpStage::positional
};

// Index of an element of one tile of activations.
inline size_t offset_mlp_activation_index(int row, int column) {
    const int inside = column % 16;
    const int lane = row % 8 * 4 + inside % 8 / 2;
    return (size_t(column / 16) * 32 + lane) * 8 + (inside / 8 * 2 + row / 8) * 2 + inside % 2;
}

// Index of an element of one layer of weights.
inline size_t offset_mlp_weight_index(int input, int output, int outputs) {
    const int inside = input % 16;
    const int lane = output % 8 * 4 + inside % 8 / 2;
    return ((size_t(input / 16) * (outputs / 16) + output / 16) * 32 + lane) * 8 + output % 16 / 8 * 4 +
           inside / 8 * 2 + inside % 2;
}

// Likewise, in the order for Hopper.
inline size_t offset_mlp_hopper_index(int input, int output, int outputs) {
    return (size_t(input / 8) * (outputs / 8) + output / 8) * 64 + output % 8 * 8 + input % 8;
}

// The plan that is over soonest on the current device; sets what the kernel needs there. Not for the frame loop.
cudaError_t plan_offset_mlp(int width, int products, int points, OffsetMlpPlan* plan);

// The half of the first layer that never changes; once, when a network is loaded.
void launch_offset_mlp_cache(const OffsetMlpCacheStage& stage, cudaStream_t stream);

// All of a frame: condition to offsets, one kernel.
void launch_offset_mlp(const OffsetMlpStage& stage, const OffsetMlpPlan& plan, cudaStream_t stream);

}  // namespace being::cuda
