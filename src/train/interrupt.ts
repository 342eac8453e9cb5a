const SIGNALS = ['SIGINT', 'SIGTERM'] as const
// What a shell reports for a program ended by Ctrl-C: 128 + SIGINT.
const EXIT_CODE = 130

/**
 * Turns the first Ctrl-C (or SIGTERM) into a wish that the trainer grants after the batch under
 * way; the second ends the process at once. Handlers are in place from creation to `dispose`.
 */
export class Interrupt {
  private wished = false

  constructor(
    handleSignals: boolean,
    private readonly signal: AbortSignal | undefined,
  ) {
    if (handleSignals) for (const name of SIGNALS) process.on(name, this.handle)
  }

  get requested(): boolean {
    return this.wished || this.signal?.aborted === true
  }

  dispose(): void {
    for (const name of SIGNALS) process.off(name, this.handle)
  }

  private handle = (): void => {
    if (this.wished) process.exit(EXIT_CODE)
    this.wished = true
    process.stderr.write('\nStopping after this batch; press Ctrl-C again to quit at once.\n')
  }
}
