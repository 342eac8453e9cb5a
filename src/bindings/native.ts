/** What an addon exports (`native/addon/addon.cpp`). */
export interface Addon {
  readonly backend: 'cpu' | 'cuda'
  readonly opcodes: Readonly<Record<string, Readonly<Record<string, number>>>>
  readonly dtypes: Readonly<Record<string, number>>
  deviceCount(): number
  /** Begins to use a device: its number is below the count. Throws where it cannot be used. */
  open(device: number): Native
}

/** The functions of one device. Both backends have exactly these (`native/addon/exports.h`). */
export interface Native {
  /** Kernel name to number, in this addon. */
  readonly kernels: Readonly<Record<string, number>>

  /**
   * Runs the call encoded in the first `length` words; new handles replace the first words. Without
   * owners, nobody watches the new handles: they live until `dispose`, or until `watch` gives them
   * an owner. So it is wherever an owner may be left out.
   */
  run(length: number, ...owners: object[]): void
  /** A tape node that keeps the storages of the tensors whose handles stand in the words. */
  hold(count: number): number
  /**
   * Handles to what a node saved, in the first words; nobody watches them. Returns -1, or the number
   * of the first value whose memory was written to since, and then there are none.
   */
  unpack(node: number): number
  alias(handle: number, owner?: object): number
  dispose(handle: number): number
  /** Disposes the handles that stand in the words. */
  disposeAll(count: number): number
  /** From now on a handle is freed when its owner is dead. */
  watch(handle: number, owner: object): number

  /** From now on calls are recorded; or refused, where a step is recorded on another device. */
  beginCapture(refuses: boolean): void
  /** Forgets what was recorded, if anything. */
  cancelCapture(): void
  /** A handle to what was recorded. */
  endCapture(owner: object): number
  /** Sets inputs and slots as the words say and runs the recorded calls. */
  replay(length: number, recording: number): void
  /**
   * How replays run: by `'calls'`, or by a `'graph'` of the device (from the first replay on); else
   * why there is no graph.
   */
  replayWay(recording: number): string

  fromHost(array: NodeJS.TypedArray, dtype: number, owner: object): number
  /** A new tensor with bytes of one of another device of the addon, dense from `offset` on. */
  fromDevice(
    device: number,
    handle: number,
    offset: number,
    bytes: number,
    dtype: number,
    owner: object,
  ): number
  toHost(array: NodeJS.TypedArray, handle: number, offset: number): void
  /** A promise, unless there is nothing to wait for. */
  toHostAsync(array: NodeJS.TypedArray, handle: number, offset: number): Promise<void> | undefined
  overwrite(array: NodeJS.TypedArray, handle: number, offset: number): void
  reserve(bytes: number, dtype: number, owner: object): number
  version(handle: number): number
  storageOf(handle: number): { address: number; bytes: number; isPinned: boolean }

  /** Host memory that this backend's device reads by itself, for `reservePinned`; null: none. */
  pinnedMemory(): object | null
  /** As `reserve`, in memory of another addon. */
  reservePinned(bytes: number, dtype: number, owner: object, memory: object): number
  /** As `fromHost`, of bytes at an address in `pinnedMemory`, which are read in the order of work. */
  fromPinned(address: number, bytes: number, dtype: number, owner: object): number

  setWords(words: Float64Array): void
  setErrors(classes: Readonly<Record<NativeErrorKind, new (message: string) => Error>>): void
  setCollector(gc: unknown): void
  /** What is called before a collection, so that it calls `watch` for all whom nobody watches. */
  setWatcher(watchAll: () => void): void
  createSlot(value: number): number
  setSlot(slot: number, value: number): void
  createGenerator(seed: bigint): number
  setGenerator(generator: number, seed: bigint, offset: bigint): void
  getGenerator(generator: number): [seed: bigint, offset: bigint]

  /** Compiles CUDA C++, and gives back the number of the kernel `name` in it. */
  compileCudaKernel(source: string, name: string, options: readonly string[]): number

  /** Notes this moment in the order of queued work; gives back the process's live bytes. */
  mark(): number
  /** Milliseconds from the first moment noted to each; waits for the last, and forgets them. */
  takeMarks(): Float64Array

  stepEnd(): void
  collect(): void
  memoryStats(): NativeMemoryStats
  liveHandles(): Int32Array
  synchronize(): void
  trimCache(): void
  /** The peak of live bytes is from now on what is live now. */
  resetPeakMemory(): void
  setMemoryCap(bytes: number): void
  /** 0: highest, 1: high, 2: medium. */
  setFloat32Products(precision: number): void
  setDeterministicAlgorithms(enabled: boolean): void
  /** Whether convolutions of a dtype are faster with the channels of images innermost in memory. */
  convolvesChannelsLast(dtype: number): boolean
  threadCount(): number
  setThreadCount(count: number): void
  deviceInfo(): Record<string, string>
}

export type NativeErrorKind =
  | 'argument'
  | 'dtype'
  | 'shape'
  | 'index'
  | 'disposed'
  | 'outOfMemory'
  | 'device'
  | 'capture'
  | 'internal'

/** Byte counts, handle counts and timers of one backend, as seen from one thread. */
export interface NativeMemoryStats {
  /** Tensors of this thread whose memory is held. */
  liveTensors: number
  /** Tape nodes of this thread that hold saved values. */
  liveNodes: number
  /** Bytes held by this thread's tensors and tape nodes, each storage counted once. */
  liveBytes: number
  /** The same for the whole process. */
  processLiveBytes: number
  /** Bytes taken from the system, with cached blocks. */
  reservedBytes: number
  /** Bytes that are free and kept for reuse. */
  cachedBytes: number
  peakLiveBytes: number
  allocations: number
  systemAllocations: number
  sweeps: number
  minorCollections: number
  majorCollections: number
  /** Milliseconds spent in sweeping dead handles, in minor and in major collections. */
  sweepMs: number
  minorMs: number
  majorMs: number
}
