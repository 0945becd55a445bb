#include "csrc/training/bindings.h"

namespace being::training {

void bind_skin(py::module_&) {}

}  // namespace being::training
