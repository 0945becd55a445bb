#include "csrc/bindings_cuda.h"

#include <deque>
#include <memory>
#include <mutex>

#include "csrc/bindings_arrays.h"
#include "csrc/bindings_dlpack.h"
#include "csrc/cpu/half.h"
#include "csrc/cuda/engine.h"
#include "csrc/cuda/measure.h"

namespace being {
namespace {

// Pinned memory that goes back to its pool when the last array over it is gone: allocating it takes milliseconds.
class PinnedPool : public std::enable_shared_from_this<PinnedPool> {
  public:
    using Memory = cuda::PinnedArray<uint8_t>;

    std::shared_ptr<Memory> take(size_t bytes) {
        Memory* memory = nullptr;
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            for (auto it = free_.begin(); it != free_.end(); ++it)
                if ((*it)->size() == bytes) {
                    memory = it->release();
                    free_.erase(it);
                    break;
                }
        }
        if (!memory) memory = new Memory(bytes);
        const std::weak_ptr<PinnedPool> pool = weak_from_this();
        return std::shared_ptr<Memory>(memory, [pool](Memory* back) {
            std::unique_ptr<Memory> owned(back);
            if (const auto alive = pool.lock()) {
                const std::lock_guard<std::mutex> lock(alive->mutex_);
                if (alive->free_.size() < 8) alive->free_.push_back(std::move(owned));
            }
        });
    }

  private:
    std::mutex mutex_;
    std::deque<std::unique_ptr<Memory>> free_;
};

class PyOutputBuffer {
  public:
    PyOutputBuffer(int device, size_t bytes) : device_(device) {
        on_device([&] {
            const cuda::OnDevice guard(device);
            buffer_ = std::make_shared<cuda::OutputBuffer>(bytes);
        });
    }
    uintptr_t pointer() const { return reinterpret_cast<uintptr_t>(buffer_->pixels.data()); }
    size_t size() const { return buffer_->pixels.size(); }
    int device() const { return device_; }
    cuda::OutputBuffer& get() { return *buffer_; }

    // A DLPack capsule of uint8 over this memory, which it keeps alive.
    py::capsule dlpack(const std::vector<int64_t>& shape) const {
        return dlpack_capsule(buffer_->pixels.data(), shape, device_, buffer_);
    }

  private:
    int device_;
    std::shared_ptr<cuda::OutputBuffer> buffer_;
};

class PyCudaEngine {
  public:
    PyCudaEngine(const py::list& avatars, const std::vector<int>& sessions, int width, int height, int device,
                 bool graph) {
        std::deque<Arrays> arrays;
        std::vector<AvatarView> views;
        for (const py::handle& avatar : avatars) {
            arrays.emplace_back(py::cast<py::dict>(avatar));
            views.push_back(avatar_view(arrays.back()));
        }
        if (sessions.empty() || sessions.size() > 65535)
            invalid("sessions must be 1 to 65535, got " + std::to_string(sessions.size()));
        for (const int index : sessions)
            if (index < 0 || index >= int(views.size()))
                invalid("a session names avatar " + std::to_string(index) + ", there are " +
                        std::to_string(views.size()));
        check_size(width, height);
        on_device([&] {
            const py::gil_scoped_release release;
            cuda::usable_device(device);
            const cuda::OnDevice guard(device);
            engine_ = std::make_unique<cuda::Engine>(views, sessions, width, height, device, graph);
        });
        camera_given_.resize(sessions.size());
    }

    void set_camera(int session, const py::object& world_to_camera, const py::object& intrinsics) {
        check_session(session);
        engine_->set_camera(session, camera_of(world_to_camera, intrinsics, engine_->width(), engine_->height()));
        camera_given_[size_t(session)] = true;
    }

    void set_background(int session, const py::object& rgb) {
        check_session(session);
        const py::array array =
            rgb.is_none() ? py::array() : checked<uint8_t>(rgb, "background", {engine_->height(), engine_->width(), 3});
        on_device([&] {
            engine_->set_background(session, rgb.is_none() ? nullptr : static_cast<const uint8_t*>(array.data()));
        });
    }

