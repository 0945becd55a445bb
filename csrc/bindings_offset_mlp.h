// The offset network's Python class; in builds with the CUDA part.
#pragma once

#include <pybind11/pybind11.h>

namespace being {

void bind_offset_mlp(pybind11::module_& module);

}  // namespace being
