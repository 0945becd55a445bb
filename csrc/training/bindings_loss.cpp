#include "csrc/training/bindings.h"

namespace being::training {

void bind_loss(py::module_&) {}

}  // namespace being::training
