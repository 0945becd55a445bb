#include "csrc/training/bindings.h"

namespace being::training {

void bind_composite(py::module_&) {}

}  // namespace being::training
