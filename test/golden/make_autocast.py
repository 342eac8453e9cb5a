"""Result dtypes of ops under torch.autocast('cpu', torch.bfloat16), op by op:
python make_autocast.py > autocast.json

Each op is called with float32 operands, and with operands that are bfloat16 but for weights.
"""

import json

import torch
import torch.nn.functional as F

torch.manual_seed(0)


def t(*shape, low):
    x = torch.rand(*shape) + 0.5
    return x.bfloat16() if low else x


def cases(low):
    x = t(4, 6, low=low)
    image = t(2, 3, 6, 6, low=low)
    heads = t(2, 2, 4, 8, low=low)
    classes = torch.tensor([0, 1, 2, 3])
    one, w, bias = t(6, low=False), t(5, 6, low=False), t(5, low=False)
    filters = t(4, 3, 3, 3, low=False)
    channel = t(3, low=False)
    f32 = t(4, 6, low=False)
    seq = t(5, 2, 6, low=low)
    return {
        "matmul": lambda: x @ w.t(),
        "linear": lambda: F.linear(x, w, bias),
        "conv2d": lambda: F.conv2d(image, filters),
        "scaledDotProductAttention": lambda: F.scaled_dot_product_attention(heads, heads, heads),
        "lstm": lambda: torch.nn.LSTM(6, 7)(seq)[0],
        "gru": lambda: torch.nn.GRU(6, 7)(seq)[0],
        "lstmCell": lambda: torch.nn.LSTMCell(6, 7)(x)[0],
        "gruCell": lambda: torch.nn.GRUCell(6, 7)(x),
        "softmax": lambda: F.softmax(x, 1),
        "logSoftmax": lambda: F.log_softmax(x, 1),
        "layerNorm": lambda: F.layer_norm(x, [6], one, one),
        "rmsNorm": lambda: F.rms_norm(x, [6], one),
        "batchNorm": lambda: F.batch_norm(image, None, None, channel, channel, True),
        "crossEntropy": lambda: F.cross_entropy(x, classes),
        "nllLoss": lambda: F.nll_loss(F.log_softmax(x, 1), classes),
        "mseLoss": lambda: F.mse_loss(x, f32),
        "l1Loss": lambda: F.l1_loss(x, f32),
        "mseLoss of one dtype": lambda: F.mse_loss(x, x),
        "l1Loss of one dtype": lambda: F.l1_loss(x, x),
        "binaryCrossEntropyWithLogits": lambda: F.binary_cross_entropy_with_logits(x, f32),
        "sum": lambda: x.sum(),
        "mean": lambda: x.mean(1),
        "prod": lambda: x.prod(),
        "variance": lambda: x.var(1),
        "norm": lambda: torch.linalg.vector_norm(x),
        "logSumExp": lambda: x.logsumexp(1),
        "amax": lambda: x.amax(1),
        "exp": lambda: x.exp(),
        "log": lambda: x.log(),
        "sqrt": lambda: x.sqrt(),
        "tanh": lambda: x.tanh(),
        "sigmoid": lambda: x.sigmoid(),
        "relu": lambda: x.relu(),
        "gelu": lambda: F.gelu(x),
        "silu": lambda: F.silu(x),
        "dropout": lambda: F.dropout(x, 0.5),
        "pow": lambda: x.pow(2.5),
        "add": lambda: x + f32,
        "mul": lambda: x * 2.5,
        "div": lambda: x / f32,
        "where": lambda: torch.where(x > 1, x, f32),
        "cat": lambda: torch.cat([x, f32]),
        "stack": lambda: torch.stack([x, f32]),
        "maxPool2d": lambda: F.max_pool2d(image, 2),
        "avgPool2d": lambda: F.avg_pool2d(image, 2),
        "adaptiveAvgPool2d": lambda: F.adaptive_avg_pool2d(image, 1),
        "reshape": lambda: x.reshape(24),
    }


def dtypes(low):
    out = {}
    with torch.autocast("cpu", torch.bfloat16):
        for name, call in cases(low).items():
            try:
                out[name] = str(call().dtype).replace("torch.", "")
            except RuntimeError:
                out[name] = "refused"
    return out


print(json.dumps({"float32": dtypes(False), "bfloat16": dtypes(True)}, indent=1))
