// The part of the offset network that depends on the frame alone (part of stage `pose`).
//
//   h = relu(W1 relu(W0 theta + b0) + b1);  Z_k = V1 relu(V0 [h, code_k] + c0) + c1 for each anchor k
//
// V0 [h, code_k] = V0h h + V0c code_k: the first term is one vector for all anchors, the second a constant, added at
// load. Trunk and V0h: 16 neurons per vector, every worker computes them for itself (30 thousand products; a barrier
// costs as much). Anchors: 16 per vector, shared out among the workers; bound by the FMA units, 330 thousand products
// at 256 anchors.
#include "csrc/cpu/stages.h"

namespace being::cpu::BEING_ISA {
namespace {

int padded(int n) {
    return (n + kLanes - 1) / kLanes * kLanes;
}

// out[padded(rows)] = weight^T in + bias, then relu where asked. weight: [inputs][padded(rows)].
template <bool kRelu>
void dense(const float* weight, const float* bias, const float* in, int inputs, int rows, float* out) {
    const int stride = padded(rows);
    for (int r = 0; r < stride; r += kLanes) {
        // Two sums, so that one multiplication does not wait for the last.
        Floats even = bias ? Floats::load(bias + r) : Floats(0.0f), odd = 0.0f;
        int i = 0;
        for (; i + 1 < inputs; i += 2) {
            even = fused(Floats::load(weight + size_t(i) * stride + r), Floats(in[i]), even);
            odd = fused(Floats::load(weight + size_t(i + 1) * stride + r), Floats(in[i + 1]), odd);
        }
        if (i < inputs) even = fused(Floats::load(weight + size_t(i) * stride + r), Floats(in[i]), even);
        const Floats sum = even + odd;
        (kRelu ? larger(sum, Floats(0.0f)) : sum).store(out + r);
    }
}

}  // namespace

void launch_network(const NetworkStage& s, Worker worker) {
    const FlushDenormals flush;
    float* hidden0 = s.scratch + size_t(worker.index) * (padded(s.hidden0) + padded(s.hidden1) + padded(s.hidden2) +
                                                         kLanes * s.latent_stride);
    float* hidden1 = hidden0 + padded(s.hidden0);
    float* shared = hidden1 + padded(s.hidden1);
    float* by_rank = shared + padded(s.hidden2);  // [latent_stride][16]

    dense<true>(s.trunk_weight_0, s.trunk_bias_0, s.condition, s.inputs, s.hidden0, hidden0);
    dense<true>(s.trunk_weight_1, s.trunk_bias_1, hidden0, s.hidden0, s.hidden1, hidden1);
    dense<false>(s.head_weight_0, nullptr, hidden1, s.hidden1, s.hidden2, shared);

    const int blocks = s.anchors / kLanes, used = (s.rank + 3) / 4 * 4;
    for (int block = int(worker.begin(blocks)); block < int(worker.end(blocks)); ++block) {
        const float* bias = s.anchor_bias + size_t(block) * s.hidden2 * kLanes;
        for (int k = 0; k < used; k += 4) {
            Floats z0 = s.head_bias_1[k], z1 = s.head_bias_1[k + 1], z2 = s.head_bias_1[k + 2],
                   z3 = s.head_bias_1[k + 3];
            for (int j = 0; j < s.hidden2; ++j) {
                const Floats a = larger(Floats::load(bias + j * kLanes) + Floats(shared[j]), Floats(0.0f));
                const float* w = s.head_weight_1 + size_t(j) * s.latent_stride + k;
                z0 = fused(a, Floats(w[0]), z0);
                z1 = fused(a, Floats(w[1]), z1);
                z2 = fused(a, Floats(w[2]), z2);
                z3 = fused(a, Floats(w[3]), z3);
            }
            z0.store(by_rank + k * kLanes);
            z1.store(by_rank + (k + 1) * kLanes);
            z2.store(by_rank + (k + 2) * kLanes);
            z3.store(by_rank + (k + 3) * kLanes);
        }
        for (int lane = 0; lane < kLanes; ++lane)
            for (int k = 0; k < used; ++k)
                s.latent[size_t(block * kLanes + lane) * s.latent_stride + k] = by_rank[k * kLanes + lane];
    }
}

}  // namespace being::cpu::BEING_ISA
