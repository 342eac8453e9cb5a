import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    // A process per file: an addon that crashes takes only its own file along.
    pool: 'forks',
    maxWorkers: 2,
    include: ['test/**/*.test.ts'],
    testTimeout: 30_000,
  },
})
