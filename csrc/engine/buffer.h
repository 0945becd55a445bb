// Memory for arrays that vector code reads: aligned to a cache line, zeroed, and with a line to spare at the end, so
// that a whole vector may be read or written from any element on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <type_traits>
#include <utility>

namespace being {

template <class T>
class Buffer {
    static_assert(std::is_trivially_copyable_v<T>);

  public:
    Buffer() = default;
    explicit Buffer(size_t count) { resize(count); }
    Buffer(Buffer&& other) noexcept { swap(other); }
    Buffer& operator=(Buffer&& other) noexcept {
        swap(other);
        return *this;
    }
    ~Buffer() { ::operator delete(data_, std::align_val_t(kAlignment)); }

    // Contents are zero afterwards.
    void resize(size_t count) {
        const size_t bytes = count * sizeof(T) + kSpare;
        T* fresh = static_cast<T*>(::operator new(bytes, std::align_val_t(kAlignment)));
        std::memset(static_cast<void*>(fresh), 0, bytes);
        ::operator delete(data_, std::align_val_t(kAlignment));
        data_ = fresh;
        size_ = count;
    }
    // At least `count` elements; contents are lost if that takes new memory.
    void reserve(size_t count) {
        if (count > size_) resize(count + count / 4);
    }

    T* data() { return data_; }
    const T* data() const { return data_; }
    size_t size() const { return size_; }
    size_t bytes() const { return data_ ? size_ * sizeof(T) + kSpare : 0; }
    T& operator[](size_t i) { return data_[i]; }
    const T& operator[](size_t i) const { return data_[i]; }

  private:
    static constexpr size_t kAlignment = 64, kSpare = 128;

    void swap(Buffer& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
    }

    T* data_ = nullptr;
    size_t size_ = 0;
};

}  // namespace being
