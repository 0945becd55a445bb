// A background as being_rt/ops/background.py passes it.
#pragma once

#include "csrc/training/arguments.h"
#include "kernels/training/background.h"

namespace being::training {

template <class Real>
Background<Real> background_of(const Arguments& arguments) {
    return {arguments.pointer<const Real>("background"), arguments.long_integer("background_stride_picture"),
            arguments.long_integer("background_stride_row"), arguments.long_integer("background_stride_column")};
}

}  // namespace being::training
