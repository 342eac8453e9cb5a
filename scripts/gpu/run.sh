#!/usr/bin/env bash
# On a machine with an NVIDIA GPU, in the folder that `npm run gpu:pack` made: builds the CUDA backend
# and proves it on the card. Needs a CUDA toolkit with cuBLAS and cuDNN (those of a Python environment
# do), CMake and a C++17 compiler unless the addon came along; PyTorch for the comparison. No network,
# no Node.js.
#   bash run.sh [STAGE…]    facts build selftest suite examples sanitizers bench report (default: all)
# A stage that has passed is not run again (RERUN=1 runs it); each takes less than 8 minutes
# (LIMIT=SECONDS). Logs and the report lie in OUT (default: results, in this folder).
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=${ADJOINT_GPU_WORK:-$here/work}
out=${OUT:-$here/results}
limit=${LIMIT:-470}
mkdir -p "$work" "$out"

unpack() {
  local archive
  for archive in node sources packages prebuilt; do
    [ -f "$here/$archive.tar.xz" ] || continue
    [ "$work/.$archive" -nt "$here/$archive.tar.xz" ] && continue
    tar -xJf "$here/$archive.tar.xz" -C "$work" && touch "$work/.$archive" || return 1
  done
  if [ -f "$work/adjoint_cuda.node" ]; then
    mkdir -p "$work/build/Release" && cp "$work/adjoint_cuda.node" "$work/build/Release/"
  fi
}

python=${ADJOINT_PYTHON:-$(python3 -c 'import sys; print(sys.executable)' 2>/dev/null)}
export ADJOINT_PYTHON=$python ADJOINT_TEST_CUDA=real PATH=$work:$PATH CI=true

facts() {
  nvidia-smi --query-gpu=name,driver_version,memory.total,compute_cap --format=csv,noheader || return 1
  nvcc --version 2>/dev/null | tail -n 1
  "$python" -c 'import torch; print("PyTorch", torch.__version__)' 2>/dev/null
  node --version
  node dist/cli/main.js doctor
  # The card, not only a driver.
  ADJOINT_DEVICE=cuda node -e "
    const { tensor, device } = require('./dist/index.js')
    const x = tensor([1, 2, 3], { device: 'cuda' })
    const y = x.reshape([3, 1]).matmul(x.reshape([1, 3]))
    if (y.toArray().flat().join() !== '1,2,3,2,4,6,3,6,9') throw new Error(String(y.toArray()))
    console.log('tensors on', String(y.device))"
}

build() {
  if [ -f "$work/.prebuilt" ] && [ "${REBUILD:-0}" = 0 ]; then
    echo 'the addon and the self-test came with the pack'
    return 0
  fi
  cmake -S . -B build/gpu -DCMAKE_BUILD_TYPE=Release -DADJOINT_SELFTEST=ON -DADJOINT_CUDA=ON &&
    cmake --build build/gpu --parallel --target adjoint_cuda selftest_cuda &&
    cp build/gpu/Release/adjoint_cuda.node build/Release/ && cp build/gpu/selftest_cuda .
}

selftest() { ./selftest_cuda --gtest_brief=1; }

suite() { node node_modules/vitest/vitest.mjs run --config vitest.cuda.config.mts --maxWorkers "${WORKERS:-8}"; }

# Every kernel of the self-test again, its memory and its barriers watched.
sanitizers() {
  local tool status=0
  command -v compute-sanitizer >/dev/null || { echo 'no compute-sanitizer here'; return 1; }
  for tool in memcheck racecheck initcheck synccheck; do
    echo "== $tool"
    compute-sanitizer --tool "$tool" --error-exitcode 9 --print-limit 20 \
      ./selftest_cuda --gtest_brief=1 ${SANITIZER_FILTER:+--gtest_filter=$SANITIZER_FILTER} || status=1
  done
  return $status
}

examples() {
  local status=0
  ADJOINT_DEVICE=cuda node --import tsx examples/digits.mts --check --out "$out/digits" || status=1
  return $status
}

bench() {
  node --import tsx bench/gpu/run.mts --json "$out/gpu.json" ${BENCH_FILTER:+--filter "$BENCH_FILTER"}
}

report() { node scripts/gpu/report.mjs "$out"; }

unpack || exit 1
cd "$work" || exit 1
passed=0
failed=0
for stage in ${*:-facts build selftest suite examples sanitizers bench report}; do
  if [ -f "$out/$stage.passed" ] && [ "${RERUN:-0}" = 0 ]; then
    passed=$((passed + 1))
    continue
  fi
  started=$SECONDS
  export -f "$stage"
  export work out python
  timeout --kill-after=10 "$limit" bash -c "$stage" >"$out/$stage.log" 2>&1 </dev/null
  status=$?
  seconds=$((SECONDS - started))
  if [ $status -eq 0 ]; then
    passed=$((passed + 1))
    echo "$seconds" >"$out/$stage.passed"
    printf 'ok      %-12s %4d s\n' "$stage" $seconds
  else
    failed=$((failed + 1))
    rm -f "$out/$stage.passed"
    printf 'FAILED  %-12s %4d s\n' "$stage" $seconds
    tail -n "${LINES_OF_LOG:-40}" "$out/$stage.log" | sed 's/^/    /'
  fi
done
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
