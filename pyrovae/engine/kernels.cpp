// Adam's update of all parameters of a step, in one call. The gradient of a dense layer's weight is a product of two
// thin matrices; it is formed here a tile at a time, in registers, and never written.

#include <algorithm>
#include <cmath>
#include <cstdint>

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
constexpr int64_t kChunk = 4096, kStrip = 512;  // elements, columns at a time

// Moments of units that rest decay into denormal numbers, which take a processor many times as long.
class FlushDenormals {
#if defined(__SSE__)
  const unsigned before_ = _mm_getcsr();

 public:
  FlushDenormals() { _mm_setcsr(before_ | 0x8040); }
  ~FlushDenormals() { _mm_setcsr(before_); }
#elif defined(__aarch64__)
  uint64_t before_;

 public:
  FlushDenormals() {
    asm volatile("mrs %0, fpcr" : "=r"(before_));
    asm volatile("msr fpcr, %0" ::"r"(before_ | (uint64_t(1) << 24)));
  }
  ~FlushDenormals() { asm volatile("msr fpcr, %0" ::"r"(before_)); }
#else
 public:
  FlushDenormals() {}
#endif
};

struct Parameter {
  void *value, *mean, *square, *largest;  // largest: AMSGrad's, or null
  float* step;
  const void *gradient;      // null where it is left' right
  const void *left, *right;  // inner x rows and inner x columns, contiguous
  int64_t rows, columns, inner;
  double rate, beta1, beta2, epsilon, decay;
  int64_t decoupled, maximize;
};

template <typename T>
struct Factors {
  T size, root, keep1, keep2, new1, new2, epsilon, decay, shrink, sign;

  explicit Factors(const Parameter& p) {
    const double count = *p.step + 1.0;
    size = T(p.rate / (1 - std::pow(p.beta1, count)));
    root = T(1 / std::sqrt(1 - std::pow(p.beta2, count)));
    keep1 = T(p.beta1), new1 = T(1 - p.beta1);
    keep2 = T(p.beta2), new2 = T(1 - p.beta2);
    epsilon = T(p.epsilon);
    decay = T(p.decoupled ? 0 : p.decay);
    shrink = T(p.decoupled ? 1 - p.rate * p.decay : 1);
    sign = T(p.maximize ? -1 : 1);
  }
};

template <typename T>
inline void update(const Parameter& p, const Factors<T>& f, int64_t at, const T* __restrict gradient, int64_t n) {
  T* __restrict value = static_cast<T*>(p.value) + at;
  T* __restrict mean = static_cast<T*>(p.mean) + at;
  T* __restrict square = static_cast<T*>(p.square) + at;
  T* __restrict largest = p.largest ? static_cast<T*>(p.largest) + at : nullptr;
  if (largest) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
      const T w = value[i] * f.shrink, g = f.sign * gradient[i] + f.decay * w;
      const T m = f.keep1 * mean[i] + f.new1 * g, v = f.keep2 * square[i] + f.new2 * g * g;
      const T top = largest[i] > v ? largest[i] : v;
      mean[i] = m, square[i] = v, largest[i] = top;
      value[i] = w - f.size * m / (std::sqrt(top) * f.root + f.epsilon);
    }
    return;
  }
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const T w = value[i] * f.shrink, g = f.sign * gradient[i] + f.decay * w;
    const T m = f.keep1 * mean[i] + f.new1 * g, v = f.keep2 * square[i] + f.new2 * g * g;
    mean[i] = m, square[i] = v;
    value[i] = w - f.size * m / (std::sqrt(v) * f.root + f.epsilon);
  }
}

template <typename T>
struct Tile {
  typedef T Vector __attribute__((vector_size(kBytes)));
  typedef T Loose __attribute__((vector_size(kBytes), aligned(sizeof(T)), may_alias));
  static constexpr int kWidth = kBytes / sizeof(T), kColumns = 2 * kWidth;

