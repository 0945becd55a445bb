#include "csrc/cpu/dispatch.h"

#include <cstdlib>
#include <stdexcept>

#if defined(_MSC_VER) && defined(BEING_X86)
#include <intrin.h>
#endif

namespace being::cpu {

namespace baseline {
extern const Stages kStages;
}
#if defined(BEING_X86)
namespace avx2 {
extern const Stages kStages;
}
namespace avx512 {
extern const Stages kStages;
}
#endif

namespace {

struct Level {
    const char* name;
    const Stages* stages;
    bool runs_here;
};

#if defined(BEING_X86) && defined(_MSC_VER)
bool has_avx2() {
    int id[4];
    __cpuidex(id, 1, 0);
    const bool fma = id[2] >> 12 & 1, saves = id[2] >> 27 & 1, half = id[2] >> 29 & 1;
    __cpuidex(id, 7, 0);
    return fma && half && saves && (_xgetbv(0) & 6) == 6 && (id[1] >> 5 & 1);
}
bool has_avx512() {
    int id[4];
    __cpuidex(id, 7, 0);
    const unsigned needed = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;  // F, DQ, BW, VL
    return has_avx2() && (_xgetbv(0) & 0xe6) == 0xe6 && (unsigned(id[1]) & needed) == needed;
}
#elif defined(BEING_X86)
bool has_avx2() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}  // F16C came before both
bool has_avx512() {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

std::vector<Level> levels() {
    return {
        {"baseline", &baseline::kStages, true},
#if defined(BEING_X86)
        {"avx2", &avx2::kStages, has_avx2()},
        {"avx512", &avx512::kStages, has_avx512()},
#endif
    };
}

Level choose(std::string name) {
    if (name.empty())
        if (const char* wanted = std::getenv("BEING_RT_SIMD")) name = wanted;
    Level best{};
    for (const Level& level : levels()) {
        if (level.runs_here && (name.empty() || name == level.name)) best = level;
    }
    if (!best.name) {
        std::string known;
        for (const std::string& level : available_levels()) known += (known.empty() ? "" : ", ") + level;
        throw std::invalid_argument("SIMD level '" + name + "' is not available; this machine has: " + known);
    }
    return best;
}

}  // namespace

std::vector<std::string> available_levels() {
    std::vector<std::string> names;
    for (const Level& level : levels())
        if (level.runs_here) names.emplace_back(level.name);
    return names;
}

const Stages& stages(const std::string& level) {
    return *choose(level).stages;
}
std::string chosen_level(const std::string& level) {
    return choose(level).name;
}

}  // namespace being::cpu
