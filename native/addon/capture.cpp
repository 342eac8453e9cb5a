// Recording a step and running it again (recording.h).
#include "call.h"
#include "exports.h"

namespace adjoint {
namespace {

// beginCapture(refuses): what is called from now on is recorded; or, with `refuses`, is an error,
// since the step is recorded on another device.
Napi::Value beginCapture(Environment& e, const Napi::CallbackInfo& info) {
  bool refuses = info[0].ToBoolean().Value();
  if (!refuses && !backend::canCapture()) {
    fail(ErrorKind::capture, "capture: expected a device that can record a step, got %s",
         deviceName(e.device).c_str());
  }
  if (e.recorder) fail(ErrorKind::capture, "capture: expected one recording at a time");
  e.recorder = std::make_unique<Recorder>(e.storages, refuses, e.device);
  return info.Env().Undefined();
}

// cancelCapture(): forgets what was recorded.
Napi::Value cancelCapture(Environment& e, const Napi::CallbackInfo& info) {
  e.recorder.reset();
  return info.Env().Undefined();
}

// endCapture(owner): a handle to the recording, which lives as long as its owner.
Napi::Value endCapture(Environment& e, const Napi::CallbackInfo& info) {
  if (!e.recorder) fail(ErrorKind::internal, "endCapture: expected a recording");
  // What the step has made and dropped is garbage by now; only what is left then must stay where
  // it is.
  e.reclaimer.collectAll();
  std::unique_ptr<Recorder> recorder = std::move(e.recorder);
  std::unique_ptr<Recording> recording = recorder->finish(e);
  return Napi::Number::New(info.Env(), e.table.addRecording(info[0], std::move(recording)));
}

// replay(length, handle): the words hold a count and as many pairs of a tensor and the one that
// takes over its values; then a count and as many pairs of a slot and its value. Then the step
// runs.
napi_value replay(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  size_t count = 2;
  void* data = nullptr;
  napi_get_cb_info(env, info, &count, arguments, nullptr, &data);
  Environment& e = *static_cast<Environment*>(data);
  return guarded(e, [&]() -> napi_value {
    int32_t length = 0, handle = 0;
    if (count < 2 || napi_get_value_int32(env, arguments[0], &length) != napi_ok ||
        napi_get_value_int32(env, arguments[1], &handle) != napi_ok || length < 1 ||
        static_cast<size_t>(length) > e.wordCapacity) {
      fail(ErrorKind::internal, "replay: expected a length within the word array and a handle");
    }
    e.refuseWhileCapturing("capture", "another captured step");
    Recording& recording = e.table.recording(handle);
    recording.checkLive();
    Call row(e, static_cast<size_t>(length), nullptr, 0);
    row.setName("capture");
    for (int64_t n = row.integer(); n > 0; n--) {
      const View& source = row.input();
      const View& target = row.inPlace();
      backend::copy(target, source);
    }
    for (int64_t n = row.integer(); n > 0; n--) {
      int64_t slot = row.integer();
      double value = row.number();
      if (slot < 0 || slot >= static_cast<int64_t>(e.slots.size())) {
        fail(ErrorKind::internal, "replay: expected a slot");
      }
      e.slots[static_cast<size_t>(slot)] = value;
    }
    recording.replay(e);
    return nullptr;
  });
}

// replayWay(handle): how replays run (Recording::way).
Napi::Value replayWay(Environment& e, const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), e.table.recording(handleAt(info, 0)).way());
}

}  // namespace

void exportCapture(Exports& exports) {
  exports.add<beginCapture>("beginCapture");
  exports.add<cancelCapture>("cancelCapture");
  exports.add<endCapture>("endCapture");
  exports.add("replay", replay);
  exports.add<replayWay>("replayWay");
}

}  // namespace adjoint
