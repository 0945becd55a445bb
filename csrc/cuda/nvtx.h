// Ranges that Nsight shows, in a domain of our own. They cost nothing where no profiler listens.
#pragma once

#include <nvtx3/nvToolsExt.h>

namespace being::cuda {

class Range {
  public:
    explicit Range(const char* name) {
        nvtxEventAttributes_t event{};
        event.version = NVTX_VERSION;
        event.size = NVTX_EVENT_ATTRIB_STRUCT_SIZE;
        event.messageType = NVTX_MESSAGE_TYPE_ASCII;
        event.message.ascii = name;
        nvtxDomainRangePushEx(domain(), &event);
    }
    ~Range() { nvtxDomainRangePop(domain()); }
    Range(const Range&) = delete;
    Range& operator=(const Range&) = delete;

  private:
    static nvtxDomainHandle_t domain() {
        static const nvtxDomainHandle_t handle = nvtxDomainCreateA("being_rt");
        return handle;
    }
};

}  // namespace being::cuda
