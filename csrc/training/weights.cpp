// The operation `box_weights` on the CPU: lines in parallel.
#include "kernels/training/weights.h"

#include "csrc/training/parallel.h"

namespace being::training {

template <class Real>
void run_box_weights(const WeightStage<Real>& s) {
    parallel_for(int64_t(s.batch) * s.height, 16, [&](int64_t line) {
        uint8_t* out = s.weight + line * s.width;
        for (int x = 0; x < s.width; ++x) out[x] = box_weight(s, int(line / s.height), int(line % s.height), x);
    });
}

template void run_box_weights(const WeightStage<float>&);
template void run_box_weights(const WeightStage<double>&);

}  // namespace being::training
