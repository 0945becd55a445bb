// The CUDA part of the module.
#pragma once

#include <pybind11/pybind11.h>

namespace being {

void bind_cuda(pybind11::module_& module);

}  // namespace being
