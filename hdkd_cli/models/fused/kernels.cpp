// BatchNorm (training) and ReLU as one operator on NHWC tensors: value, gradient, tangent.
//
// A tensor is `rows` = N*H*W rows of `channels` elements, `stride` elements apart: a channel slice
// of a wider tensor is read where it lies. Elements are float or bfloat16; statistics and
// parameters are float, sums between tiles double.
//
// With x^ = (x - mean) * invstd and v = x^ * weight + bias:   y = v, or 0 where v <= 0.
// With g the gradient of v (that of y, 0 where v <= 0):
//     dx = weight * invstd * (g - mean(g) - x^ * mean(g x^)),  dweight = sum(g x^), dbias = sum(g)
// With t the tangent of x:
//     dv = weight * invstd * (t - mean(t) - x^ * mean(t x^)) + x^ * dweight + dbias
//
// Rows are narrow (a few channels), so the loops run over `period` elements at once: whole rows
// that fill whole vectors, with the parameters laid out as often. Sums are taken over parts whose
// size depends on the tensor alone and added in their order: any number of threads gives the same
// bits. -ffp-contract=off keeps v the same in all passes, so they agree on where v <= 0.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <numeric>
#include <vector>

namespace {

using Index = int64_t;

// Memory that begins where the widest vector may: one that straddles two lines costs twice.
template <class T>
struct Aligned {
  using value_type = T;
  static constexpr std::align_val_t line{64};

  Aligned() = default;
  template <class Other>
  Aligned(const Aligned<Other>&) {}

  T* allocate(size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), line)); }
  void deallocate(T* memory, size_t) { ::operator delete(memory, line); }
  bool operator==(const Aligned&) const { return true; }
  bool operator!=(const Aligned&) const { return false; }
};

template <class T>
using Memory = std::vector<T, Aligned<T>>;
using Floats = Memory<float>;
using Doubles = Memory<double>;

struct Bf16 {
  uint16_t bits;
};

inline float widened(float value) { return value; }

inline float widened(Bf16 value) {
  const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
  float result;
  std::memcpy(&result, &bits, sizeof result);
  return result;
}

template <class T>
T narrowed(float value);

template <>
inline float narrowed<float>(float value) {
  return value;
}

template <>
inline Bf16 narrowed<Bf16>(float value) {  // to the nearest, ties to even
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  return Bf16{static_cast<uint16_t>(nan ? 0x7fc0u : rounded)};
}

// How a tensor is cut. All sizes are in elements and multiples of `period`, but for the end.
struct Cut {
  static constexpr Index vector = 16;        // floats of the widest vectors there are
  static constexpr Index wide = 256;         // enough for independent sums to hide their latency
  static constexpr Index widest = 1024;      // otherwise vectors with a rest are cheaper
  static constexpr Index tile_periods = 16;  // floats add up this often before they become double
  static constexpr Index part_tiles = 8;

  Index channels, size, period, tile, part, parts;

  Cut(Index rows, Index channels) : channels(channels), size(rows * channels) {
    const Index whole = std::lcm(channels, vector);
    period = whole > widest ? channels : whole * ((wide + whole - 1) / whole);
    tile = period * tile_periods;
    part = tile * part_tiles;
    parts = (size + part - 1) / part;
  }

  Index end_of(Index begin, Index length) const { return std::min(begin + length, size); }

  // `value` of each channel, as often as a period has rows
  template <class Value>
  Floats laid_out(Value value) const {
    Floats all(period);
    for (Index j = 0; j < channels; ++j) all[j] = static_cast<float>(value(j));
    for (Index at = channels; at < period; at += channels)
      std::copy_n(all.data(), channels, all.data() + at);
    return all;
  }

  template <class Body>
  void over_parts(int threads, Body body) const {
    const int used = static_cast<int>(std::min<Index>(threads, parts));
#pragma omp parallel for num_threads(used) if (used > 1) schedule(static)
    for (Index p = 0; p < parts; ++p) body(p, p * part, end_of(p * part, part));
  }
};

template <size_t Bytes>
void pack_rows(const char* from, char* to, Index rows, size_t stride) {
  for (Index r = 0; r < rows; ++r) std::memcpy(to + r * Bytes, from + r * stride, Bytes);
}

