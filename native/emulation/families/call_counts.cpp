// For tests and benchmarks in TypeScript: kernels of the emulated addon alone.
#include <cstring>

#include "addon/call.h"
#include "emulation/emulation.h"

namespace adjoint {
namespace {

// callCounts: y [11] of int64 = the counts so far, in the order of the struct. Nothing is queued
// for it, so it counts nothing itself.
const Family family({
    {"callCounts",
     [](Call& c) {
       const View& y = c.output();
       const emulation::CallCounts counts = emulation::callCounts();
       if (y.dtype != DType::int64 || y.numel() * 8 != int64_t(sizeof counts)) {
         fail(ErrorKind::shape, "callCounts: expected %zu int64", sizeof counts / 8);
       }
       std::memcpy(y.data, &counts, sizeof counts);
     }},
    // nullRuntime: whether from now on nothing is run.
    {"nullRuntime", [](Call& c) { emulation::setNullRuntime(c.flag()); }},
    // attentionWasDeterministic: y [1] of bool = what the library was last told of a gradient.
    {"attentionWasDeterministic",
     [](Call& c) {
       const View& y = c.output();
       if (y.dtype != DType::boolean || y.numel() != 1) {
         fail(ErrorKind::shape, "attentionWasDeterministic: expected one bool");
       }
       *y.as<uint8_t>() = emulation::lastAttentionWasDeterministic;
     }},
});

}  // namespace
}  // namespace adjoint
