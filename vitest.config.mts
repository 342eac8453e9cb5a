import { configDefaults, defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    // A process per file: an addon that crashes takes only its own file along.
    pool: 'forks',
    // Not what the machine happens to have.
    env: { ADJOINT_DEVICE: process.env.ADJOINT_DEVICE ?? 'cpu' },
    maxWorkers: 2,
    // A compilation in the background holds what the loop it compiles had last for some
    // milliseconds, so the counts of live tensors would be off by a few now and then.
    execArgv: ['--no-concurrent-recompilation'],
    include: ['test/**/*.test.ts'],
    // `npm run test:cuda`
    exclude: [...configDefaults.exclude, 'test/cuda/**'],
    testTimeout: 30_000,
  },
})
