import torch
from torch import nn
from torch.nn import functional

from hf_tle_int8 import quantize_and_replace_linears
from hf_tle_int8.weight_access import weights_read_by_code


class Reader(nn.Module):
    """Reads some of its weights in every way that models do."""

    def __init__(self):
        super().__init__()
        self.called = nn.Linear(4, 4)
        self.functional = nn.Linear(4, 4)
        self.transposed = nn.Linear(4, 4)
        self.cast_to = nn.Linear(4, 4)
        self.moved_to = nn.Linear(4, 4)
        self.inner = nn.ModuleDict({"deep": nn.Linear(4, 4), "fine": nn.Linear(4, 4)})
        self.blocks = nn.ModuleList([nn.ModuleDict({"looped": nn.Linear(4, 4), "kept": nn.Linear(4, 4)})])
        nn.init.zeros_(self.called.weight)

    def _init_weights(self):
        self.inner.fine.weight.data.zero_()

    def forward(self, x):
        x = functional.linear(x, self.functional.weight, self.functional.bias)
        x = (x @ self.transposed.weight.t()).to(self.cast_to.weight.dtype).to(self.moved_to.weight.device)
        for block in self.blocks:
            x = x * block.looped.weight.mean()
        return self.called(x) + self.inner.deep.weight[0]


class Derived(Reader):
    pass


READ = {"functional", "transposed", "cast_to", "inner.deep", "blocks.0.looped"}


def test_reads_are_found():
    assert weights_read_by_code(Reader()) == READ


def test_reads_are_found_inside_of_a_model_and_in_subclasses():
    model = nn.Sequential(nn.ReLU(), Derived())
    assert weights_read_by_code(model) == {f"1.{name}" for name in READ}


def test_linears_elsewhere_with_the_same_name_are_not_concerned():
    model = nn.ModuleDict({"reader": Reader(), "looped": nn.Linear(4, 4), "functional": nn.Linear(4, 4)})
    assert {name for name in weights_read_by_code(model) if not name.startswith("reader.")} == set()


def test_classes_without_source_are_passed_with_a_warning(caplog):
    namespace: dict[str, object] = {"nn": nn, "__name__": "no_such_module"}
    exec("class Unknown(nn.Module):\n    pass", namespace)
    assert weights_read_by_code(namespace["Unknown"]()) == set()
    assert "the source of 'no_such_module' cannot be read" in caplog.text


def test_torch_transformer_layers_read_their_feed_forward_weights():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    assert {"linear1", "linear2"} <= weights_read_by_code(layer)


def test_conversion_leaves_them_and_the_model_runs():
    model = Reader()
    x = torch.randn(3, 4)
    expected = model(x)
    assert quantize_and_replace_linears(model) == 4
    torch.testing.assert_close(model(x), expected, rtol=0.05, atol=0.05)