    uint64_t submit(const py::object& expression, const py::object& rotation, const py::object& neck,
                    const py::object& jaw, const py::object& eyes, const py::object& translation,
                    const py::object& eyelids, const std::string& format, PyOutputBuffer* buffer, uintptr_t pixels,
                    uintptr_t alpha, uintptr_t depth, uintptr_t stream) {
        const Parameters params({expression, rotation, neck, jaw, eyes, translation, eyelids}, cuda::kExpressions);
        const int sessions = engine_->sessions();
        if (params.frames != sessions)
            invalid(sessions == 1 ? "a frame needs params with T = 1, got T = " + std::to_string(params.frames) +
                                        "; use params[t]"
                                  : "a frame of " + std::to_string(sessions) + " sessions needs params with T = " +
                                        std::to_string(sessions) + ", got T = " + std::to_string(params.frames));
        for (const bool given : camera_given_)
            if (!given) invalid("set_camera comes before submit, for every session");
        cuda::Engine::Output output{format_of(format, engine_->width(), engine_->height()), nullptr, nullptr, nullptr,
                                    nullptr};
        if (buffer) {
            if (buffer->size() < engine_->picture_bytes(output.format) * size_t(sessions))
                invalid("the output buffer is too small for a frame");
            output.buffer = &buffer->get();
            output.pixels = buffer->get().pixels.data();
        } else {
            output.pixels = reinterpret_cast<uint8_t*>(pixels);
        }
        if (!output.pixels) invalid("a frame needs somewhere to go: a buffer or a device pointer");
        output.alpha = reinterpret_cast<float*>(alpha);
        output.depth = reinterpret_cast<float*>(depth);
        rows_.clear();
        for (py::ssize_t t = 0; t < params.frames; ++t) rows_.push_back(params.at(t));
        return on_device([&] {
            const py::gil_scoped_release release;
            const std::lock_guard<std::mutex> one_at_a_time(mutex_);
            return engine_->submit(rows_.data(), output, reinterpret_cast<cudaStream_t>(stream));
        });
    }

    bool wait(uint64_t frame) {
        return on_device([&] {
            const py::gil_scoped_release release;
            const std::lock_guard<std::mutex> one_at_a_time(mutex_);
            return engine_->wait(frame);
        });
    }

    // Starts copying a frame out of its buffer; the array is complete after wait_for_copy.
    py::array start_copy(uint64_t frame, PyOutputBuffer& buffer, const std::vector<py::ssize_t>& shape) {
        size_t bytes = 1;
        for (const py::ssize_t side : shape) bytes *= size_t(side);
        if (bytes > buffer.size()) invalid("the buffer holds less than that shape");
        const std::shared_ptr<PinnedPool::Memory> memory = on_device([&] { return pool_->take(bytes); });
        copy(frame, buffer, memory->data(), bytes);
        auto* keep = new std::shared_ptr<PinnedPool::Memory>(memory);
        const py::capsule owner(keep, [](void* p) { delete static_cast<std::shared_ptr<PinnedPool::Memory>*>(p); });
        return py::array(py::dtype::of<uint8_t>(), shape, memory->data(), owner);
    }

    // Into an array that exists, at once.
    void copy_into(uint64_t frame, PyOutputBuffer& buffer, const py::object& out) {
        if (!py::isinstance<py::array>(out)) invalid("out must be a NumPy array");
        py::array array = py::reinterpret_borrow<py::array>(out);
        if (!array.writeable()) invalid("out is read-only");
        if (!(array.flags() & py::array::c_style)) invalid("out must be C-contiguous");
        if (size_t(array.nbytes()) > buffer.size()) invalid("the buffer holds less than out");
        copy(frame, buffer, array.mutable_data(), size_t(array.nbytes()));
        wait_for_copy(buffer);
    }

    void wait_for_copy(PyOutputBuffer& buffer) {
        on_device([&] {
            const py::gil_scoped_release release;
            const std::lock_guard<std::mutex> one_at_a_time(mutex_);
            engine_->wait_for_copy(buffer.get());
        });
    }

    py::dict stage_times() const {
        const std::vector<double> milliseconds = on_device([&] { return engine_->stage_milliseconds(); });
        py::dict times;
        for (int i = 0; i < cuda::kStageCount; ++i) times[cuda::kStageNames[i]] = milliseconds[size_t(i)];
        return times;
    }

    py::dict splats(int session) const {
        check_session(session);
        const std::vector<cuda::VisibleSplat> all = on_device([&] { return engine_->splats(session); });
        SplatArrays arrays(py::ssize_t(all.size()));
        const auto half = [](uint32_t bits) { return half_to_float(uint16_t(bits)); };
        for (size_t i = 0; i < all.size(); ++i) {
            const cuda::Splat& v = all[i].values;
            if (all[i].visible)
                arrays.put(py::ssize_t(i), v.x, v.y, v.a, v.b, v.c, v.log_opacity, half(v.red_green & 0xffff),
                           half(v.red_green >> 16), half(v.blue & 0xffff), all[i].depth);
        }
        return arrays.dict();
    }

    // Bytes that a frame's stages read of what no frame changes, at most.
    py::dict stage_bytes(int session) const {
        check_session(session);
        py::dict bytes;
        bytes["skin"] = engine_->scene(session).skin_bytes();
        bytes["deform"] = engine_->scene(session).deform_bytes();
        return bytes;
    }

    size_t memory() const { return engine_->bytes(); }
    int sessions() const { return engine_->sessions(); }
    int list_capacity() const { return engine_->list_capacity(); }
    uint64_t lost_frames() const { return engine_->lost_frames(); }
    std::string device_name() const { return engine_->device().name; }

