"""Which classes are linears and nothing else."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn import functional
from transformers.models.esm.modeling_esmfold import EsmFoldLinear
from transformers.models.falcon.modeling_falcon import FalconLinear
from transformers.models.idefics.modeling_idefics import IdeficsDecoupledLinear
from transformers.models.llama4.modeling_llama4 import Llama4Router
from transformers.models.phimoe.modeling_phimoe import PhimoeTopKRouter
from transformers.pytorch_utils import Conv1D

from hf_tle_int8.nn.plain import Orientation, orientation


class Renamed(nn.Linear):
    def __init__(self, size: int):
        super().__init__(size, size)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """The same with other names."""
        return F.linear(hidden, self.weight, self.bias)


class ByFullName(nn.Linear):
    def forward(self, x):
        return torch.nn.functional.linear(x, self.weight, self.bias)


class Imported(nn.Linear):
    def forward(self, x):
        return functional.linear(x, self.weight, self.bias)


class Derived(Renamed):
    def forward(self, x):
        return super().forward(x)


class Doubled(nn.Linear):
    def forward(self, x):
        return super().forward(x) * 2


class WithoutBias(nn.Linear):
    def forward(self, x):
        return F.linear(x, self.weight)


class OfDoubled(Doubled):
    pass


class Scaled(nn.Linear):
    def forward(self, x, scale=1.0):
        return F.linear(x, self.weight, self.bias)


class OtherWeight(nn.Linear):
    @property
    def weight(self):
        return 2 * self._parameters["weight"]


class Mixed(nn.Linear, nn.Flatten):
    pass


class Wrapped(nn.Linear):
    @torch.no_grad()
    def forward(self, x):
        return F.linear(x, self.weight, self.bias)


def linear(x, weight, bias):
    return x + weight + bias


class OfAnotherFunction(nn.Linear):
    def forward(self, x):
        return linear(x, self.weight, self.bias)


def of_a_closure(linear):
    class Closure(nn.Linear):
        def forward(self, x):
            return linear(x, self.weight, self.bias)

    return Closure


@pytest.mark.parametrize("cls", [nn.Linear, Renamed, ByFullName, Imported, Derived, FalconLinear, EsmFoldLinear])
def test_plain_linears(cls):
    assert orientation(cls) is Orientation.OUT_IN


def test_conv1d_holds_its_weight_transposed():
    assert orientation(Conv1D) is Orientation.IN_OUT


@pytest.mark.parametrize(
    "cls",
    [
        *(Doubled, WithoutBias, OfDoubled, Scaled, OtherWeight, Mixed, Wrapped, OfAnotherFunction, of_a_closure(max)),
        *(IdeficsDecoupledLinear, Llama4Router, PhimoeTopKRouter, nn.LazyLinear, nn.Bilinear, nn.Embedding, nn.Conv1d),
    ],
)
def test_what_may_do_more_is_not_plain(cls):
    assert orientation(cls) is None


def test_without_source_nothing_is_proved():
    namespace: dict[str, object] = {"nn": nn, "F": F, "__name__": "no_such_module"}
    exec("class Unknown(nn.Linear):\n    def forward(self, x):\n        return F.linear(x, self.weight)", namespace)
    assert orientation(namespace["Unknown"]) is None
