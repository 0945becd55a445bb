// Contract of the operation `gaussian_costs`: three costs of a layer of N Gaussians, each a weight times a mean over
// them. The formulas are in kernels/common/gaussian_cost.h.
#pragma once

#include <cstddef>

#include "kernels/common/gaussian_cost.h"
#include "kernels/training/records.h"

struct CUstream_st;  // what cudaStream_t points to; named here so that this header needs no CUDA

namespace being::training {

constexpr int kCosts = 3;        // of positions, of scales, of opacities
constexpr int kCostGroup = 256;  // Gaussians whose costs are one share of the sum; shares are added up in their order
constexpr int cost_groups(int count) {
    return (count + kCostGroup - 1) / kCostGroup;
}

template <class Real>
struct CostStage {
    const Real* position;        // [N, 3], with `home` and `limit`; null: costs nothing
    const Real* home;            // [N, 3]
    const Real* limit;           // [N]
    const Real* log_scale;       // [N, 3], with `scale_limit`; null: costs nothing
    const Real* scale_limit;     // [N]
    const Real* opacity_logit;   // [N]; null: costs nothing
    const Real* opacity_factor;  // [1] on the device; null: 1
    Real weight[kCosts];
    Real ratio_limit;
    int count;
    Real* share;                 // [groups, 3] scratch
    Real* cost[kCosts];          // out [1] each
    const Real* d_cost[kCosts];  // [1] each, null: 0; this and what follows on the way back
    Real* d_position;            // out [N, 3]; null: not wanted
    Real* d_log_scale;           // out [N, 3]; null: not wanted
    Real* d_opacity_logit;       // out [N]; null: not wanted
};

template <class Real>
struct CostSums {
    Real value[kCosts];
};

// Of Gaussian i, before weights.
template <class Real>
BEING_HD inline CostSums<Real> costs_of(const CostStage<Real>& s, int i) {
    CostSums<Real> costs{};
    if (s.position)
        costs.value[0] = distance_cost(read3(s.position + 3 * size_t(i)) - read3(s.home + 3 * size_t(i)), s.limit[i]);
    if (s.log_scale) costs.value[1] = scale_cost(read3(s.log_scale + 3 * size_t(i)), s.scale_limit[i], s.ratio_limit);
    if (s.opacity_logit) costs.value[2] = opacity_cost(s.opacity_logit[i]);
    return costs;
}

// What the sum over Gaussians of cost k is multiplied by.
template <class Real>
BEING_HD inline Real cost_factor(const CostStage<Real>& s, int k) {
    const Real factor = s.weight[k] / Real(s.count);
    return k == 2 && s.opacity_factor ? factor * *s.opacity_factor : factor;
}

// What a Gaussian's gradients are multiplied by.
template <class Real>
BEING_HD inline CostSums<Real> cost_slopes(const CostStage<Real>& s) {
    CostSums<Real> slopes{};
    for (int k = 0; k < kCosts; ++k)
        if (s.d_cost[k]) slopes.value[k] = *s.d_cost[k] * cost_factor(s, k);
    return slopes;
}

template <class Real>
BEING_HD inline void write_cost_gradients(const CostStage<Real>& s, const CostSums<Real>& slopes, int i) {
    const size_t row = 3 * size_t(i);
    if (s.d_position) {
        const Vector3<Real> away = read3(s.position + row) - read3(s.home + row);
        write3(distance_cost_gradient(away, s.limit[i]) * slopes.value[0], s.d_position + row);
    }
    if (s.d_log_scale) {
        const Vector3<Real> slope = scale_cost_gradient(read3(s.log_scale + row), s.scale_limit[i], s.ratio_limit);
        write3(slope * slopes.value[1], s.d_log_scale + row);
    }
    if (s.d_opacity_logit) s.d_opacity_logit[i] = opacity_cost_gradient(s.opacity_logit[i]) * slopes.value[2];
}

// CPU, float and double.
template <class Real>
void run_costs(const CostStage<Real>& stage);
template <class Real>
void run_costs_backward(const CostStage<Real>& stage);

// CUDA.
void launch_costs(const CostStage<float>& stage, CUstream_st* stream);
void launch_costs_backward(const CostStage<float>& stage, CUstream_st* stream);

}  // namespace being::training
