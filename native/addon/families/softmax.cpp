#include "../call.h"

namespace adjoint {
namespace {

const Family family({
    {"softmax",
     [](Call& c) {
       View x = c.input();
       View y = c.output();
       int axis = c.axis(x.ndim);
       backend::softmax(y, x, axis, c.flag());
     }},
    {"softmaxBackward",
     [](Call& c) {
       View dy = c.input(), y = c.input();
       View dx = c.output();
       int axis = c.axis(y.ndim);
       backend::softmaxBackward(dx, dy, y, axis, c.flag());
     }},
});

}  // namespace
}  // namespace adjoint
