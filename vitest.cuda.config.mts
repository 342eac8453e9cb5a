import { configDefaults, defineConfig } from 'vitest/config'
import base from './vitest.config.mjs'

const isReal = process.env.ADJOINT_TEST_CUDA === 'real'
const rooms = ['autograd', 'core', 'data', 'io', 'nn', 'ops', 'optim']
// Those take minutes on the emulation; test/cuda/memory.test.ts has shorter loops.
const tooLong = isReal ? [] : ['test/nn/pretrained.test.ts', 'test/memory/reclaim.test.ts']

// `npm run test:cuda`: on the emulation, or with ADJOINT_TEST_CUDA=real on the GPU.
export default defineConfig({
  test: {
    maxWorkers: base.test?.maxWorkers,
    projects: [
      {
        test: {
          ...base.test,
          name: 'beside the CPU',
          include: ['test/cuda/**/*.test.ts', 'test/cuda.test.ts', 'test/devices.test.ts'],
          exclude: configDefaults.exclude,
        },
      },
      {
        test: {
          ...base.test,
          // The tests that name no device once more.
          name: 'as the default device',
          setupFiles: ['test/support/default-device.ts'],
          include: [
            ...rooms.map((room) => `test/${room}/**/*.test.ts`),
            'test/train/trainer.test.ts',
            'test/memory/reclaim.test.ts',
            'test/bad-input*.test.ts',
          ],
          exclude: [...configDefaults.exclude, ...tooLong],
        },
      },
    ],
  },
})
