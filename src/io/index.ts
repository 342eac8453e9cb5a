export { writeFileAtomic } from './atomic.js'
export { loadSafetensors, loadSafetensorsMetadata, saveSafetensors } from './safetensors.js'
export {
  type RawTensor,
  readSafetensorsFile,
  SafetensorsFile,
  writeSafetensorsFile,
} from './safetensors-file.js'
export type { SafetensorsDType, TensorInfo } from './safetensors-header.js'
export { loadState, type State, type StateKind, saveState } from './state.js'