void pack_rows(const char* from, char* to, Index rows, size_t bytes, size_t stride) {
  switch (bytes) {  // known sizes need no call a row
    case 6: return pack_rows<6>(from, to, rows, stride);
    case 12: return pack_rows<12>(from, to, rows, stride);
    case 16: return pack_rows<16>(from, to, rows, stride);
    case 24: return pack_rows<24>(from, to, rows, stride);
    case 32: return pack_rows<32>(from, to, rows, stride);
    case 48: return pack_rows<48>(from, to, rows, stride);
    case 64: return pack_rows<64>(from, to, rows, stride);
    case 96: return pack_rows<96>(from, to, rows, stride);
    default:
      for (Index r = 0; r < rows; ++r) std::memcpy(to + r * bytes, from + r * stride, bytes);
  }
}

// A tensor that is read; `stride` elements lie between two rows.
template <class T>
struct Source {
  const T* data;
  Index stride;

  // The elements begin..end as if rows lay side by side: in place if they do, else in `buffer`.
  const T* tile(const Cut& cut, Index begin, Index end, Memory<T>& buffer) const {
    if (stride == cut.channels) return data + begin;
    buffer.resize(cut.tile);
    const Index rows = (end - begin) / cut.channels;
    pack_rows(reinterpret_cast<const char*>(data + begin / cut.channels * stride),
              reinterpret_cast<char*>(buffer.data()), rows, cut.channels * sizeof(T),
              stride * sizeof(T));
    return buffer.data();
  }
};

// Calls `body(x, other, at, n)` for every period in begin..end of two tensors: where it lies in
// each, its first element's number, its length. `next_tile` is called before each tile.
template <class T, class NextTile, class Body>
void over_periods(const Cut& cut, Source<T> x, Source<T> other, Index part_begin, Index part_end,
                  NextTile next_tile, Body body) {
  Memory<T> x_buffer, other_buffer;
  for (Index begin = part_begin; begin < part_end; begin += cut.tile) {
    const Index end = std::min(begin + cut.tile, part_end);
    const T* x_tile = x.tile(cut, begin, end, x_buffer);
    const T* other_tile = other.tile(cut, begin, end, other_buffer);
    next_tile();
    for (Index i = 0; i < end - begin; i += cut.period)
      body(x_tile + i, other_tile + i, begin + i, std::min(cut.period, end - begin - i));
  }
}

// Two sums for each channel: `body(x, other, n, first, second)` adds a period of two tensors to
// `period` floats each.
template <class T, class Body>
void sum_channels(const Cut& cut, Source<T> x, Source<T> other, int threads, Doubles& first_C,
                  Doubles& second_C, Body body) {
  const Index c = cut.channels, period = cut.period;
  Doubles sums(2 * c * cut.parts, 0.0);
  cut.over_parts(threads, [&](Index p, Index part_begin, Index part_end) {
    Floats tile(2 * period, 0.f);
    Doubles part(2 * period, 0.0);
    const auto add_tile = [&] {
      for (Index j = 0; j < 2 * period; ++j) part[j] += tile[j];
      std::fill(tile.begin(), tile.end(), 0.f);
    };
    over_periods(cut, x, other, part_begin, part_end, add_tile,
                 [&](const T* x_row, const T* other_row, Index, Index n) {
                   body(x_row, other_row, n, tile.data(), tile.data() + period);
                 });
    add_tile();
    double* of_part = sums.data() + 2 * c * p;
    for (Index at = 0; at < period; at += c)
      for (Index j = 0; j < c; ++j) {
        of_part[j] += part[at + j];
        of_part[c + j] += part[period + at + j];
      }
  });
  first_C.assign(c, 0.0);
  second_C.assign(c, 0.0);
  for (Index p = 0; p < cut.parts; ++p)
    for (Index j = 0; j < c; ++j) {
      first_C[j] += sums[2 * c * p + j];
      second_C[j] += sums[2 * c * p + c + j];
    }
}

// Fills a tensor: `body(x, other, to, n)` makes a period of it from one of two tensors each.
template <class T, class Body>
void fill(const Cut& cut, Source<T> x, Source<T> other, T* to, int threads, Body body) {
  cut.over_parts(threads, [&](Index, Index part_begin, Index part_end) {
    over_periods(cut, x, other, part_begin, part_end, [] {},
                 [&](const T* x_row, const T* other_row, Index at, Index n) {
                   body(x_row, other_row, to + at, n);
                 });
  });
}

