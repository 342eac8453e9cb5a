import { ArgumentError, checkOptions, describe } from '../core/errors.js'
import type { Tensor } from '../core/tensor.js'
import { checkParameter } from '../ops/activations.js'
import {
  type DropoutOptions as DroppingOptions,
  dropout,
  type EluOptions,
  elu,
  flatten,
  gelu,
  type LeakyReluOptions,
  leakyRelu,
  logSoftmax,
  relu,
  type SoftplusOptions,
  sigmoid,
  silu,
  softmax,
  softplus,
  tanh,
} from '../ops/index.js'
import { listFields } from './layer-options.js'
import { Module } from './module.js'

/** max(x, 0) */
export class ReLU extends Module {
  override forward(x: Tensor): Tensor {
    return relu(x)
  }
}

/** 1 / (1 + e⁻ˣ) */
export class Sigmoid extends Module {
  override forward(x: Tensor): Tensor {
    return sigmoid(x)
  }
}

export class Tanh extends Module {
  override forward(x: Tensor): Tensor {
    return tanh(x)
  }
}

/** x σ(x) (Elfwing et al. 2018) */
export class SiLU extends Module {
  override forward(x: Tensor): Tensor {
    return silu(x)
  }
}

/** x Φ(x), or with `approximate: 'tanh'` its approximation (Hendrycks & Gimpel 2016). */
export class GELU extends Module {
  readonly approximate: 'none' | 'tanh'

  constructor(options: { approximate?: 'none' | 'tanh' } = {}) {
    super()
    checkOptions('GELU', options)
    this.approximate = options.approximate ?? 'none'
  }

  override forward(x: Tensor): Tensor {
    return gelu(x, { approximate: this.approximate })
  }

  protected override describe(): string {
    return listFields({ approximate: this.approximate })
  }
}

/** x where it is positive, else negativeSlope x (Maas et al. 2013). */
export class LeakyReLU extends Module {
  readonly negativeSlope: number

  constructor(options: LeakyReluOptions = {}) {
    super()
    checkOptions('LeakyReLU', options)
    const { negativeSlope = 0.01 } = options
    this.negativeSlope = checkParameter('LeakyReLU', 'negativeSlope', negativeSlope)
  }

  override forward(x: Tensor): Tensor {
    return leakyRelu(x, { negativeSlope: this.negativeSlope })
  }

  protected override describe(): string {
    return listFields({ negativeSlope: this.negativeSlope })
  }
}

/** x where it is positive, else alpha (eˣ - 1) (Clevert et al. 2016). */
export class ELU extends Module {
  readonly alpha: number

  constructor(options: EluOptions = {}) {
    super()
    checkOptions('ELU', options)
    this.alpha = checkParameter('ELU', 'alpha', options.alpha ?? 1)
  }

  override forward(x: Tensor): Tensor {
    return elu(x, { alpha: this.alpha })
  }

  protected override describe(): string {
    return listFields({ alpha: this.alpha })
  }
}

/** log(1 + e^(beta x)) / beta, or x itself where beta x is beyond a threshold. */
export class Softplus extends Module {
  readonly beta: number
  readonly threshold: number

  constructor(options: SoftplusOptions = {}) {
    super()
    checkOptions('Softplus', options)
    const { beta = 1, threshold = 20 } = options
    this.beta = checkParameter('Softplus', 'beta', beta)
    this.threshold = checkParameter('Softplus', 'threshold', threshold)
  }

  override forward(x: Tensor): Tensor {
    return softplus(x, { beta: this.beta, threshold: this.threshold })
  }

  protected override describe(): string {
    return listFields({ beta: this.beta, threshold: this.threshold })
  }
}

/** eˣ / Σ eˣ along an axis, by default the last. */
export class Softmax extends Module {
  constructor(readonly axis = -1) {
    super()
  }

  override forward(x: Tensor): Tensor {
    return softmax(x, this.axis)
  }

  protected override describe(): string {
    return listFields({ axis: this.axis })
  }
}

/** The logarithm of softmax along an axis, by default the last. */
export class LogSoftmax extends Module {
  constructor(readonly axis = -1) {
    super()
  }

  override forward(x: Tensor): Tensor {
    return logSoftmax(x, this.axis)
  }

  protected override describe(): string {
    return listFields({ axis: this.axis })
  }
}

/** The tensor itself. */
export class Identity extends Module {
  override forward(x: Tensor): Tensor {
    return x
  }
}

/** Joins the axes from `start` (default 1) to `end` (default the last) into one. */
export class Flatten extends Module {
  constructor(
    readonly start = 1,
    readonly end = -1,
  ) {
    super()
  }

  override forward(x: Tensor): Tensor {
    return flatten(x, this.start, this.end)
  }

  protected override describe(): string {
    return listFields({ start: this.start, end: this.end })
  }
}

/**
 * In training sets each element to 0 with probability p (default 0.5) and divides the others by
 * 1 - p; in evaluation the tensor itself (Srivastava et al. 2014).
 */
export class Dropout extends Module {
  private readonly generator: DroppingOptions['generator']

  constructor(
    readonly p = 0.5,
    options: Pick<DroppingOptions, 'generator'> = {},
  ) {
    super()
    checkOptions('Dropout', options)
    if (typeof p !== 'number' || !(p >= 0 && p <= 1)) {
      throw new ArgumentError(`Dropout: expected p in [0, 1], got ${describe(p)}`)
    }
    this.generator = options.generator
  }

  override forward(x: Tensor): Tensor {
    return dropout(x, this.p, { training: this.training, generator: this.generator })
  }

  protected override describe(): string {
    return listFields({ p: this.p })
  }
}
