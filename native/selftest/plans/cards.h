// Cards that are not here, as cuDNN's descriptor of a device's properties reads them
// (CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION).
#pragma once
#include <cstdio>
#include <ostream>
#include <string>

namespace adjoint::test {

struct Card {
  const char* name;
  int capability, multiprocessors, sharedBytes, blocks, threads;  // the last three of one of them
  int64_t memoryBytes, l2Bytes;
  int busBits;

  std::string json() const {
    char text[1024];
    std::snprintf(text, sizeof text,
                  R"({"maxGridSize":[2147483647,65535,65535],"maxBlockSize":[1024,1024,64],)"
                  R"("regsPerBlock":65536,"multiProcessorCount":%d,"warpSize":32,)"
                  R"("maxSharedMemoryPerBlock":49152,"maxSharedMemoryPerBlockOptin":%d,)"
                  R"("reservedSharedMemoryPerBlock":1024,"maxRegistersPerSM":65536,)"
                  R"("maxCtasPerSM":%d,"maxThreadsPerBlock":1024,"maxThreadsPerSM":%d,)"
                  R"("pciDeviceId":0,"isTccDriver":0,"supportCoopLaunch":1,)"
                  R"("totalGlobalMem":%lld,"smClockRateKHz":1500000,"memClockRateKHz":2000000,)"
                  R"("memoryBusWidth":%d,"l2CacheSize":%lld,"cudaDeviceId":0,"deviceVer":%d,)"
                  R"("driverVer":13000,"deviceName":"%s"})",
                  multiprocessors, sharedBytes, blocks, threads,
                  static_cast<long long>(memoryBytes), busBits, static_cast<long long>(l2Bytes),
                  capability * 10, name);
    return text;
  }
};

inline std::ostream& operator<<(std::ostream& out, const Card& card) {
  return out << card.name;
}

constexpr Card kTuring = {"T4", 75, 40, 65536, 16, 1024, int64_t(15) << 30, int64_t(4) << 20, 256};
constexpr Card kAmpere = {"A100", 80, 108, 166912, 32, 2048, int64_t(40) << 30, int64_t(40) << 20,
                          5120};
constexpr Card kHopper = {"H100", 90, 132, 232448, 32, 2048, int64_t(80) << 30, int64_t(50) << 20,
                          5120};
constexpr Card kBlackwell = {
    "B200", 100, 148, 232448, 32, 2048, int64_t(180) << 30, int64_t(126) << 20, 8192};

}  // namespace adjoint::test