  private:
    void check_session(int session) const {
        if (session < 0 || session >= engine_->sessions())
            invalid("session must be 0 to " + std::to_string(engine_->sessions() - 1) + ", got " +
                    std::to_string(session));
    }
    void copy(uint64_t frame, PyOutputBuffer& buffer, void* to, size_t bytes) {
        on_device([&] {
            const py::gil_scoped_release release;
            const std::lock_guard<std::mutex> one_at_a_time(mutex_);
            engine_->copy_to_host(frame, buffer.get(), to, bytes);
        });
    }

    std::unique_ptr<cuda::Engine> engine_;
    std::vector<bool> camera_given_;
    std::vector<FrameParams> rows_;
    std::shared_ptr<PinnedPool> pool_ = std::make_shared<PinnedPool>();
    std::mutex mutex_;  // the interpreter's lock is not held while a frame is on its way
};

py::list cuda_devices() {
    py::list result;
    on_device([&] {
        for (const cuda::DeviceInfo& info : cuda::devices()) {
            py::dict device;
            device["name"] = info.name;
            device["capability"] = py::make_tuple(info.major, info.minor);
            device["multiprocessors"] = info.multiprocessors;
            device["memory"] = info.memory;
            device["supported"] = info.supported;
            result.append(device);
        }
    });
    return result;
}

class PyPartition {
  public:
    PyPartition(int multiprocessors, int device) {
        on_device([&] { part_ = std::make_unique<cuda::Partition>(device, multiprocessors); });
    }
    uintptr_t stream() const { return reinterpret_cast<uintptr_t>(part_->stream()); }
    int multiprocessors() const { return part_->multiprocessors(); }

  private:
    std::unique_ptr<cuda::Partition> part_;
};

double cuda_copy_bandwidth(int device) {
    return on_device([&] {
        const py::gil_scoped_release release;
        return cuda::copy_bandwidth(device);
    });
}

void check_cuda_device(int device) {
    on_device([&] { cuda::usable_device(device); });
}

}  // namespace

void bind_cuda(py::module_& module) {
    module.attr("cuda_architectures") = cuda::built_architectures();
    module.def("cuda_devices", &cuda_devices);
    module.def("check_cuda_device", &check_cuda_device, py::arg("device") = 0);
    module.def("cuda_copy_bandwidth", &cuda_copy_bandwidth, py::arg("device") = 0);
    py::class_<PyPartition>(module, "CudaPartition")
        .def(py::init<int, int>(), py::arg("multiprocessors"), py::arg("device") = 0)
        .def_property_readonly("stream", &PyPartition::stream)
        .def_property_readonly("multiprocessors", &PyPartition::multiprocessors);
    py::class_<PyOutputBuffer>(module, "CudaBuffer")
        .def(py::init<int, size_t>(), py::arg("device"), py::arg("bytes"))
        .def("dlpack", &PyOutputBuffer::dlpack, py::arg("shape"))
        .def_property_readonly("pointer", &PyOutputBuffer::pointer)
        .def_property_readonly("size", &PyOutputBuffer::size)
        .def_property_readonly("device", &PyOutputBuffer::device);
    py::class_<PyCudaEngine>(module, "CudaEngine")
        .def(py::init<const py::list&, const std::vector<int>&, int, int, int, bool>(), py::arg("avatars"),
             py::arg("sessions"), py::arg("width"), py::arg("height"), py::arg("device") = 0, py::arg("graph") = true)
        .def("set_camera", &PyCudaEngine::set_camera, py::arg("session"), py::arg("world_to_camera"),
             py::arg("intrinsics"))
        .def("set_background", &PyCudaEngine::set_background, py::arg("session"), py::arg("rgb"))
        .def("submit", &PyCudaEngine::submit, py::arg("expression"), py::arg("rotation"), py::arg("neck"),
             py::arg("jaw"), py::arg("eyes"), py::arg("translation"), py::arg("eyelids"), py::arg("format") = "rgb",
             py::arg("buffer") = py::none(), py::arg("pixels") = 0, py::arg("alpha") = 0, py::arg("depth") = 0,
             py::arg("stream") = 0)
        .def("wait", &PyCudaEngine::wait, py::arg("frame"))
        .def("start_copy", &PyCudaEngine::start_copy, py::arg("frame"), py::arg("buffer"), py::arg("shape"))
        .def("copy_into", &PyCudaEngine::copy_into, py::arg("frame"), py::arg("buffer"), py::arg("out"))
        .def("wait_for_copy", &PyCudaEngine::wait_for_copy, py::arg("buffer"))
        .def("stage_times", &PyCudaEngine::stage_times)
        .def("splats", &PyCudaEngine::splats, py::arg("session") = 0)
        .def("stage_bytes", &PyCudaEngine::stage_bytes, py::arg("session") = 0)
        .def_property_readonly("memory", &PyCudaEngine::memory)
        .def_property_readonly("sessions", &PyCudaEngine::sessions)
        .def_property_readonly("list_capacity", &PyCudaEngine::list_capacity)
        .def_property_readonly("lost_frames", &PyCudaEngine::lost_frames)
        .def_property_readonly("device_name", &PyCudaEngine::device_name);
}

}  // namespace being
