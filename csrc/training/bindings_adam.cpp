#include "csrc/training/bindings.h"

namespace being::training {

void bind_adam(py::module_&) {}

}  // namespace being::training
