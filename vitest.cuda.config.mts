import { defineConfig } from 'vitest/config'
import base from './vitest.config.mjs'

const isReal = process.env.ADJOINT_TEST_CUDA === 'real'
const rooms = ['autograd', 'core', 'data', 'io', 'nn', 'ops', 'optim']

// `npm run test:cuda`: the tests that name no device once more, with CUDA as the default one. That
// is the emulation, or with ADJOINT_TEST_CUDA=real the GPU. test/cuda compares the devices.
export default defineConfig({
  test: {
    ...base.test,
    // Those take minutes on the emulation; test/cuda/memory.test.ts has shorter loops.
    exclude: isReal ? [] : ['test/nn/pretrained.test.ts', 'test/memory/reclaim.test.ts'],
    setupFiles: ['test/support/default-device.ts'],
    include: [
      ...rooms.map((room) => `test/${room}/**/*.test.ts`),
      'test/train/trainer.test.ts',
      'test/memory/reclaim.test.ts',
      'test/bad-input*.test.ts',
    ],
  },
})