// Mean and biased variance of each channel. Squares are of distances to the mean of the first
// tile. That is a mean of n of the R samples, so its squared distance to the overall mean is at
// most R/n times the variance, and the difference of the two sums loses no more than that.
template <class T>
void moments(const Cut& cut, Source<T> x, int threads, Doubles& mean_C, Doubles& variance_C) {
  const Index rows = cut.size / cut.channels;
  Doubles near_C(cut.channels, 0.0);
  {
    Memory<T> buffer;
    const Index end = cut.end_of(0, cut.tile);
    const T* first = x.tile(cut, 0, end, buffer);
    for (Index begin = 0; begin < end; begin += cut.channels)
      for (Index j = 0; j < cut.channels; ++j) near_C[j] += widened(first[begin + j]);
    for (double& near : near_C) near = static_cast<float>(near / (end / cut.channels));
  }
  const Floats all_near = cut.laid_out([&](Index j) { return near_C[j]; });
  const float* near = all_near.data();
  sum_channels(cut, x, x, threads, mean_C, variance_C,
               [=](const T* __restrict x_row, const T*, Index n, float* __restrict first,
                   float* __restrict second) {
#pragma omp simd
                 for (Index j = 0; j < n; ++j) {
                   const float distance = widened(x_row[j]) - near[j];
                   first[j] += distance;
                   second[j] += distance * distance;
                 }
               });
  for (Index j = 0; j < cut.channels; ++j) {
    const double distance = mean_C[j] / rows;
    mean_C[j] = near_C[j] + distance;
    variance_C[j] = std::max(0.0, variance_C[j] / rows - distance * distance);
  }
}

// The parameters as often as a period has rows, and v.
struct Affine {
  Floats mean, scale, bias;

  Affine(const Cut& cut, const float* statistics, const float* weight, const float* bias_C)
      : mean(cut.laid_out([&](Index j) { return statistics[j]; })),
        scale(cut.laid_out([&](Index j) { return statistics[cut.channels + j] * weight[j]; })),
        bias(cut.laid_out([&](Index j) { return bias_C[j]; })) {}
};

template <class T>
void forward(Source<T> x, T* y, Index rows, Index channels, const float* weight, const float* bias,
             float* running_mean, float* running_variance, double momentum, double epsilon,
             float* statistics, int threads) {
  const Cut cut(rows, channels);
  Doubles mean_C, variance_C;
  moments(cut, x, threads, mean_C, variance_C);
  for (Index j = 0; j < channels; ++j) {
    statistics[j] = static_cast<float>(mean_C[j]);
    statistics[channels + j] = static_cast<float>(1 / std::sqrt(variance_C[j] + epsilon));
    const double unbiased = variance_C[j] * rows / (rows - 1);
    running_mean[j] = static_cast<float>((1 - momentum) * running_mean[j] + momentum * mean_C[j]);
    running_variance[j] =
        static_cast<float>((1 - momentum) * running_variance[j] + momentum * unbiased);
  }
  const Affine affine(cut, statistics, weight, bias);
  const float *mean = affine.mean.data(), *scale = affine.scale.data(), *shift = affine.bias.data();
  fill(cut, x, x, y, threads, [=](const T* __restrict x_row, const T*, T* __restrict to, Index n) {
#pragma omp simd
    for (Index j = 0; j < n; ++j) {
      const float v = (widened(x_row[j]) - mean[j]) * scale[j] + shift[j];
      to[j] = narrowed<T>(v <= 0.f ? 0.f : v);  // NaN stays
    }
  });
}

template <class T>
void backward(Source<T> x, Source<T> gradient, T* to_x, Index rows, Index channels,
              const float* weight, const float* bias, const float* statistics,
              float* to_parameters, int threads) {
  const Cut cut(rows, channels);
  const Affine affine(cut, statistics, weight, bias);
  const float *mean = affine.mean.data(), *scale = affine.scale.data(), *shift = affine.bias.data();
  Doubles sum_C, with_x_C;  // of g, of g (x - mean)
  sum_channels(cut, x, gradient, threads, sum_C, with_x_C,
               [=](const T* __restrict x_row, const T* __restrict g_row, Index n,
                   float* __restrict first, float* __restrict second) {
#pragma omp simd
                 for (Index j = 0; j < n; ++j) {
                   const float centred = widened(x_row[j]) - mean[j];
                   const float v = centred * scale[j] + shift[j];
                   const float g = v <= 0.f ? 0.f : widened(g_row[j]);
                   first[j] += g;
                   second[j] += g * centred;
                 }
               });
  for (Index j = 0; j < channels; ++j) {
    to_parameters[j] = static_cast<float>(with_x_C[j] * statistics[channels + j]);
    to_parameters[channels + j] = static_cast<float>(sum_C[j]);
  }
  const Floats all_mean_g = cut.laid_out([&](Index j) { return sum_C[j] / rows; });
  const Floats all_slope = cut.laid_out([&](Index j) {
    const double invstd = statistics[channels + j];
    return with_x_C[j] * invstd * invstd / rows;
  });
  const float *mean_g = all_mean_g.data(), *slope = all_slope.data();
  fill(cut, x, gradient, to_x, threads,
       [=](const T* __restrict x_row, const T* __restrict g_row, T* __restrict to, Index n) {
#pragma omp simd
         for (Index j = 0; j < n; ++j) {
           const float centred = widened(x_row[j]) - mean[j];
           const float v = centred * scale[j] + shift[j];
           const float g = v <= 0.f ? 0.f : widened(g_row[j]);
           to[j] = narrowed<T>(scale[j] * (g - mean_g[j] - centred * slope[j]));
         }
       });
}

