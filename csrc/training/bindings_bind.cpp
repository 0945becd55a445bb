#include "csrc/training/bindings.h"

namespace being::training {

void bind_bind(py::module_&) {}

}  // namespace being::training
