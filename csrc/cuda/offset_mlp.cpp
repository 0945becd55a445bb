#include "csrc/cuda/offset_mlp.h"

#include <cuda_fp16.h>

#include <algorithm>
#include <cstring>

namespace being::cuda {
namespace {

uint16_t half_bits(float value) {
    const __half half = __float2half_rn(value);
    uint16_t bits;
    std::memcpy(&bits, &half, sizeof bits);
    return bits;
}

int padded_width(int width) {
    return *std::lower_bound(std::begin(kOffsetMlpWidths), std::end(kOffsetMlpWidths), width);
}

// One layer into `packed`, which is zero, in the order of `index`.
void pack_layer(const HostLayer& layer, int padded_outputs, size_t (*index)(int, int, int), uint16_t* packed) {
    for (int output = 0; output < layer.outputs; ++output)
        for (int input = 0; input < layer.inputs; ++input)
            packed[index(input, output, padded_outputs)] =
                half_bits(layer.weight[size_t(output) * layer.inputs + input]);
}

}  // namespace

OffsetMlp::OffsetMlp(int device, const std::vector<HostLayer>& layers, const float* positional, int points,
                     int positional_inputs)
    : device_(usable_device(device).index) {
    const OnDevice current(device_);
    const HostLayer &first = layers.front(), &last = layers.back();
    const int hidden = first.outputs, width = padded_width(hidden), products = int(layers.size()) - 2;
    stage_.points = points;
    stage_.width = width;
    stage_.products = products;
    stage_.conditions = first.inputs - positional_inputs;
    stage_.outputs = last.outputs;
    check(plan_offset_mlp(width, products, points, &plan_), "planning the offset network's kernel");

    // First layer: the positional half is evaluated here and now, the condition's half goes along.
    std::vector<float> positional_weight(size_t(positional_inputs) * width), first_bias(width);
    std::vector<uint16_t> condition_weight(size_t(stage_.conditions) * width);
    for (int output = 0; output < hidden; ++output) {
        const float* row = first.weight + size_t(output) * first.inputs;
        for (int i = 0; i < positional_inputs; ++i) positional_weight[size_t(i) * width + output] = row[i];
        for (int i = 0; i < stage_.conditions; ++i)
            condition_weight[size_t(i) * width + output] = half_bits(row[positional_inputs + i]);
    }
    std::copy_n(first.bias, hidden, first_bias.begin());

    const size_t layer_size = size_t(width) * width;
    std::vector<uint16_t> hidden_weight(layer_size * products + size_t(kOffsetMlpAhead) * 16 * width);
    std::vector<float> hidden_bias(size_t(products + 1) * width);
    for (int i = 0; i < products; ++i) {
        pack_layer(layers[size_t(i) + 1], width, plan_.hopper ? offset_mlp_hopper_index : offset_mlp_weight_index,
                   hidden_weight.data() + layer_size * i);
        std::copy_n(layers[size_t(i) + 1].bias, hidden, hidden_bias.begin() + size_t(i) * width);
    }
    std::vector<uint16_t> output_weight(size_t(width) * kOffsetMlpOutputs);
    pack_layer(last, kOffsetMlpOutputs, offset_mlp_weight_index, output_weight.data());
    std::vector<float> output_bias(kOffsetMlpOutputs);
    std::copy_n(last.bias, last.outputs, output_bias.begin());

    condition_weight_.upload(condition_weight);
    hidden_weight_.upload(hidden_weight);
    hidden_bias_.upload(hidden_bias);
    output_weight_.upload(output_weight);
    output_bias_.upload(output_bias);
    offsets_.resize(size_t(points) * last.outputs);
    const int tiles = (points + kOffsetMlpTile - 1) / kOffsetMlpTile;
    positional_.resize(size_t(tiles) * kOffsetMlpTile * width);

    DeviceArray<float> inputs, weight, bias;
    inputs.upload(positional, size_t(points) * positional_inputs);
    weight.upload(positional_weight);
    bias.upload(first_bias);
    launch_offset_mlp_cache(
        {points, width, positional_inputs, inputs.data(), weight.data(), bias.data(), positional_.data()}, nullptr);
    check(cudaGetLastError(), "launching the offset network's cache");
    check(cudaStreamSynchronize(nullptr), "filling the offset network's cache");

    stage_.positional = positional_.data();
    stage_.condition_weight = condition_weight_.data();
    stage_.hidden_weight = hidden_weight_.data();
    stage_.hidden_bias = hidden_bias_.data();
    stage_.output_weight = output_weight_.data();
    stage_.output_bias = output_bias_.data();
    stage_.offsets = offsets_.data();
}

void OffsetMlp::evaluate(const float* host_condition, cudaStream_t stream) {
    const OnDevice current(device_);
    std::copy_n(host_condition, stage_.conditions, stage_.condition);
    launch_offset_mlp(stage_, plan_, stream);
    check(cudaGetLastError(), "launching the offset network");
}

void OffsetMlp::download(float* host_offsets, cudaStream_t stream) {
    const OnDevice current(device_);
    check(cudaMemcpyAsync(host_offsets, offsets_.data(), offsets_.bytes(), cudaMemcpyDeviceToHost, stream),
          "copying offsets to the host");
}

void OffsetMlp::synchronize(cudaStream_t stream) const {
    const OnDevice current(device_);
    check(cudaStreamSynchronize(stream), "evaluating the offset network");
}

}  // namespace being::cuda
