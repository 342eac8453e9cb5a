#include "../call.h"

namespace adjoint {
namespace {

const Family family({
    {"gather",
     [](Call& c) {
       const View& x = c.input();
       const View& index = c.input();
       const View& y = c.output();
       backend::gather(y, x, index, c.axis(x.ndim));
     }},
    {"scatterAdd",
     [](Call& c) {
       const View& index = c.input();
       const View& source = c.input();
       const View& y = c.inPlace();
       backend::scatterAdd(y, index, source, c.axis(y.ndim));
     }},
    {"indexSelect",
     [](Call& c) {
       const View& x = c.input();
       const View& index = c.input();
       const View& y = c.output();
       backend::indexSelect(y, x, index, c.axis(x.ndim));
     }},
    {"indexAdd",
     [](Call& c) {
       const View& index = c.input();
       const View& source = c.input();
       const View& y = c.inPlace();
       backend::indexAdd(y, index, source, c.axis(y.ndim));
     }},
    {"accumulateOverlapping",
     [](Call& c) {
       const View& x = c.input();
       backend::accumulateOverlapping(c.overlapping(), x);
     }},
});

}  // namespace
}  // namespace adjoint
