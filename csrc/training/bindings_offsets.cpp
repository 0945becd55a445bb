#include "csrc/training/bindings.h"

namespace being::training {

void bind_offsets(py::module_&) {}

}  // namespace being::training
