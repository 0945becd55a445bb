// Formats of a finished picture.
#pragma once

namespace being {

enum class Format { kRgb, kRgba, kNv12 };

}  // namespace being
