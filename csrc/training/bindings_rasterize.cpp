#include "csrc/training/bindings.h"
#include "kernels/training/rasterize.h"

namespace being::training {
namespace {

template <class Real>
RasterizeStage<Real> make_rasterize_stage(const Arguments& arguments) {
    RasterizeStage<Real> stage{};
    stage.frames = arguments.integer("frames");
    stage.splats_per_frame = arguments.integer("splats_per_frame");
    stage.width = arguments.integer("width");
    stage.height = arguments.integer("height");
    stage.stop = Real(arguments.number("stop"));
    stage.splats = arguments.pointer<const Real>("splats");
    stage.sums = arguments.pointer<Real>("sums");
    stage.sums_gradient = arguments.pointer<const Real>("sums_gradient");
    stage.splats_gradient = arguments.pointer<Real>("splats_gradient");
    stage.capacity = arguments.long_integer("capacity");
    stage.splat_slots = arguments.pointer<uint32_t>("splat_slots");
    stage.block_slots = arguments.pointer<uint32_t>("block_slots");
    stage.tile_begin = arguments.pointer<uint32_t>("tile_begin");
    stage.tile_cursor = arguments.pointer<uint32_t>("tile_cursor");
    stage.long_tiles = arguments.pointer<uint32_t>("long_tiles");
    stage.entries = arguments.pointer<uint64_t>("entries");
    stage.owner = arguments.pointer<uint32_t>("owner");
    stage.slots = arguments.pointer<float>("slots");
    stage.status = arguments.pointer<int32_t>("status");
    return stage;
}

// One pass, as the CPU runs it and as CUDA does.
template <class Cpu, class Cuda>
auto pass(const Cpu& cpu, const Cuda& cuda) {
    return [cpu, cuda](const py::kwargs& given) {
        const Arguments arguments(given);
        dispatch(
            arguments,
            [&](auto real) {
                const auto stage = make_rasterize_stage<decltype(real)>(arguments);
                const py::gil_scoped_release release;
                cpu(stage);
            },
            [&](auto stream) { cuda(make_rasterize_stage<float>(arguments), stream); });
    };
}

}  // namespace

// On a CUDA device, `rasterize_count` goes before `rasterize`, and tells how much room that needs; the CPU needs none.
void bind_rasterize(py::module_& module) {
    module.attr("bin_splats") = kBinSplats;
    module.attr("tile_size") = kTileSize;
    module.attr("tile_counters") = int(kCounters);
#if defined(BEING_CUDA)
    module.def("rasterize_count",
               pass([](const auto&) {}, [](const auto& s, auto stream) { launch_count(s, stream); }));
    const auto draw = [](const auto& s, auto stream) {
        launch_fill(s, stream);
        launch_blend(s, stream);
    };
    const auto draw_backward = [](const auto& s, auto stream) { launch_rasterize_backward(s, stream); };
#else
    const auto draw = [](const auto&, int) {};
    const auto draw_backward = draw;
#endif
    module.def("rasterize", pass([](const auto& s) { run_rasterize(s); }, draw));
    module.def("rasterize_backward", pass([](const auto& s) { run_rasterize_backward(s); }, draw_backward));
}

}  // namespace being::training
