// The operations `composite` and `over` on the CPU, a row at a time.
#include "kernels/training/composite.h"

#include "csrc/training/parallel.h"
#include "kernels/common/composite_gradient.h"

namespace being::training {
namespace {

constexpr int kRows = 8;  // that a thread takes at a time

// work(pixel's index, its background) for every pixel.
template <class Real, class Work>
void for_pixels(const CompositeStage<Real>& stage, const Work& work) {
    parallel_for(int64_t(stage.pictures) * stage.height, kRows, [&](int64_t row) {
        const int picture = int(row / stage.height), y = int(row % stage.height);
        for (int x = 0; x < stage.width; ++x) work(row * stage.width + x, stage.background.at(picture, y, x));
    });
}

template <bool kTorso, class Real>
void forward(const CompositeStage<Real>& s) {
    for_pixels(s, [&](int64_t pixel, const Vector3<Real>& background) {
        const int64_t sums = pixel * kLayerSums;
        composite_sums<kTorso>(s.head + sums, kTorso ? s.torso + sums : nullptr, s.inverse_softness, background,
                               s.picture + pixel * 4);
    });
}

template <bool kTorso, class Real>
void backward(const CompositeStage<Real>& s) {
    for_pixels(s, [&](int64_t pixel, const Vector3<Real>& background) {
        const int64_t sums = pixel * kLayerSums;
        composite_sums_gradient<kTorso>(s.head + sums, kTorso ? s.torso + sums : nullptr, s.inverse_softness,
                                        background, s.picture_gradient + pixel * 4, s.head_gradient + sums,
                                        kTorso ? s.torso_gradient + sums : nullptr);
    });
}

}  // namespace

template <class Real>
void run_composite(const CompositeStage<Real>& stage) {
    stage.torso ? forward<true>(stage) : forward<false>(stage);
}

template <class Real>
void run_composite_backward(const CompositeStage<Real>& stage) {
    stage.torso ? backward<true>(stage) : backward<false>(stage);
}

template void run_composite(const CompositeStage<float>&);
template void run_composite(const CompositeStage<double>&);
template void run_composite_backward(const CompositeStage<float>&);
template void run_composite_backward(const CompositeStage<double>&);

}  // namespace being::training
