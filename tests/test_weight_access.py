import functools

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


def multiplied(layer, x):
    return functional.linear(x, layer.weight)


def multiplied_inside(x, module):
    return functional.linear(x, module.inside.weight)


class ReaderByDetours(nn.Module):
    """Reads weights by variables, loops, indices and functions that it hands modules to."""

    def __init__(self):
        super().__init__()
        names = ("variable", "either", "other", "handed", "inside", "by_keyword", "only_called", "reused")
        for name in names:
            setattr(self, name, nn.Linear(4, 4))
        self.indexed = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        self.looped = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        self.counted = nn.ModuleList([nn.Linear(4, 4)])
        self.listed = nn.ModuleList([nn.Linear(4, 4)])
        self.called = nn.ModuleList([nn.Linear(4, 4)])

    def forward(self, x):
        variable = self.variable
        x = x @ variable.weight
        chosen = self.either
        if x.sum() > 0:
            chosen = self.other
        x = x @ chosen.weight @ self.indexed[1].weight
        for layer in self.looped:
            x = x @ layer.weight
        for _, layer in enumerate(self.counted):
            x = x @ layer.weight
        x = x @ torch.cat([block.weight for block in self.listed])
        for block in self.called:
            x = block(x)
        x = multiplied_inside(multiplied(self.handed, x), self)
        return self.only_called(multiplied(x=x, layer=self.by_keyword))

    def other_method(self, variable):
        return variable(self.reused(variable))


def test_reads_by_detours_are_found():
    read = {"variable", "either", "other", "handed", "inside", "by_keyword", "indexed.1"}
    assert weights_read_by_code(ReaderByDetours()) == read | {"looped.0", "looped.1", "counted.0", "listed.0"}


class ReaderByMoreDetours(nn.Module):
    """As `ReaderByDetours`, by what else models write."""

    def __init__(self):
        super().__init__()
        names = ("named", "got", "parameter", "submodule", "stored", "raw", "walrus", "first", "second", "yes", "no")
        for name in (*names, "method", "static", "partial", "inline", "zipped", "each", "closed", "left", "elsewhere"):
            self.add_module(name, nn.Linear(4, 4))
        for name in ("zips", "sliced", "turned", "mapped", "children_of", "counted"):
            setattr(self, name, nn.ModuleList([nn.Linear(4, 4)]))
        self.values_of = nn.ModuleDict({"a": nn.Linear(4, 4)})
        self.items_of = nn.ModuleDict({"a": nn.Linear(4, 4)})

    def forward(self, x):
        x = x @ self.named.weight @ getattr(self, "got").weight @ getattr(self.left, "bias")  # noqa: B009
        x = x @ self.get_parameter("parameter.weight") @ self.get_submodule("submodule").weight
        x = x @ self.stored.state_dict()["weight"] @ self.raw._parameters["weight"] @ (w := self.walrus).weight + w.bias
        one, other = self.first, self.second
        x = x @ one.weight @ other.weight @ (self.yes if x.sum() > 0 else self.no).weight
        x = self.multiply(self.method, x) + self.multiply_static(x, module=self.static)
        x = functools.partial(multiplied, self.partial)(x) + (lambda module: module.weight)(self.inline)
        for index, (layer, _) in enumerate(zip(self.zips, self.zips, strict=True)):
            x = x @ layer.weight * index
        for layer in self.sliced[:1]:
            x = x @ layer.weight
        for layer in reversed(list(self.turned)):
            x = x @ layer.weight
        for layer in self.values_of.values():
            x = x @ layer.weight
        for _, layer in self.items_of.items():
            x = x @ layer.weight
        for layer in self.children_of.children():
            x = x @ layer.weight
        for layer in (self.zipped, self.each):
            x = x @ layer.weight
        closed = self.closed

        def inner(x):
            return x @ closed.weight

        return inner(x) @ torch.cat(list(map(lambda module: module.weight, self.mapped)))  # noqa: C417

    def other_name(this, x):  # noqa: N805
        return x @ this.elsewhere.weight

    def multiply(self, module, x):
        return x @ module.weight

    @staticmethod
    def multiply_static(x, module):
        return x @ module.weight


def test_more_detours_are_found():
    model = ReaderByMoreDetours()
    linears = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    assert linears - weights_read_by_code(model) == {"left", "counted.0"}


def test_torch_transformer_layers_read_their_feed_forward_weights():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    assert {"linear1", "linear2"} <= weights_read_by_code(layer)


def test_conversion_leaves_them_and_the_model_runs():
    model = Reader()
    x = torch.randn(3, 4)
    expected = model(x)
    assert quantize_and_replace_linears(model) == 4
    torch.testing.assert_close(model(x), expected, rtol=0.05, atol=0.05)