template <class T>
void tangent(Source<T> x, Source<T> of_x, T* of_y, Index rows, Index channels, const float* weight,
             const float* bias, const float* of_weight, const float* of_bias,
             const float* statistics, int threads) {
  const Cut cut(rows, channels);
  const Affine affine(cut, statistics, weight, bias);
  const float *mean = affine.mean.data(), *scale = affine.scale.data(), *shift = affine.bias.data();
  Doubles sum_C, with_x_C;  // of t, of t (x - mean)
  sum_channels(cut, x, of_x, threads, sum_C, with_x_C,
               [=](const T* __restrict x_row, const T* __restrict t_row, Index n,
                   float* __restrict first, float* __restrict second) {
#pragma omp simd
                 for (Index j = 0; j < n; ++j) {
                   const float t = widened(t_row[j]);
                   first[j] += t;
                   second[j] += t * (widened(x_row[j]) - mean[j]);
                 }
               });
  // dv = scale * t + (x - mean) * slope + rest
  const Floats all_slope = cut.laid_out([&](Index j) {
    const double invstd = statistics[channels + j];
    return of_weight[j] * invstd - weight[j] * with_x_C[j] * invstd * invstd * invstd / rows;
  });
  const Floats all_rest = cut.laid_out([&](Index j) {
    return of_bias[j] - weight[j] * static_cast<double>(statistics[channels + j]) * sum_C[j] / rows;
  });
  const float *slope = all_slope.data(), *rest = all_rest.data();
  fill(cut, x, of_x, of_y, threads,
       [=](const T* __restrict x_row, const T* __restrict t_row, T* __restrict to, Index n) {
#pragma omp simd
         for (Index j = 0; j < n; ++j) {
           const float centred = widened(x_row[j]) - mean[j];
           const float v = centred * scale[j] + shift[j];
           const float dv = widened(t_row[j]) * scale[j] + centred * slope[j] + rest[j];
           to[j] = narrowed<T>(v <= 0.f ? 0.f : dv);
         }
       });
}

}  // namespace

#define OPERATOR(T, NAME)                                                                         \
  void forward_##NAME(const T* x, T* y, int64_t rows, int64_t channels, const float* weight,      \
                      const float* bias, float* running_mean, float* running_variance,            \
                      double momentum, double epsilon, float* statistics, int threads) {          \
    forward<T>({x, channels}, y, rows, channels, weight, bias, running_mean, running_variance,    \
               momentum, epsilon, statistics, threads);                                           \
  }                                                                                               \
  void backward_##NAME(const T* x, const T* gradient, int64_t stride, T* to_x, int64_t rows,      \
                       int64_t channels, const float* weight, const float* bias,                  \
                       const float* statistics, float* to_parameters, int threads) {              \
    backward<T>({x, channels}, {gradient, stride}, to_x, rows, channels, weight, bias,            \
                statistics, to_parameters, threads);                                              \
  }                                                                                               \
  void tangent_##NAME(const T* x, const T* of_x, int64_t stride, T* of_y, int64_t rows,           \
                      int64_t channels, const float* weight, const float* bias,                   \
                      const float* of_weight, const float* of_bias, const float* statistics,      \
                      int threads) {                                                              \
    tangent<T>({x, channels}, {of_x, stride}, of_y, rows, channels, weight, bias, of_weight,      \
               of_bias, statistics, threads);                                                     \
  }

extern "C" {
OPERATOR(float, float32)
OPERATOR(Bf16, bfloat16)
}
