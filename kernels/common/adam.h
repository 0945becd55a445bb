// One step of Adam for one number. Kingma and Ba, "Adam: a method for stochastic optimization", 2015, algorithm 1.
#pragma once

#include "kernels/common/real.h"

namespace being {

// 1 - beta^steps, from forgetting = 1 - beta. Written out in float32 it would lose four digits in the first steps.
template <class Real>
BEING_HD inline Real bias_correction(Real forgetting, Real steps) {
    return -std::expm1(steps * std::log1p(-forgetting));
}

// What all numbers of a tensor share in a step.
template <class Real>
struct AdamRates {
    Real step;               // learning rate / first moment's bias correction
    Real root_correction;    // root of the second moment's bias correction
    Real first_forgetting;   // 1 - beta1
    Real second_forgetting;  // 1 - beta2
    Real epsilon;
};

template <class Real>
BEING_HD inline AdamRates<Real> adam_rates(Real learning_rate, Real steps, Real first_forgetting,
                                           Real second_forgetting, Real epsilon) {
    return {learning_rate / bias_correction(first_forgetting, steps), root(bias_correction(second_forgetting, steps)),
            first_forgetting, second_forgetting, epsilon};
}

template <class Real>
BEING_HD inline void adam_step(const AdamRates<Real>& rates, Real gradient, Real& parameter, Real& first,
                               Real& second) {
    first = fused(rates.first_forgetting, gradient - first, first);
    second = fused(rates.second_forgetting, gradient * gradient - second, second);
    parameter = parameter - rates.step * first / (root(second) / rates.root_correction + rates.epsilon);
}

}  // namespace being
