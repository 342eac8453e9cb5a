#include "../call.h"

namespace adjoint {
namespace {

// x, weights, biases; the state is read by the kernel, since only an LSTM has cells.
backend::RecurrentInputs readLayer(Call& c) {
  backend::RecurrentInputs in;
  in.x = c.input();
  in.wIh = c.input();
  in.wHh = c.input();
  in.bIh = c.optionalInput();
  in.bHh = c.optionalInput();
  in.h0 = c.optionalInput();
  in.c0 = nullptr;
  return in;
}

const Family family({
    {"lstm",
     [](Call& c) {
       backend::RecurrentInputs in = readLayer(c);
       in.c0 = c.optionalInput();
       backend::LstmOutputs out;
       out.y = c.output();
       out.c = c.output();
       out.gates = c.output();
       out.cells = c.output();
       in.reverse = c.flag();
       backend::lstm(out, in);
     }},
    {"lstmBackward",
     [](Call& c) {
       const View* dy = c.optionalInput();
       const View* dc = c.optionalInput();
       const View& wHh = c.input();
       const View* c0 = c.optionalInput();
       const View& gates = c.input();
       const View& cells = c.input();
       backend::LstmGradients out;
       out.dgates = c.output();
       out.dh0 = c.output();
       out.dc0 = c.output();
       out.dbias = c.output();
       backend::lstmBackward(out, dy, dc, wHh, c0, gates, cells, c.flag());
     }},
    {"gru",
     [](Call& c) {
       backend::RecurrentInputs in = readLayer(c);
       const View& y = c.output();
       const View& gates = c.output();
       in.reverse = c.flag();
       backend::gru(y, gates, in);
     }},
    {"gruBackward",
     [](Call& c) {
       const View* dy = c.optionalInput();
       const View& wHh = c.input();
       const View* h0 = c.optionalInput();
       const View& gates = c.input();
       const View& y = c.input();
       backend::GruGradients out;
       out.dgates = c.output();
       out.dh0 = c.output();
       out.dbias = c.output();
       backend::gruBackward(out, dy, wHh, h0, gates, y, c.flag());
     }},
});

}  // namespace
}  // namespace adjoint
