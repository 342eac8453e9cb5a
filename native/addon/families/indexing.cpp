#include "../call.h"

namespace adjoint {
namespace {

const Family family({
    {"gather",
     [](Call& c) {
       View x = c.input(), index = c.input();
       View y = c.output();
       backend::gather(y, x, index, c.axis(x.ndim));
     }},
    {"scatterAdd",
     [](Call& c) {
       View index = c.input(), source = c.input();
       View y = c.inPlace();
       backend::scatterAdd(y, index, source, c.axis(y.ndim));
     }},
    {"indexSelect",
     [](Call& c) {
       View x = c.input(), index = c.input();
       View y = c.output();
       backend::indexSelect(y, x, index, c.axis(x.ndim));
     }},
    {"indexAdd",
     [](Call& c) {
       View index = c.input(), source = c.input();
       View y = c.inPlace();
       backend::indexAdd(y, index, source, c.axis(y.ndim));
     }},
    {"accumulateOverlapping",
     [](Call& c) {
       View x = c.input();
       backend::accumulateOverlapping(c.overlapping(), x);
     }},
});

}  // namespace
}  // namespace adjoint
