#include "csrc/training/bindings.h"

namespace being::training {

void bind_rasterize(py::module_&) {}

}  // namespace being::training
