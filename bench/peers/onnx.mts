// Writes a chain of layers as an ONNX model: the protobuf messages of onnx.proto, by their field
// numbers, as far as these layers need them.
import type { Tensor } from 'adjoint'
import * as nn from 'adjoint/nn'

const VARINT = 0
const BYTES = 2
const FIXED32 = 5
const FLOAT = 1

function varint(value: number): Buffer {
  const bytes: number[] = []
  let rest = value
  while (rest >= 0x80) {
    bytes.push((rest % 0x80) | 0x80)
    rest = Math.floor(rest / 0x80)
  }
  return Buffer.from([...bytes, rest])
}

const key = (field: number, wire: number) => varint(field * 8 + wire)
const integer = (field: number, value: number) => Buffer.concat([key(field, VARINT), varint(value)])
const bytes = (field: number, value: Buffer | string | readonly Buffer[]) => {
  const body = Array.isArray(value) ? Buffer.concat(value) : Buffer.from(value as Buffer)
  return Buffer.concat([key(field, BYTES), varint(body.length), body])
}
const float = (field: number, value: number) => {
  const body = Buffer.alloc(4)
  body.writeFloatLE(value)
  return Buffer.concat([key(field, FIXED32), body])
}

/** TensorProto: dims 1, data_type 2, name 8, raw_data 9. */
function tensorProto(name: string, t: Tensor): Buffer {
  const values = t.contiguous().dataSync() as Float32Array
  return Buffer.concat([
    ...t.shape.map((size) => integer(1, size)),
    integer(2, FLOAT),
    bytes(8, name),
    bytes(9, Buffer.from(values.buffer, values.byteOffset, values.byteLength)),
  ])
}

type Attribute = number | { readonly float: number } | readonly number[]

/** AttributeProto: name 1, f 2, i 3, ints 8, type 20 (FLOAT 1, INT 2, INTS 7). */
function attributeProto(name: string, value: Attribute): Buffer {
  if (typeof value === 'number') {
    return Buffer.concat([bytes(1, name), integer(3, value), integer(20, 2)])
  }
  if ('float' in value) {
    return Buffer.concat([bytes(1, name), float(2, value.float), integer(20, 1)])
  }
  return Buffer.concat([bytes(1, name), ...value.map((i) => integer(8, i)), integer(20, 7)])
}

interface OnnxNode {
  readonly op: string
  readonly weights: Readonly<Record<string, Tensor>>
  readonly attributes: Readonly<Record<string, Attribute>>
}

/** What a layer does in inference; null where it does nothing. */
function nodeOf(layer: nn.Module): OnnxNode | null {
  if (layer instanceof nn.Dropout) return null
  if (layer instanceof nn.ReLU) return { op: 'Relu', weights: {}, attributes: {} }
  if (layer instanceof nn.Flatten) return { op: 'Flatten', weights: {}, attributes: { axis: 1 } }
  if (layer instanceof nn.Linear) {
    const { weight, bias } = layer
    return { op: 'Gemm', weights: { weight, ...(bias && { bias }) }, attributes: { transB: 1 } }
  }
  if (layer instanceof nn.Conv2d && typeof layer.padding !== 'string') {
    const { weight, bias, stride } = layer
    const attributes = { strides: [...stride], pads: [...layer.padding, ...layer.padding] }
    return { op: 'Conv', weights: { weight, ...(bias && { bias }) }, attributes }
  }
  if (layer instanceof nn.MaxPool2d) {
    const attributes = { kernel_shape: [...layer.kernelSize], strides: [...layer.stride] }
    return { op: 'MaxPool', weights: {}, attributes }
  }
  if (layer instanceof nn.BatchNorm2d) {
    const { weight, bias, runningMean, runningVar, eps } = layer
    if (!weight || !bias || !runningMean || !runningVar) throw new Error('onnx: a bare batch norm')
    const weights = { weight, bias, runningMean, runningVar }
    return { op: 'BatchNormalization', weights, attributes: { epsilon: { float: eps } } }
  }
  throw new Error(`onnx: expected a layer that the rows have, got ${layer}`)
}

/** ValueInfoProto: name 1, type 2; float with one dim message for each size. */
function valueInfo(name: string, shape: readonly number[]): Buffer {
  const dims = shape.map((size) => bytes(1, [integer(1, size)]))
  const type = bytes(1, [integer(1, FLOAT), bytes(2, dims)])
  return Buffer.concat([bytes(1, name), bytes(2, type)])
}

/** A model that reads `x` and writes `y`. */
export function onnxModel(
  layers: Iterable<nn.Module>,
  x: readonly number[],
  y: readonly number[],
): Buffer {
  const nodes: Buffer[] = []
  const weights: Buffer[] = []
  const steps = [...layers].map(nodeOf).filter((node) => node !== null)
  steps.forEach((node, i) => {
    const names = Object.entries(node.weights).map(([name, t]) => {
      weights.push(bytes(5, tensorProto(`${i}.${name}`, t)))
      return `${i}.${name}`
    })
    const from = i === 0 ? 'x' : String(i - 1)
    const to = i === steps.length - 1 ? 'y' : String(i)
    const attributes = Object.entries(node.attributes)
    // NodeProto: input 1, output 2, op_type 4, attribute 5.
    const proto = [
      ...[from, ...names].map((name) => bytes(1, name)),
      bytes(2, to),
      bytes(4, node.op),
      ...attributes.map(([name, value]) => bytes(5, attributeProto(name, value))),
    ]
    nodes.push(bytes(1, proto))
  })
  // GraphProto: node 1, name 2, initializer 5, input 11, output 12.
  const io = [bytes(11, valueInfo('x', x)), bytes(12, valueInfo('y', y))]
  const graph = Buffer.concat([...nodes, bytes(2, 'network'), ...weights, ...io])
  // ModelProto: ir_version 1, graph 7, opset_import 8 (domain 1, version 2).
  return Buffer.concat([integer(1, 8), bytes(7, graph), bytes(8, [bytes(1, ''), integer(2, 17)])])
}
