// Products of a batch with a layer's weight: for batches too small to keep a general library's kernels busy, and for
// layers too thin.

namespace {

constexpr int64_t kInner = 256;  // terms at a time, so that the weight's rows stay within reach of the TLB

// Lines of a panel of a matrix, its rows side by side: packed[k, i] = rows[(first + i) * inner + k], or zero.
template <typename T>
inline void pack(const T* rows, int64_t count, int64_t first, int64_t inner, int64_t from, int64_t to, T* packed) {
  constexpr int64_t kSide = Tile<T>::kColumns;
  const int64_t width = std::min(kSide, count - first);
  for (int64_t k = from; k < to; ++k) {
    for (int64_t i = 0; i < width; ++i) packed[k * kSide + i] = rows[(first + i) * inner + k];
    for (int64_t i = width; i < kSide; ++i) packed[k * kSide + i] = 0;
  }
}

// A matrix cut into panels of rows, as many packed at a time as stay in the cache.
template <typename T>
struct Panels {
  const int64_t size, total, group;
  T* const packed;

  Panels(int64_t rows, int64_t inner)
      : size(inner * Tile<T>::kColumns),
        total((rows + Tile<T>::kColumns - 1) / Tile<T>::kColumns),
        group(std::max<int64_t>(1, std::min(total, kPacked / int64_t(size * sizeof(T))))),
        packed(scratch<T>(group * size)) {}
};

// Some panels, each thread its share of the lines.
template <typename T>
inline void pack(const T* rows, int64_t count, int64_t first, int64_t panels, int64_t inner, T* packed) {
  constexpr int64_t kSide = Tile<T>::kColumns;
  const Share lines(panels * inner);
  for (int64_t at = lines.from; at < lines.to;) {
    const int64_t panel = at / inner, from = at - panel * inner, to = std::min(inner, from + lines.to - at);
    pack(rows, count, first + panel * kSide, inner, from, to, packed + panel * inner * kSide);
    at += to - from;
  }
}

// out[b, n] = bias[n] + sum over k of x[b, k] weight[n, k] for more rows than columns: the weight is packed.
template <typename T>
void tall(const T* x, const T* weight, const T* bias, T* out, int64_t batch, int64_t inner, int64_t columns,
          int threads) {
  constexpr int64_t kSide = Tile<T>::kColumns;
  const Panels<T> panels(columns, inner);
#pragma omp parallel num_threads(threads)
  {
    const Share strips((batch + kRows - 1) / kRows);
    const int64_t start = strips.from * kRows, end = std::min(batch, strips.to * kRows);
    alignas(64) T tile[kRows * kSide];
    for (int64_t first = 0; first < panels.total; first += panels.group) {
      const int64_t count = std::min(panels.group, panels.total - first);
      pack(weight, columns, first * kSide, count, inner, panels.packed);
#pragma omp barrier
      for (int64_t p = 0; p < count; ++p) {
        const T* const panel = panels.packed + p * panels.size;
        const int64_t column = (first + p) * kSide, width = std::min(kSide, columns - column);
        T line[kSide] = {};
        if (bias) std::copy(bias + column, bias + column + width, line);
        if (width == kSide) {
          Tile<T>::template rows<Start::line>(end - start, x + start * inner, inner, 1, panel, kSide, inner,
                                              out + start * columns + column, columns, line);
          continue;
        }
        for (int64_t b = start; b < end; b += kRows) {
          const int64_t height = std::min<int64_t>(kRows, end - b);
          Tile<T>::template rows<Start::line>(height, x + b * inner, inner, 1, panel, kSide, inner, tile, kSide, line);
          for (int64_t r = 0; r < height; ++r) {
            std::copy(tile + r * kSide, tile + r * kSide + width, out + (b + r) * columns + column);
          }
        }
      }
      if (first + count < panels.total) {
#pragma omp barrier
      }
    }
  }
}

// The same for more columns than rows: the batch is packed.
template <typename T>
void wide(const T* x, const T* weight, const T* bias, T* out, int64_t batch, int64_t inner, int64_t columns,
          int threads) {
  constexpr int64_t kSide = Tile<T>::kColumns;
  const Panels<T> panels(batch, inner);
#pragma omp parallel num_threads(threads)
  {
    const Share strips((columns + kRows - 1) / kRows);
    alignas(64) T tile[kRows * kSide];
    for (int64_t first = 0; first < panels.total; first += panels.group) {
      const int64_t count = std::min(panels.group, panels.total - first);
      pack(x, batch, first * kSide, count, inner, panels.packed);
#pragma omp barrier
      for (int64_t strip = strips.from; strip < strips.to; ++strip) {
        const int64_t column = strip * kRows, height = std::min<int64_t>(kRows, columns - column);
        T shift[kRows] = {};
        if (bias) std::copy(bias + column, bias + column + height, shift);
        for (int64_t p = 0; p < count; ++p) {
          const T* const panel = panels.packed + p * panels.size;
          Tile<T>::rows(height, weight + column * inner, inner, 1, panel, kSide, inner, tile, kSide);
          const int64_t start = (first + p) * kSide, width = std::min(kSide, batch - start);
          T* const place = out + start * columns + column;
          if (height == kRows) {
            for (int64_t b = 0; b < width; ++b) {
#pragma GCC unroll 12
              for (int r = 0; r < kRows; ++r) place[b * columns + r] = tile[r * kSide + b] + shift[r];
            }
          } else {
            for (int64_t b = 0; b < width; ++b) {
              for (int64_t r = 0; r < height; ++r) place[b * columns + r] = tile[r * kSide + b] + shift[r];
            }
          }
        }
      }
      if (first + count < panels.total) {
#pragma omp barrier
      }
    }
  }
}

// out[b, n] = sum over k of x[b, k] weight[k, n].
template <typename T>
void backward(const T* x, const T* weight, T* out, int64_t batch, int64_t inner, int64_t columns, int threads) {
  constexpr int64_t kSide = Tile<T>::kColumns, kTall = 4 * kRows;
  if (columns < kSide) {  // not even one panel
    for (int64_t b = 0; b < batch; ++b) {
      for (int64_t n = 0; n < columns; ++n) {
        T sum = 0;
        for (int64_t k = 0; k < inner; ++k) sum += x[b * inner + k] * weight[k * columns + n];
        out[b * columns + n] = sum;
      }
    }
    return;
  }
#pragma omp parallel num_threads(threads)
  {
    const Share panels((columns + kSide - 1) / kSide);
    alignas(64) T tile[kTall * kSide];
    for (int64_t k = 0; k < inner; k += kInner) {
      const int64_t terms = std::min(kInner, inner - k);
      for (int64_t column = panels.from * kSide; column < std::min(columns, panels.to * kSide); column += kSide) {
        const T* const right = weight + k * columns;
        if (column + kSide <= columns) {
          if (k == 0) {
            Tile<T>::rows(batch, x + k, inner, 1, right + column, columns, terms, out + column, columns);
          } else {
            Tile<T>::template rows<Start::out>(batch, x + k, inner, 1, right + column, columns, terms, out + column,
                                               columns);
          }
          continue;
        }
        // The last panel reaches back over columns that are another's, perhaps another thread's, and leaves them alone.
        const int64_t back = columns - kSide;
        for (int64_t b = 0; b < batch; b += kTall) {
          const int64_t height = std::min(kTall, batch - b);
          Tile<T>::rows(height, x + b * inner + k, inner, 1, right + back, columns, terms, tile, kSide);
          for (int64_t r = 0; r < height; ++r) {
            for (int64_t c = column; c < columns; ++c) {
              T& place = out[(b + r) * columns + c];
              place = (k == 0 ? 0 : place) + tile[r * kSide + c - back];
            }
          }
        }
      }
    }
  }
}

}  // namespace

extern "C" {

int64_t narrowest() { return Tile<float>::kColumns; }

void forward_float(const float* x, const float* weight, const float* bias, float* out, int64_t batch, int64_t inner,
                   int64_t columns, int threads) {
  (batch < columns ? wide<float> : tall<float>)(x, weight, bias, out, batch, inner, columns, threads);
}

void backward_float(const float* x, const float* weight, float* out, int64_t batch, int64_t inner, int64_t columns,
                    int threads) {
  backward(x, weight, out, batch, inner, columns, threads);
}
}
