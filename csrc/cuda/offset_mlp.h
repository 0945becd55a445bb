// One offset network on one device: packed and uploaded once, evaluated once per frame.
#pragma once

#include <cstddef>
#include <vector>

#include "csrc/cuda/runtime.h"
#include "kernels/offset_mlp.h"

namespace being::cuda {

// A fully connected layer on the host, float, row-major.
struct HostLayer {
    int outputs, inputs;
    const float* weight;  // [outputs][inputs]
    const float* bias;    // [outputs]
};

class OffsetMlp {
  public:
    // Inputs of the first layer: positional ones, then the condition's. Sizes are checked by the caller: one or more
    // hidden layers of one width up to 256, 1 to 256 positional and condition inputs, 1 to 16 outputs; weights that a
    // half float can hold. Throws DeviceFault.
    OffsetMlp(int device, const std::vector<HostLayer>& layers, const float* positional, int points,
              int positional_inputs);

    // Enqueues one kernel that turns the condition [conditions] into offsets(). Allocates nothing and waits for
    // nothing; `host_condition` may change as soon as this returns. Evaluations that share the result belong on one
    // stream.
    void evaluate(const float* host_condition, cudaStream_t stream);

    // Enqueues a copy of the result, [points][outputs], to the host.
    void download(float* host_offsets, cudaStream_t stream);

    void synchronize(cudaStream_t stream) const;

    const float* offsets() const { return offsets_.data(); }  // device memory [points][outputs]
    int points() const { return stage_.points; }
    int outputs() const { return stage_.outputs; }
    int conditions() const { return stage_.conditions; }
    int device() const { return device_; }

  private:
    int device_;
    OffsetMlpStage stage_{};
    OffsetMlpPlan plan_{};
    DeviceArray<uint16_t> positional_, condition_weight_, hidden_weight_, output_weight_;
    DeviceArray<float> hidden_bias_, output_bias_, offsets_;
};

}  // namespace being::cuda
