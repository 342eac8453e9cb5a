export { type Dataset, randomSplit, Subset, TensorDataset } from './dataset.js'
export { type ImageDataset, loadMnist, syntheticDigits } from './digit-sets.js'
export { type DigitImages, type DigitOptions, type DigitPart, drawDigits } from './digits.js'
export { type IdxArray, type IdxData, readIdx } from './idx.js'
export {
  type BatchSource,
  DataLoader,
  type DataLoaderOptions,
  type DataLoaderState,
} from './loader.js'
