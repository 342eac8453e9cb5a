#include "../call.h"

namespace adjoint {
namespace {

backend::Conv2dShape shape(Call& c) {
  backend::Conv2dShape s;
  s.strideH = c.integer();
  s.strideW = c.integer();
  s.padH = c.integer();
  s.padW = c.integer();
  s.dilationH = c.integer();
  s.dilationW = c.integer();
  s.groups = c.integer();
  return s;
}

const Family family({
    {"conv2d",
     [](Call& c) {
       const View& x = c.input();
       const View& w = c.input();
       const View* bias = c.optionalInput();
       const View& y = c.output();
       const backend::Conv2dShape s = shape(c);
       backend::conv2d(y, x, w, bias, s, c.flag());
     }},
    {"conv2dBackwardInput",
     [](Call& c) {
       const View& dy = c.input();
       const View& w = c.input();
       const View& dx = c.output();
       backend::conv2dBackwardInput(dx, dy, w, shape(c));
     }},
    {"conv2dBackwardWeight",
     [](Call& c) {
       const View& dy = c.input();
       const View& x = c.input();
       const View& dw = c.output();
       backend::conv2dBackwardWeight(dw, dy, x, shape(c));
     }},
    {"conv2dBackwardParameters",
     [](Call& c) {
       const View& dy = c.input();
       const View& x = c.input();
       const View* y = c.optionalInput();
       const View& dw = c.output();
       const View& dbias = c.output();
       backend::conv2dBackwardParameters(dw, dbias, dy, x, y, shape(c));
     }},
});

}  // namespace
}  // namespace adjoint
