// FusedAdam on the CPU.
#include "kernels/training/adam.h"

#include "csrc/training/parallel.h"
#include "kernels/common/adam.h"

namespace being::training {

template <class Real>
void run_adam(const AdamStage<Real>& stage) {
    if (stage.skip && *stage.skip != 0) return;
    const Real steps = Real(*stage.steps + 1);
    parallel_for(stage.chunks, 4, [&](int64_t chunk) {
        const AdamSegment<Real>& s = stage.segment[segment_of(stage, int(chunk))];
        const AdamRates<Real> rates = adam_rates(Real(stage.learning_rate[s.rate]), steps, stage.first_forgetting,
                                                 s.second_forgetting, stage.epsilon[s.rate]);
        const int64_t begin = (chunk - s.first_chunk) * kAdamChunk, end = std::min(s.size, begin + kAdamChunk);
        for (int64_t i = begin; i < end; ++i) adam_step(rates, s.gradient[i], s.parameter[i], s.first[i], s.second[i]);
    });
    if (stage.last) ++*stage.steps;
}

template void run_adam(const AdamStage<float>&);
template void run_adam(const AdamStage<double>&);

}  // namespace being::training
