// A chain of layers in TensorFlow.js with its WebAssembly backend, which computes in NHWC.
import path from 'node:path'
import type { Tensor } from 'adjoint'
import * as nn from 'adjoint/nn'
import { installed } from './installed.mjs'

interface TfTensor {
  dataSync(): Float32Array
  dispose(): void
}

interface TensorFlow {
  setBackend(name: string): Promise<boolean>
  ready(): Promise<void>
  tidy(f: () => TfTensor): TfTensor
  tensor(values: Float32Array, shape: readonly number[]): TfTensor
  relu(x: TfTensor): TfTensor
  add(a: TfTensor, b: TfTensor): TfTensor
  matMul(a: TfTensor, b: TfTensor, transposeA: boolean, transposeB: boolean): TfTensor
  reshape(x: TfTensor, shape: readonly number[]): TfTensor
  transpose(x: TfTensor, order: readonly number[]): TfTensor
  conv2d(x: TfTensor, w: TfTensor, stride: readonly number[], pad: unknown): TfTensor
  maxPool(x: TfTensor, size: readonly number[], stride: readonly number[], pad: 'valid'): TfTensor
  batchNorm(
    x: TfTensor,
    mean: TfTensor,
    variance: TfTensor,
    offset: TfTensor,
    scale: TfTensor,
    epsilon: number,
  ): TfTensor
}

interface WasmBackend {
  setWasmPaths(folder: string): void
}

const toNhwc = [0, 2, 3, 1]
const toNchw = [0, 3, 1, 2]

/** What computes the logits; weights and input are handed over once. */
export async function tensorflowModel(
  layers: Iterable<nn.Module>,
  x: Tensor,
): Promise<() => Float32Array> {
  const { module: tf } = installed<TensorFlow>('@tensorflow/tfjs')
  const backend = installed<WasmBackend>('@tensorflow/tfjs-backend-wasm')
  backend.module.setWasmPaths(`${path.dirname(backend.file)}/`)
  if (!(await tf.setBackend('wasm'))) throw new Error('tfjs: the WebAssembly backend did not start')
  await tf.ready()
  const constant = (t: Tensor) => tf.tensor(t.contiguous().dataSync() as Float32Array, t.shape)

  const steps = [...layers].map((layer): ((x: TfTensor) => TfTensor) => {
    if (layer instanceof nn.Dropout) return (h) => h
    if (layer instanceof nn.ReLU) return (h) => tf.relu(h)
    if (layer instanceof nn.MaxPool2d) {
      return (h) => tf.maxPool(h, layer.kernelSize, layer.stride, 'valid')
    }
    if (layer instanceof nn.Flatten) {
      return (h) => tf.reshape(tf.transpose(h, toNchw), [x.shape[0], -1])
    }
    if (layer instanceof nn.Linear && layer.bias) {
      const [weight, bias] = [constant(layer.weight), constant(layer.bias)]
      return (h) => tf.add(tf.matMul(h, weight, false, true), bias)
    }
    if (layer instanceof nn.Conv2d && layer.bias && typeof layer.padding !== 'string') {
      const weight = constant(layer.weight.permute([2, 3, 1, 0]))
      const bias = constant(layer.bias)
      const [vertical, horizontal] = layer.padding
      const pad = [
        [0, 0],
        [vertical, vertical],
        [horizontal, horizontal],
        [0, 0],
      ]
      return (h) => tf.add(tf.conv2d(h, weight, layer.stride, pad), bias)
    }
    if (layer instanceof nn.BatchNorm2d) {
      const { runningMean, runningVar, bias, weight, eps } = layer
      if (!weight || !bias || !runningMean || !runningVar)
        throw new Error('tfjs: a bare batch norm')
      const [mean, variance] = [constant(runningMean), constant(runningVar)]
      const [offset, scale] = [constant(bias), constant(weight)]
      return (h) => tf.batchNorm(h, mean, variance, offset, scale, eps)
    }
    throw new Error(`tfjs: expected a layer that the rows have, got ${layer}`)
  })

  const input = constant(x.permute(toNhwc))
  return () => {
    const y = tf.tidy(() => steps.reduce((h, step) => step(h), input))
    const logits = y.dataSync()
    y.dispose()
    return logits
  }
}
