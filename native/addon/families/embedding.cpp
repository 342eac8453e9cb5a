#include "../call.h"

namespace adjoint {
namespace {

const Family family({
    {"embedding",
     [](Call& c) {
       const View& weight = c.input();
       const View& index = c.input();
       backend::embedding(c.output(), weight, index);
     }},
    {"embeddingBackward",
     [](Call& c) {
       const View& dy = c.input();
       const View& index = c.input();
       const View& dweight = c.output();
       backend::embeddingBackward(dweight, dy, index, c.integer());
     }},
});

}  // namespace
}  // namespace adjoint
