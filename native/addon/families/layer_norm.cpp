#include "../call.h"

namespace adjoint {
namespace {

const Family family({
    {"layerNorm",
     [](Call& c) {
       backend::LayerNormArgs a;
       a.x = c.input();
       a.weight = c.optionalInput();
       a.bias = c.optionalInput();
       a.y = c.output();
       a.mean = &c.output();
       a.rstd = c.output();
       a.eps = c.number();
       backend::layerNorm(a);
     }},
    {"layerNormBackward",
     [](Call& c) {
       backend::LayerNormBackwardArgs a;
       a.dy = c.input();
       a.x = c.input();
       a.weight = c.optionalInput();
       a.mean = &c.input();
       a.rstd = c.input();
       a.dx = c.output();
       a.dweight = c.output();
       a.dbias = &c.output();
       backend::layerNormBackward(a);
     }},
    {"rmsNorm",
     [](Call& c) {
       backend::LayerNormArgs a;
       a.x = c.input();
       a.weight = c.optionalInput();
       a.y = c.output();
       a.rstd = c.output();
       a.mean = a.bias = nullptr;
       a.eps = c.number();
       backend::layerNorm(a);
     }},
    {"rmsNormBackward",
     [](Call& c) {
       backend::LayerNormBackwardArgs a;
       a.dy = c.input();
       a.x = c.input();
       a.weight = c.optionalInput();
       a.rstd = c.input();
       a.dx = c.output();
       a.dweight = c.output();
       a.mean = a.dbias = nullptr;
       backend::layerNormBackward(a);
     }},
});

}  // namespace
}  // namespace adjoint
