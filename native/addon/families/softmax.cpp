#include "../call.h"

namespace adjoint {
namespace {

const Family family({
    {"softmax",
     [](Call& c) {
       const View& x = c.input();
       const View& y = c.output();
       int axis = c.axis(x.ndim);
       backend::softmax(y, x, axis, c.flag());
     }},
    {"softmaxBackward",
     [](Call& c) {
       const View& dy = c.input();
       const View& y = c.input();
       const View& dx = c.output();
       int axis = c.axis(y.ndim);
       backend::softmaxBackward(dx, dy, y, axis, c.flag());
     }},
});

}  // namespace
}  // namespace adjoint
