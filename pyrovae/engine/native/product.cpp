// Products of a batch with a layer's weight, for batches too small to keep a general library's kernels busy.

namespace {

constexpr int64_t kInner = 256;       // terms at a time, so that the weight's rows stay within reach of the TLB

// out[b, n] = bias[n] + sum over k of x[b, k] weight[n, k]: the batch is packed with its rows side by side.
template <typename T>
void forward(const T* x, const T* weight, const T* bias, T* out, int64_t batch, int64_t inner, int64_t columns,
             int threads) {
  constexpr int64_t kSide = Tile<T>::kColumns;
  const int64_t panel = inner * kSide, panels = (batch + kSide - 1) / kSide;
  const int64_t group = std::max<int64_t>(1, std::min(panels, kPacked / int64_t(panel * sizeof(T))));
  T* const packed = scratch<T>(group * panel);
#pragma omp parallel num_threads(threads)
  {
    const Share strips((columns + kRows - 1) / kRows);
    alignas(64) T tile[kRows * kSide];
    for (int64_t first = 0; first < panels; first += group) {
      const int64_t count = std::min(group, panels - first);
      const Share lines(count * inner);
      for (int64_t line = lines.from; line < lines.to; ++line) {
        const int64_t start = (first + line / inner) * kSide, k = line % inner;
        const int64_t width = std::min(kSide, batch - start);
        for (int64_t b = 0; b < width; ++b) packed[line * kSide + b] = x[(start + b) * inner + k];
        for (int64_t b = width; b < kSide; ++b) packed[line * kSide + b] = 0;
      }
#pragma omp barrier
      for (int64_t strip = strips.from; strip < strips.to; ++strip) {
        const int64_t column = strip * kRows, height = std::min<int64_t>(kRows, columns - column);
        T shift[kRows] = {};
        if (bias) std::copy(bias + column, bias + column + height, shift);
        for (int64_t p = 0; p < count; ++p) {
          Tile<T>::rows(height, weight + column * inner, inner, 1, packed + p * panel, kSide, inner, tile, kSide);
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
      if (first + count < panels) {
#pragma omp barrier
      }
    }
  }
}

// out[b, n] = sum over k of x[b, k] weight[k, n]; at least kColumns columns.
template <typename T>
void backward(const T* x, const T* weight, T* out, int64_t batch, int64_t inner, int64_t columns, int threads) {
  constexpr int64_t kSide = Tile<T>::kColumns, kTall = 4 * kRows;
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
            Tile<T>::template rows<true>(batch, x + k, inner, 1, right + column, columns, terms, out + column, columns);
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
  forward(x, weight, bias, out, batch, inner, columns, threads);
}

void backward_float(const float* x, const float* weight, float* out, int64_t batch, int64_t inner, int64_t columns,
                    int threads) {
  backward(x, weight, out, batch, inner, columns, threads);
}
}
