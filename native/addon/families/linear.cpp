#include "../call.h"

namespace adjoint {
namespace {

// An output where the flag before it says so.
const View* wanted(Call& c) {
  return c.flag() ? &c.output() : nullptr;
}

const Family family({
    {"linear",
     [](Call& c) {
       const View& x = c.input();
       const View& w = c.input();
       const View* bias = c.optionalInput();
       const View& y = c.output();
       const View* kept = wanted(c);
       backend::linear(y, kept, x, w, bias, c.opcode<Activation>());
     }},
    {"linearBackward",
     [](Call& c) {
       backend::LinearBackwardArgs a;
       a.dy = c.input();
       a.x = c.optionalInput();
       a.w = c.optionalInput();
       a.kept = c.optionalInput();
       a.below.kept = c.optionalInput();
       a.dx = wanted(c);
       a.dw = wanted(c);
       a.dbias = wanted(c);
       a.below.dbias = wanted(c);
       a.activation = c.opcode<Activation>();
       a.below.activation = c.opcode<Activation>();
       backend::linearBackward(a);
     }},
});

}  // namespace
}  // namespace adjoint
