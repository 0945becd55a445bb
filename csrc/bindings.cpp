// The only file that knows Python objects: checks what comes in, hands plain pointers to the engine.
#include <pybind11/pybind11.h>

PYBIND11_MODULE(_C, module) {
    module.doc() = "Native core of being_rt.";
    module.attr("cuda_built") = false;
}
