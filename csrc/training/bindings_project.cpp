#include "csrc/training/bindings.h"

namespace being::training {

void bind_project(py::module_&) {}

}  // namespace being::training
