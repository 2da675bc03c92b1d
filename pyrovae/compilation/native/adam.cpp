// Adam's update of all parameters of a step, in one call. The gradient of a dense layer's weight is a product of two
// thin matrices; it is formed here a strip at a time, in the cache, and never written out.

namespace {

constexpr int64_t kChunk = 64, kStrip = 1024;  // elements that stay together, columns at a time

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

// Ask for the memory that the update of an element and its neighbours will want.
template <typename T>
inline void fetch(const Parameter& p, int64_t at) {
  __builtin_prefetch(static_cast<T*>(p.value) + at, 1);
  __builtin_prefetch(static_cast<T*>(p.mean) + at, 1);
  __builtin_prefetch(static_cast<T*>(p.square) + at, 1);
}

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

// The gradient left' right and its update, for a thread's share of the rows: a strip at a time that stays in the cache.
template <typename T>
void fused(const Parameter& p, const Factors<T>& f) {
  constexpr int64_t kSide = Tile<T>::kColumns;
  const Share strips((p.rows + kRows - 1) / kRows);
  const int64_t fitting = kPacked / int64_t(p.inner * sizeof(T)) / kSide * kSide;
  const int64_t breadth = std::max(kSide, std::min(fitting, kStrip));
  T* const right = scratch<T>(p.inner * (breadth + kSide + kRows));
  T* const left = right + p.inner * (breadth + kSide);
  alignas(64) T out[kRows * (kStrip + kSide)];
  for (int64_t from = 0; from < p.columns; from += breadth) {
    const int64_t width = std::min(breadth, p.columns - from), panels = (width + kSide - 1) / kSide;
    for (int64_t b = 0; b < p.inner; ++b) {
      const T* const line = static_cast<const T*>(p.right) + b * p.columns + from;
      for (int64_t c = 0; c < width; c += kSide) {
        T* const place = right + (c * p.inner) + b * kSide;
        for (int64_t i = 0; i < kSide; ++i) place[i] = c + i < width ? line[c + i] : T(0);
      }
    }
    for (int64_t strip = strips.from; strip < strips.to; ++strip) {
      const int64_t start = strip * kRows, height = std::min<int64_t>(kRows, p.rows - start);
      for (int64_t b = 0; b < p.inner; ++b) {
        const T* const line = static_cast<const T*>(p.left) + b * p.rows + start;
        for (int64_t r = 0; r < height; ++r) left[b * kRows + r] = line[r];
      }
      for (int64_t panel = 0; panel < panels; ++panel) {
        for (int64_t r = 0; r < height; ++r) fetch<T>(p, (start + r) * p.columns + from + panel * kSide);
        Tile<T>::rows(height, left, 1, kRows, right + panel * kSide * p.inner, kSide, p.inner, out + panel * kSide,
                      kStrip + kSide);
      }
      for (int64_t r = 0; r < height; ++r) {
        update<T>(p, f, (start + r) * p.columns + from, out + r * (kStrip + kSide), width);
      }
    }
  }
}

template <typename T>
void step(const Parameter* parameters, int64_t count, int threads) {
#pragma omp parallel num_threads(threads)
  {
    const FlushDenormals flush;
    for (int64_t i = 0; i < count; ++i) {
      const Parameter& p = parameters[i];
      const Factors<T> f(p);
      if (!p.gradient) {
        fused(p, f);
        continue;
      }
      const int64_t size = p.rows * p.columns;
      const Share chunks((size + kChunk - 1) / kChunk);
      const int64_t start = chunks.from * kChunk, end = std::min(size, chunks.to * kChunk);
      if (start < end) update<T>(p, f, start, static_cast<const T*>(p.gradient) + start, end - start);
    }
  }
  for (int64_t i = 0; i < count; ++i) *parameters[i].step += 1;
}

}  // namespace

extern "C" {

void adam_float(const Parameter* parameters, int64_t count, int threads) { step<float>(parameters, count, threads); }

void adam_double(const Parameter* parameters, int64_t count, int threads) { step<double>(parameters, count, threads); }
}
