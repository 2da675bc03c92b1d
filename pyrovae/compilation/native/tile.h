// What the kernels share: a tile of a matrix product, held in registers. The sources are compiled as one, in the order
// tile.h, product.cpp, adam.cpp.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>

#include <omp.h>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int kBytes = 64, kRows = 12;
#elif defined(__AVX__)
constexpr int kBytes = 32, kRows = 6;
#else
constexpr int kBytes = 16, kRows = 6;  // SSE, NEON
#endif

// A thread's part of n units: the same at every call, so that what its core has written is there at the next.
struct Share {
  int64_t from, to;

  explicit Share(int64_t n) {
    const int64_t thread = omp_get_thread_num(), team = omp_get_num_threads();
    from = thread * n / team, to = (thread + 1) * n / team;
  }
};

constexpr int64_t kPacked = 1 << 19;  // bytes of an operand that are rearranged at a time: they stay in the cache

// Memory of the calling thread, kept until it asks for more.
template <typename T>
T* scratch(int64_t size) {
  static thread_local std::unique_ptr<T[]> memory;
  static thread_local int64_t held = 0;
  if (held < size) memory.reset(new T[held = size]);
  return memory.get();
}

enum class Start { zero, out, line };

template <typename T>
struct Tile {
  typedef T Vector __attribute__((vector_size(kBytes)));
  typedef T Loose __attribute__((vector_size(kBytes), aligned(sizeof(T)), may_alias));
  static constexpr int64_t kWidth = kBytes / sizeof(T), kColumns = 2 * kWidth;

  // out[r, c] = start[r, c] + sum over k of left[r * row + k * step] * right[k * stride + c], for R rows and kColumns
  // columns. Start: nothing, what is in out, or one line for all rows.
  template <int R, Start from>
  static inline void product(const T* left, int64_t row, int64_t step, const T* right, int64_t stride, int64_t inner,
                             T* out, int64_t width, const T* line) {
    Vector sum[R][2] = {};
    if (from != Start::zero) {
#pragma GCC unroll 12
      for (int r = 0; r < R; ++r) {
        const T* const start = from == Start::out ? out + r * width : line;
        sum[r][0] = *reinterpret_cast<const Loose*>(start);
        sum[r][1] = *reinterpret_cast<const Loose*>(start + kWidth);
      }
    }
    for (int64_t k = 0; k < inner; ++k, left += step, right += stride) {
      const Vector first = *reinterpret_cast<const Loose*>(right);
      const Vector second = *reinterpret_cast<const Loose*>(right + kWidth);
#pragma GCC unroll 12
      for (int r = 0; r < R; ++r) {
        sum[r][0] += left[r * row] * first;
        sum[r][1] += left[r * row] * second;
      }
    }
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
      *reinterpret_cast<Loose*>(out + r * width) = sum[r][0];
      *reinterpret_cast<Loose*>(out + r * width + kWidth) = sum[r][1];
    }
  }

  // The same for any number of rows.
  template <Start from = Start::zero>
  static inline void rows(int64_t count, const T* left, int64_t row, int64_t step, const T* right, int64_t stride,
                          int64_t inner, T* out, int64_t width, const T* line = nullptr) {
    int64_t r = 0;
    for (; r + kRows <= count; r += kRows) {
      product<kRows, from>(left + r * row, row, step, right, stride, inner, out + r * width, width, line);
    }
    for (; r + 4 <= count; r += 4) {
      product<4, from>(left + r * row, row, step, right, stride, inner, out + r * width, width, line);
    }
    for (; r < count; ++r) {
      product<1, from>(left + r * row, row, step, right, stride, inner, out + r * width, width, line);
    }
  }
};

}  // namespace
