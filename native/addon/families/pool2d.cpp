#include "../call.h"

namespace adjoint {
namespace {

backend::Pool2dShape poolShape(Call& c) {
  backend::Pool2dShape s;
  s.kernelH = c.integer();
  s.kernelW = c.integer();
  s.strideH = c.integer();
  s.strideW = c.integer();
  s.padH = c.integer();
  s.padW = c.integer();
  s.dilationH = c.integer();
  s.dilationW = c.integer();
  return s;
}

const Family family({
    {"maxPool2d",
     [](Call& c) {
       const View& x = c.input();
       const View& y = c.output();
       const View& tap = c.output();
       backend::maxPool2d(y, tap, x, poolShape(c));
     }},
    {"maxPool2dBackward",
     [](Call& c) {
       const View& dy = c.input();
       const View& tap = c.input();
       const View& dx = c.output();
       backend::maxPool2dBackward(dx, dy, tap, poolShape(c));
     }},
    {"maxPool2dGather",
     [](Call& c) {
       const View& x = c.input();
       const View& tap = c.input();
       const View& y = c.output();
       backend::maxPool2dGather(y, x, tap, poolShape(c));
     }},
});

}  // namespace
}  // namespace adjoint
