// Runs every pass over many shapes, with buffers that end where the tensors do.
#include "kernels.cpp"

namespace {

template <class T>
void fill_with(std::vector<T>& values, Index seed) {
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = narrowed<T>(static_cast<float>((i + 1) * seed % 1009) / 500 - 1);
}

template <class T>
void run(Index rows, Index channels, Index wider, int threads) {
  const Index stride = channels + wider;
  std::vector<T> x(rows * channels), y(x), to_x(x);
  // the last row of a slice ends before the last element of the tensor that it is part of
  std::vector<T> slice((rows - 1) * stride + channels);
  fill_with(x, 7919);
  fill_with(slice, 104729);
  Floats weight(channels, 1.5f), bias(channels, 0.1f), mean(channels), variance(channels);
  Floats statistics(2 * channels), to_parameters(2 * channels);
  forward<T>({x.data(), channels}, y.data(), rows, channels, weight.data(), bias.data(),
             mean.data(), variance.data(), 0.1, 1e-5, statistics.data(), threads);
  backward<T>({x.data(), channels}, {slice.data(), stride}, to_x.data(), rows, channels,
              weight.data(), bias.data(), statistics.data(), to_parameters.data(), threads);
  tangent<T>({x.data(), channels}, {slice.data(), stride}, y.data(), rows, channels,
             weight.data(), bias.data(), bias.data(), weight.data(), statistics.data(), threads);
}

}  // namespace

int main() {
  for (Index channels : {1, 2, 3, 6, 7, 12, 16, 24, 48, 58, 116, 130, 1001})
    for (Index rows : {2, 3, 50, 2001})
      for (Index wider : {0, 5})
        for (int threads : {1, 3}) {
          run<float>(rows, channels, wider, threads);
          run<Bf16>(rows, channels, wider, threads);
        }
}
