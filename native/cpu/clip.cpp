// The norm of many gradients as one vector, and their clipping to it.
#include "cpu/kernels/clip.h"

#include <cmath>

#include "contract.h"
#include "cpu/multi_tensor.h"
#include "shared/convert.h"
#include "shared/norm.h"

namespace adjoint::cpu {
namespace {

const ClipKernels& kernelsFor(DType dtype) {
  if (!isFloating(dtype)) {
    fail(ErrorKind::dtype, "clip: expected gradients of a floating-point type, got %s",
         dtypeName(dtype));
  }
  return clipTable().byDType[static_cast<int>(dtype)];
}

// The parts are combined in the order of the blocks.
template <Norm kind>
double normOfParts(const std::vector<double>& parts, double p) {
  const Magnitudes<double, kind> magnitudes{p};
  double whole = 0;
  for (double part : parts) whole = magnitudes.combine(whole, part);
  return magnitudes.root(whole);
}

double normOfParts(const std::vector<double>& parts, double p) {
  switch (normOf(p)) {
    case Norm::largest:
      return normOfParts<Norm::largest>(parts, p);
    case Norm::sum:
      return normOfParts<Norm::sum>(parts, p);
    case Norm::squares:
      return normOfParts<Norm::squares>(parts, p);
    case Norm::powers:
      break;
  }
  return normOfParts<Norm::powers>(parts, p);
}

// min(1, limit / (norm + 1e-6))
template <class T>
double clippingFactor(const View& norm, double limit) {
  double value = 0;
  visitDType(norm.dtype,
             [&](auto tag) { value = convert<double>(*norm.as<typename decltype(tag)::type>()); });
  return minimumOf(static_cast<T>(limit) / (static_cast<T>(value) + T(1e-6)), T(1));
}

}  // namespace
}  // namespace adjoint::cpu

namespace adjoint::backend {

void totalNorm(const View& norm, const std::vector<View>& xs, double p) {
  using namespace cpu;
  const ClipKernels& kernels = kernelsFor(norm.dtype);
  const std::vector<int64_t> firstBlock = firstBlocks(xs);
  std::vector<double> parts(static_cast<size_t>(firstBlock.back()));
  forEachBlock(xs, firstBlock, [&](const View& x, int64_t begin, int64_t end, int64_t block) {
    parts[static_cast<size_t>(block)] = kernels.magnitude(at(x, begin), end - begin, p);
  });
  storeScalar(norm.data, norm.dtype, Scalar::of(normOfParts(parts, p)));
}

void clipToNorm(const std::vector<View>& xs, const View& norm, double limit) {
  using namespace cpu;
  if (xs.empty()) return;
  const ClipKernels& kernels = kernelsFor(xs[0].dtype);
  const double factor = xs[0].dtype == DType::float64 ? clippingFactor<double>(norm, limit)
                                                      : clippingFactor<float>(norm, limit);
  if (factor == 1) return;
  forEachBlock(xs, [&](const View& x, int64_t begin, int64_t end) {
    kernels.scale(at(x, begin), end - begin, factor);
  });
}

}  // namespace adjoint::backend
