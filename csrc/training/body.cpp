// The operation `body_frames` on the CPU: too little to share out.
#include "kernels/training/body.h"

namespace being::training {

template <class Real>
void run_body(const BodyStage<Real>& stage) {
    for (int i = 0; i < kBodyFloats * stage.frames; ++i) write_body(stage, i);
}

template <class Real>
void run_body_backward(const BodyStage<Real>& stage) {
    for (int i = 0; i < body_slopes(stage.frames); ++i) write_body_gradient(stage, i);
}

template void run_body(const BodyStage<float>&);
template void run_body(const BodyStage<double>&);
template void run_body_backward(const BodyStage<float>&);
template void run_body_backward(const BodyStage<double>&);

}  // namespace being::training
