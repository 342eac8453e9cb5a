// Stackful coroutines: one thread of a CUDA block that waits at a barrier keeps its stack here.
#pragma once
#include <cstddef>

#if defined(__x86_64__) && !defined(ADJOINT_PORTABLE)
#define ADJOINT_FIBER_ASSEMBLY 1
#else
#include <ucontext.h>
#endif

namespace adjoint::emulation {

// Control passes only between the host (the thread that runs a block) and a fiber, never from
// fiber to fiber, so a fiber always knows whom to return to.
class Fiber {
 public:
  explicit Fiber(void (*body)());
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Host side: runs the fiber until it calls suspend().
  void resume();
  // Fiber side: back to the host.
  static void suspend();
  // Forgets whatever the fiber was doing; the next resume() starts `body` anew. No destructor of
  // its frames runs.
  void restart();
  // Whether `p` lies on the stack of the fiber that runs now.
  static bool isOnStack(const void* p);

 private:
  [[noreturn]] static void entry();

  void (*body_)();
  char* mapping_;  // guard page, then the stack
  char* stack_;
  void* fakeStack_ = nullptr;  // AddressSanitizer's, kept across a switch
#if defined(ADJOINT_FIBER_ASSEMBLY)
  void* stackPointer_ = nullptr;
#else
  ucontext_t context_;
#endif
};

}  // namespace adjoint::emulation
