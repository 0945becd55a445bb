// The operation `gaussian_costs` on the CPU: groups of Gaussians in parallel.
#include "kernels/training/costs.h"

#include "csrc/training/parallel.h"

namespace being::training {

template <class Real>
void run_costs(const CostStage<Real>& s) {
    const int groups = cost_groups(s.count);
    parallel_for(groups, 8, [&](int64_t group) {
        CostSums<Real> sums{};
        const int begin = int(group) * kCostGroup, end = std::min(s.count, begin + kCostGroup);
        for (int i = begin; i < end; ++i) {
            const CostSums<Real> costs = costs_of(s, i);
            for (int k = 0; k < kCosts; ++k) sums.value[k] += costs.value[k];
        }
        std::copy_n(sums.value, kCosts, s.share + group * kCosts);
    });
    for (int k = 0; k < kCosts; ++k) {
        double sum = 0;
        for (int group = 0; group < groups; ++group) sum += double(s.share[group * kCosts + k]);
        *s.cost[k] = Real(sum) * cost_factor(s, k);
    }
}

template <class Real>
void run_costs_backward(const CostStage<Real>& s) {
    const CostSums<Real> slopes = cost_slopes(s);
    parallel_for(s.count, 8 * kCostGroup, [&](int64_t i) { write_cost_gradients(s, slopes, int(i)); });
}

template void run_costs(const CostStage<float>&);
template void run_costs(const CostStage<double>&);
template void run_costs_backward(const CostStage<float>&);
template void run_costs_backward(const CostStage<double>&);

}  // namespace being::training
