// The operation `add_statistics` on the CPU.
#include "kernels/training/statistics.h"

#include "csrc/training/parallel.h"

namespace being::training {

template <class Real>
void run_statistics(const StatisticsStage<Real>& stage) {
    parallel_for(stage.count, 1024, [&](int64_t i) { add_statistics(stage, size_t(i)); });
}

template void run_statistics(const StatisticsStage<float>&);
template void run_statistics(const StatisticsStage<double>&);

}  // namespace being::training
