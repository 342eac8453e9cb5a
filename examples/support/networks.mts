import * as nn from 'adjoint/nn'

// The networks of the published results on MNIST; the benchmarks time the same ones. x [N, 1, 28, 28]

/** 784-256-128-10 with dropout. */
export const mlpWithDropout = (p: number): nn.Layer =>
  new nn.Sequential(
    new nn.Flatten(),
    new nn.Linear(784, 256),
    new nn.ReLU(),
    new nn.Dropout(p),
    new nn.Linear(256, 128),
    new nn.ReLU(),
    new nn.Dropout(p),
    new nn.Linear(128, 10),
  )

/** One 3x3 convolution with 32 channels and two linear layers. */
export const oneConvolution = (): nn.Layer =>
  new nn.Sequential(
    new nn.Conv2d(1, 32, 3),
    new nn.ReLU(),
    new nn.Flatten(),
    new nn.Linear(32 * 26 * 26, 128),
    new nn.ReLU(),
    new nn.Linear(128, 10),
  )

/** Two convolutions with batch norm and pooling, two linear layers. */
export const lenetWithBatchNorm = (): nn.Layer =>
  new nn.Sequential(
    new nn.Conv2d(1, 32, 3, { padding: 1 }),
    new nn.BatchNorm2d(32),
    new nn.ReLU(),
    new nn.MaxPool2d(2),
    new nn.Conv2d(32, 64, 3, { padding: 1 }),
    new nn.BatchNorm2d(64),
    new nn.ReLU(),
    new nn.MaxPool2d(2),
    new nn.Flatten(),
    new nn.Linear(3136, 128),
    new nn.ReLU(),
    new nn.Linear(128, 10),
  )
