// The operation `anchor_latents` on the CPU. Frames, then anchors, are shared by threads; what is summed over either is
// summed in their order.
#include "kernels/training/anchors.h"

#include <vector>

#include "csrc/training/parallel.h"

namespace being::training {
namespace {

constexpr int kGrain = 8;  // anchors

// Eight sums side by side, which a compiler turns into vectors.
template <class Real>
Real dot(const Real* a, const Real* b, int count) {
    constexpr int kLanes = 8;
    Real sum[kLanes] = {};
    int i = 0;
    for (; i + kLanes <= count; i += kLanes)
        for (int lane = 0; lane < kLanes; ++lane) sum[lane] += a[i + lane] * b[i + lane];
    for (; i < count; ++i) sum[0] += a[i] * b[i];
    for (int lane = 1; lane < kLanes; ++lane) sum[0] += sum[lane];
    return sum[0];
}

// write(row, weight[row] . in)
template <class Real, class Write>
void rows_times(const Real* weight, int stride, int rows, int columns, const Real* in, const Write& write) {
    for (int row = 0; row < rows; ++row) write(row, dot(weight + size_t(row) * stride, in, columns));
}

// out[column] += sum over rows of weight[row, column] in[row]
template <class Real>
void add_columns(const Real* weight, int stride, int rows, int columns, const Real* in, Real* out) {
    for (int row = 0; row < rows; ++row)
        for (int i = 0; i < columns; ++i) out[i] += weight[size_t(row) * stride + i] * in[row];
}

// to[row, column] = sum over frames of left[frame, row] right[frame, column]; right null: of ones.
template <class Real>
void outer_product(int frames, int rows, int columns, const Real* left, const Real* right, Real* to, int stride) {
    if (!to) return;
    for (int row = 0; row < rows; ++row)
        for (int i = 0; i < columns; ++i) {
            Real sum = 0;
            for (int frame = 0; frame < frames; ++frame)
                sum += left[size_t(frame) * rows + row] * (right ? right[size_t(frame) * columns + i] : Real(1));
            to[size_t(row) * stride + i] = sum;
        }
}

template <class Real>
void run_trunk(const AnchorStage<Real>& s, int frame) {
    Real* const first = s.first + size_t(frame) * s.hidden0;
    Real* const second = s.second + size_t(frame) * s.hidden1;
    rows_times(s.trunk_weight_0, s.inputs, s.hidden0, s.inputs, s.condition + size_t(frame) * s.inputs,
               [&](int row, Real sum) { first[row] = larger(Real(0), sum + s.trunk_bias_0[row]); });
    rows_times(s.trunk_weight_1, s.hidden0, s.hidden1, s.hidden0, first,
               [&](int row, Real sum) { second[row] = larger(Real(0), sum + s.trunk_bias_1[row]); });
    rows_times(s.head_weight_0, s.hidden1 + s.code, s.hidden2, s.hidden1, second,
               [&](int row, Real sum) { s.of_frame[size_t(frame) * s.hidden2 + row] = sum; });
}

// The share of kAnchorTile anchors, as the CUDA part has it.
template <class Real>
void latent_gradient(const AnchorGradientStage<Real>& g, int tile) {
    const AnchorStage<Real>& s = g.forward;
    Real* const by_weight = g.share + size_t(tile) * g.share_size();
    Real* const by_bias = by_weight + s.rank * s.hidden2;
    Real* const by_frame = by_bias + s.rank;
    std::fill_n(by_weight, g.share_size(), Real(0));
    std::vector<Real> slope(s.hidden2), hidden(s.hidden2);
    for (int m = tile * kAnchorTile; m < std::min(s.anchors, (tile + 1) * kAnchorTile); ++m) {
        Real* const by_anchor = g.d_of_anchor + size_t(m) * s.hidden2;
        std::fill_n(by_anchor, s.hidden2, Real(0));
        for (int frame = 0; frame < s.frames; ++frame) {
            const Real* const d = g.d_latent + (size_t(frame) * s.anchors + m) * s.rank;
            std::fill(slope.begin(), slope.end(), Real(0));
            add_columns(s.head_weight_1, s.hidden2, s.rank, s.hidden2, d, slope.data());
            for (int j = 0; j < s.hidden2; ++j) {
                hidden[j] = s.hidden(frame, m, j);
                const Real of_unit = hidden[j] > Real(0) ? slope[j] : Real(0);
                by_anchor[j] += of_unit;
                by_frame[size_t(frame) * s.hidden2 + j] += of_unit;
            }
            for (int k = 0; k < s.rank; ++k) {
                for (int j = 0; j < s.hidden2; ++j) by_weight[k * s.hidden2 + j] += d[k] * hidden[j];
                by_bias[k] += d[k];
            }
        }
    }
}

template <class Real>
void trunk_gradient(const AnchorGradientStage<Real>& g, int frame) {
    const AnchorStage<Real>& s = g.forward;
    Real* const by_frame = g.d_of_frame + size_t(frame) * s.hidden2;
    Real* const by_second = g.d_second + size_t(frame) * s.hidden1;
    Real* const by_first = g.d_first + size_t(frame) * s.hidden0;
    std::fill_n(by_frame, s.hidden2, Real(0));
    const Real* const shares = g.share + s.rank * (s.hidden2 + 1) + size_t(frame) * s.hidden2;
    for (int tile = 0; tile < anchor_tiles(s.anchors); ++tile)
        for (int j = 0; j < s.hidden2; ++j) by_frame[j] += shares[size_t(tile) * g.share_size() + j];
    std::fill_n(by_second, s.hidden1, Real(0));
    add_columns(s.head_weight_0, s.hidden1 + s.code, s.hidden2, s.hidden1, by_frame, by_second);
    for (int i = 0; i < s.hidden1; ++i)
        if (!(s.second[size_t(frame) * s.hidden1 + i] > Real(0))) by_second[i] = 0;
    std::fill_n(by_first, s.hidden0, Real(0));
    add_columns(s.trunk_weight_1, s.hidden0, s.hidden1, s.hidden0, by_second, by_first);
    for (int h = 0; h < s.hidden0; ++h)
        if (!(s.first[size_t(frame) * s.hidden0 + h] > Real(0))) by_first[h] = 0;
    if (!g.d_condition) return;
    Real* const by_condition = g.d_condition + size_t(frame) * s.inputs;
    std::fill_n(by_condition, s.inputs, Real(0));
    add_columns(s.trunk_weight_0, s.inputs, s.hidden0, s.inputs, by_first, by_condition);
}

// What is summed over anchors, and the codes.
template <class Real>
void head_gradient(const AnchorGradientStage<Real>& g) {
    const AnchorStage<Real>& s = g.forward;
    const int units = s.hidden2, stride = s.hidden1 + s.code, tiles = anchor_tiles(s.anchors);
    const auto sum_shares = [&](int begin, int count, Real* to) {
        if (!to) return;
        std::fill_n(to, count, Real(0));
        for (int tile = 0; tile < tiles; ++tile)
            for (int i = 0; i < count; ++i) to[i] += g.share[size_t(tile) * g.share_size() + begin + i];
    };
    sum_shares(0, s.rank * units, g.d_head_weight_1);
    sum_shares(s.rank * units, s.rank, g.d_head_bias_1);
    outer_product<Real>(s.anchors, units, 1, g.d_of_anchor, nullptr, g.d_head_bias_0, 1);
    outer_product(s.anchors, units, s.code, g.d_of_anchor, s.anchor_code,
                  g.d_head_weight_0 ? g.d_head_weight_0 + s.hidden1 : nullptr, stride);
    if (!g.d_anchor_code) return;
    std::fill_n(g.d_anchor_code, s.anchors * s.code, Real(0));
    for (int m = 0; m < s.anchors; ++m)
        add_columns(s.head_weight_0 + s.hidden1, stride, units, s.code, g.d_of_anchor + size_t(m) * units,
                    g.d_anchor_code + size_t(m) * s.code);
}

}  // namespace

template <class Real>
void run_anchors(const AnchorStage<Real>& s) {
    parallel_for(s.frames, 1, [&](int64_t frame) { run_trunk(s, int(frame)); });
    const int stride = s.hidden1 + s.code;
    parallel_for(s.anchors, kGrain, [&](int64_t m) {
        rows_times(s.head_weight_0 + s.hidden1, stride, s.hidden2, s.code, s.anchor_code + m * s.code,
                   [&](int j, Real sum) { s.of_anchor[m * s.hidden2 + j] = sum + s.head_bias_0[j]; });
        std::vector<Real> hidden(s.hidden2);
        for (int frame = 0; frame < s.frames; ++frame) {
            for (int j = 0; j < s.hidden2; ++j) hidden[j] = s.hidden(frame, int(m), j);
            Real* const latent = s.latent + (size_t(frame) * s.anchors + m) * s.rank;
            rows_times(s.head_weight_1, s.hidden2, s.rank, s.hidden2, hidden.data(),
                       [&](int k, Real sum) { latent[k] = sum + s.head_bias_1[k]; });
        }
    });
}

template <class Real>
void run_anchors_backward(const AnchorGradientStage<Real>& g) {
    const AnchorStage<Real>& s = g.forward;
    parallel_for(anchor_tiles(s.anchors), 1, [&](int64_t tile) { latent_gradient(g, int(tile)); });
    parallel_for(s.frames, 1, [&](int64_t frame) { trunk_gradient(g, int(frame)); });
    head_gradient(g);
    outer_product(s.frames, s.hidden2, s.hidden1, g.d_of_frame, s.second, g.d_head_weight_0, s.hidden1 + s.code);
    outer_product(s.frames, s.hidden1, s.hidden0, g.d_second, s.first, g.d_trunk_weight_1, s.hidden0);
    outer_product(s.frames, s.hidden0, s.inputs, g.d_first, s.condition, g.d_trunk_weight_0, s.inputs);
    outer_product<Real>(s.frames, s.hidden1, 1, g.d_second, nullptr, g.d_trunk_bias_1, 1);
    outer_product<Real>(s.frames, s.hidden0, 1, g.d_first, nullptr, g.d_trunk_bias_0, 1);
}

template void run_anchors(const AnchorStage<float>&);
template void run_anchors(const AnchorStage<double>&);
template void run_anchors_backward(const AnchorGradientStage<float>&);
template void run_anchors_backward(const AnchorGradientStage<double>&);

}  // namespace being::training
