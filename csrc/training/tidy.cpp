// The operation `tidy` on the CPU.
#include "kernels/training/tidy.h"

#include "csrc/training/parallel.h"

namespace being::training {

template <class Real>
void run_tidy(const TidyStage<Real>& stage) {
    parallel_for(stage.count, 4096, [&](int64_t i) { tidy_gaussian(stage, size_t(i)); });
}

template void run_tidy(const TidyStage<float>&);
template void run_tidy(const TidyStage<double>&);

}  // namespace being::training
