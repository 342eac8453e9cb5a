// contract.h's device: what the CPU backend says about itself, and its threads.
#include <chrono>

#include "contract.h"
#include "cpu/features.h"
#include "cpu/os.h"
#include "cpu/pool.h"
#include "cpu/simd.h"

namespace adjoint::backend {
namespace {

std::string supportedSimdLevels() {
  std::string levels;
  for (int i = 0; i < cpu::kSimdLevels; i++) {
    const auto level = static_cast<cpu::SimdLevel>(i);
    if (!cpu::isSimdLevelSupported(level)) continue;
    levels += (levels.empty() ? "" : " ") + std::string(cpu::simdLevelName(level));
  }
  return levels;
}

// doctor must be able to report a bad ADJOINT_SIMD rather than fail on it.
std::string chosenSimdLevel() {
  try {
    return cpu::simdLevelName(cpu::simdLevel());
  } catch (const Error& error) {
    return std::string("none: ") + error.what();
  }
}

std::string usedFeatures() {
  std::string features;
  try {
    for (int i = 0; i < cpu::kFeatures; i++) {
      const auto feature = static_cast<cpu::Feature>(i);
      if (!cpu::hasFeature(feature)) continue;
      features += (features.empty() ? "" : " ") + std::string(cpu::featureName(feature));
    }
  } catch (const Error&) {
    // a bad ADJOINT_SIMD, which the line above reports
  }
  return features.empty() ? "none" : features;
}

std::string mebibytes(size_t bytes) {
  return bytes == 0 ? "unknown" : std::to_string(bytes >> 20) + " MiB";
}

std::string orUnknown(const std::string& text) {
  return text.empty() ? "unknown" : text;
}

}  // namespace

const char* name() {
  return "cpu";
}

std::vector<std::pair<std::string, std::string>> deviceInfo() {
  return {
      {"processor", orUnknown(cpu::os::processorName())},
      {"features", orUnknown(cpu::os::processorFeatures())},
      {"simd", chosenSimdLevel()},
      {"simd supported", supportedSimdLevels()},
      {"simd features", usedFeatures()},
      {"threads", std::to_string(cpu::poolThreads()) + " (" + cpu::poolThreadsWhy() + ")"},
      {"memory", mebibytes(cpu::os::memoryLimit())},
      {"system calls", cpu::os::name()},
  };
}

int threadCount() {
  return cpu::poolThreads();
}
// Every kernel is.
void setDeterministicAlgorithms(bool) {}
void setThreadCount(int n) {
  cpu::setPoolThreads(n);
}
// Its kernels want the pixels of a channel side by side.
bool convolvesChannelsLast(DType) {
  return false;
}

// Threads start with the first parallel call and pages are mapped with the first tensor.
void startup() {}

void shutdown() {
  cpu::stopPool();
  trimCache();
}

int deviceCount() {
  return 1;
}
void useDevice(int device) {
  if (device != 0) fail(ErrorKind::device, "cpu: expected device 0, got %d", device);
}

// Work is done when a call returns.
void synchronize() {}
bool canCapture() {
  return true;
}
// Calls run at once, so there is nothing to keep but their rows.
Graph* beginGraph() {
  return nullptr;
}
void renewGraph(Graph*) {}
void endGraph(Graph*) {}
size_t changingValues(const Graph*) {
  return 0;
}
void launchGraph(Graph*) {}
void releaseGraph(Graph*) {}

// Nanoseconds of the clock.
Moment mark() {
  return static_cast<Moment>(std::chrono::steady_clock::now().time_since_epoch() /
                             std::chrono::nanoseconds(1));
}
std::vector<double> elapsed(const std::vector<Moment>& moments) {
  std::vector<double> times;
  for (Moment m : moments) times.push_back(static_cast<double>(m - moments.front()) * 1e-6);
  return times;
}

}  // namespace adjoint::backend
