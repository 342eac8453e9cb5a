#include "../call.h"

namespace adjoint {
namespace {

const Family family({
    {"matmul",
     [](Call& c) {
       const View& a = c.input();
       const View& b = c.input();
       const View* bias = c.optionalInput();
       backend::matmul(c.output(), a, b, bias);
     }},
});

}  // namespace
}  // namespace adjoint
