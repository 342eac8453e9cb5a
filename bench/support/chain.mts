import { arange, type Tensor } from 'adjoint'

export interface ChainInputs {
  readonly a: Tensor
  readonly b: Tensor
  /** Requires a gradient. */
  readonly w: Tensor
}

/** The same small fractions in every library. */
export function chainInputs(size: number): ChainInputs {
  const i = arange(size).float()
  return {
    w: i.remainder(7).div(7).sub(0.5).detach().requiresGrad_(),
    a: i.remainder(5).div(5).sub(0.4),
    b: i.remainder(3).div(3).add(0.5),
  }
}

/** 20 small ops, a sum, and their gradients; returns w's. */
export function chain({ a, b, w }: ChainInputs): Tensor {
  w.grad = null
  let y = w
  for (let i = 0; i < 5; i++) y = y.mul(b).add(1).tanh().sub(a)
  y.sum().backward()
  return w.grad as unknown as Tensor
}