  // Rows [row, row + R) and kColumns columns of left' right.
  template <int R>
  static inline void product(const Parameter& p, int64_t row, int64_t column, T* __restrict out, int64_t width) {
    const T* __restrict left = static_cast<const T*>(p.left) + row;
    const T* __restrict right = static_cast<const T*>(p.right) + column;
    Vector sum[R][2] = {};
    for (int64_t b = 0; b < p.inner; ++b, left += p.rows, right += p.columns) {
      const Vector first = *reinterpret_cast<const Loose*>(right);
      const Vector second = *reinterpret_cast<const Loose*>(right + kWidth);
#pragma GCC unroll 12
      for (int r = 0; r < R; ++r) {
        sum[r][0] += left[r] * first;
        sum[r][1] += left[r] * second;
      }
    }
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
      *reinterpret_cast<Loose*>(out + r * width) = sum[r][0];
      *reinterpret_cast<Loose*>(out + r * width + kWidth) = sum[r][1];
    }
  }

  static inline void fetch(const Parameter& p, int64_t at) {
    __builtin_prefetch(static_cast<T*>(p.value) + at, 1);
    __builtin_prefetch(static_cast<T*>(p.mean) + at, 1);
    __builtin_prefetch(static_cast<T*>(p.square) + at, 1);
  }

  // Rows [start, end), at most kRows: a strip of the gradient that stays in the cache, and its update.
  static void strip(const Parameter& p, const Factors<T>& f, int64_t start, int64_t end) {
    constexpr int64_t width = kColumns + kStrip;
    alignas(64) T out[kRows * width];
    for (int64_t from = 0; from < p.columns; from += kStrip) {
      const int64_t to = std::min(p.columns, from + kStrip);
      T* const origin = out + kColumns;  // room before it, since the last tile may overlap the one before
      for (int64_t column = from; column < to; column += kColumns) {
        for (int64_t row = start; row < end; ++row) fetch(p, row * p.columns + column);
        const int64_t place = std::min(column, p.columns - kColumns);
        if (end - start == kRows) {
          product<kRows>(p, start, place, origin + place - from, width);
        } else {
          for (int64_t row = start; row < end; ++row) {
            product<1>(p, row, place, origin + (row - start) * width + place - from, width);
          }
        }
      }
      for (int64_t row = start; row < end; ++row) {
        update<T>(p, f, row * p.columns + from, origin + (row - start) * width, to - from);
      }
    }
  }
};

template <typename T>
void step(const Parameter* parameters, int64_t count, int threads) {
#pragma omp parallel num_threads(threads)
  {
    const FlushDenormals flush;
    const int64_t thread = omp_get_thread_num(), team = omp_get_num_threads();
    for (int64_t i = 0; i < count; ++i) {
      const Parameter& p = parameters[i];
      const Factors<T> f(p);
      const int64_t size = p.gradient ? p.rows * p.columns : p.rows, unit = p.gradient ? kChunk : kRows;
      // Always the same part to the same thread: what its core has written is there at the next step.
      const int64_t units = (size + unit - 1) / unit, last = (thread + 1) * units / team * unit;
      for (int64_t at = thread * units / team * unit; at < std::min(size, last); at += unit) {
        const int64_t end = std::min(size, at + unit);
        if (p.gradient) {
          update<T>(p, f, at, static_cast<const T*>(p.gradient) + at, end - at);
        } else {
          Tile<T>::strip(p, f, at, end);
        }
      }
    }
  }
  for (int64_t i = 0; i < count; ++i) *parameters[i].step += 1;
}

}  // namespace

extern "C" {

int64_t narrowest() { return Tile<float>::kColumns; }

void adam_float(const Parameter* parameters, int64_t count, int threads) { step<float>(parameters, count, threads); }

void adam_double(const Parameter* parameters, int64_t count, int threads) { step<double>(parameters, count, threads); }
}
