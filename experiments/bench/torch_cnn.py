"""The paper's network in PyTorch, as its users would write it: the peer of ours.

A feature's shape enters; a function leaves that does one training step. Layers, sizes,
padding, loss and optimiser are those of mgr_jax.models and mgr_jax.steps, and so are
the weights, where they are given: `train_speed` checks that both answer the same before
it measures.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from mgr_jax.config import Config
from mgr_jax.layers import EPSILON
from mgr_jax.models import BATCH_NORM_MOMENTUM, Reduction


class Cnn(nn.Module):
    """mgr_jax.models.CNN.

    Args:
      config: sizes the network.
      num_genres: number of outputs.
      shape: (bins, frames) of the feature.
      reduction: of that shape.
    """

    def __init__(
        self,
        config: Config,
        num_genres: int,
        shape: tuple[int, int],
        reduction: Reduction,
    ):
        super().__init__()
        self.reduction, self.dropout = reduction, config.dropout
        first = tuple(max(3, 2 * step) for step in reduction.stride)
        self.kernels = [first, (3, 3), (3, 3)]
        self.strides = [reduction.stride, (1, 1), (1, 1)]
        widths = [1, *config.widths]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(
                widths[k], widths[k + 1], self.kernels[k], self.strides[k], bias=False
            )
            for k in range(3)
        )
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(width, eps=EPSILON, momentum=1 - BATCH_NORM_MOMENTUM)
            for width in config.widths
        )
        bins = -(-shape[0] // reduction.stride[0])
        for pool in reduction.pools:
            bins //= pool[0]
        self.hidden = nn.Linear(bins * config.widths[-1], config.hidden_units)
        self.output = nn.Linear(config.hidden_units, num_genres)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, 1, bins, frames) to (batch, genres)."""
        for k in range(3):
            sizes = zip(x.shape[2:], self.kernels[k], self.strides[k], strict=True)
            down, right = (_same(*of_axis) for of_axis in sizes)
            x = self.convolutions[k](functional.pad(x, (*right, *down)))
            x = self.norms[k](x)
            if k < len(self.reduction.pools):
                x = functional.max_pool2d(x, self.reduction.pools[k])
            x = functional.relu(x)
        # Bins before channels, as ours has them.
        x = x.mean(3).transpose(1, 2).flatten(1)
        x = functional.dropout(x, self.dropout, self.training)
        x = functional.relu(self.hidden(x))
        return self.output(functional.dropout(x, self.dropout, self.training))

    def take_weights(self, params: Mapping[str, Any]) -> None:
        """Takes the parameters of ours."""
        with torch.no_grad():
            for k in range(3):
                kernel = np.asarray(params[f"Conv_{k}"]["kernel"])
                _copy(self.convolutions[k].weight, kernel.transpose(3, 2, 0, 1))
                _copy(self.norms[k].weight, params[f"BatchNorm_{k}"]["scale"])
                _copy(self.norms[k].bias, params[f"BatchNorm_{k}"]["bias"])
            for layer, name in ((self.hidden, "Dense_0"), (self.output, "Dense_1")):
                _copy(layer.weight, np.asarray(params[name]["kernel"]).T)
                _copy(layer.bias, params[name]["bias"])


def _copy(parameter: torch.Tensor, value: Any) -> None:
    parameter.copy_(torch.from_numpy(np.array(value)))


def _same(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after an axis, as XLA pads to SAME."""
    padding = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return padding // 2, padding - padding // 2


class Trainer:
    """Training steps of a network, on the device that there is.

    Args:
      network: trained in place.
      config: the learning rate and what else the steps need.
      normalisation: mean and deviation of each bin.
    """

    def __init__(
        self, network: Cnn, config: Config, normalisation: tuple[np.ndarray, np.ndarray]
    ):
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        # Channels last is the faster of the two layouts, on CPU and GPU.
        self.network = network.to(self.device, memory_format=torch.channels_last)
        self.smoothing = config.label_smoothing
        self.normalisation = [
            torch.from_numpy(x).to(self.device) for x in normalisation
        ]
        parameters = list(self.network.parameters())
        # As ours, it lets scales and biases be.
        groups = [
            {"params": [x for x in parameters if x.ndim > 1]},
            {"params": [x for x in parameters if x.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            groups, lr=config.learning_rate, weight_decay=config.weight_decay
        )

    def step(self, feature: np.ndarray, label: np.ndarray) -> None:
        """One step on float16 (rows, bins, frames) and its labels."""
        logits = self.network(self._pictures(feature))
        target = torch.from_numpy(label).to(self.device)
        loss = functional.cross_entropy(logits, target, label_smoothing=self.smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        if self.device == "cuda":
            torch.cuda.synchronize()

    def logits(self, feature: np.ndarray) -> np.ndarray:
        """What the network answers, by its running statistics, in all of float32."""
        self.network.eval()
        with (
            torch.no_grad(),
            torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
        ):
            found = self.network(self._pictures(feature)).cpu().numpy()
        self.network.train()
        return found

    def _pictures(self, feature: np.ndarray) -> torch.Tensor:
        mean, deviation = (x.to(self.device) for x in self.normalisation)
        values = torch.from_numpy(feature).to(self.device).float()
        return ((values - mean) / deviation)[:, None]
