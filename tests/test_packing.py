import pytest
import torch

from hf_tle_int8.dispatch import SCHEMES
from hf_tle_int8.packing import Packing, unpack

PACKINGS = list(dict.fromkeys(scheme.packing for scheme in SCHEMES.values()))
# Panels and groups that differ from each other and from their multiples, so that no two of them can be mistaken.
ODD = Packing(3, 2, 6, 14)
EVERY = pytest.mark.parametrize(
    "packing", [*PACKINGS, ODD], ids=lambda packing: "-".join(map(str, vars(packing).values()))
)


def around(multiple: int) -> list[int]:
    return [*range(1, multiple + 2), *(count * multiple + change for count in (2, 5) for change in (-1, 0, 1))]


def codes(*shape: int) -> torch.Tensor:
    """All int8 in turn, none of which is zero: padding is told from weights."""
    numbers = torch.arange(torch.Size(shape).numel()) % 255 - 128
    return (numbers + (numbers >= 0)).to(torch.int8).reshape(shape)


@EVERY
def test_what_is_packed_is_unpacked_and_the_rest_is_zero(packing):
    for n in around(packing.n_multiple):
        for k in around(packing.k_multiple):
            weight = codes(n, k)
            panels = packing.pack(weight)
            assert packing.fits(panels, n, k)
            assert panels.numel() == torch.Size(packing.padded(n, k)).numel()
            assert panels.is_contiguous()
            assert panels.dtype == torch.int8
            assert panels.count_nonzero() == n * k
            unpacked = unpack(panels, n, k)
            assert torch.equal(unpacked, weight)
            assert unpacked.is_contiguous()
            assert unpacked.untyped_storage().nbytes() == n * k


@EVERY
def test_the_place_of_each_weight(packing):
    n, k = packing.n_multiple + 1, packing.k_multiple + 1
    weight, (_, padded_k) = codes(n, k), packing.padded(n, k)
    panels = packing.pack(weight).flatten()
    for column in range(n):
        for inner in range(k):
            panel, own = divmod(column, packing.columns)
            group, place = divmod(inner, packing.group)
            before = (panel * (padded_k // packing.group) + group) * packing.columns + own
            assert panels[before * packing.group + place] == weight[column, inner]


@EVERY
def test_padded_is_the_next_multiple(packing):
    for n in around(packing.n_multiple):
        for k in around(packing.k_multiple):
            padded_n, padded_k = packing.padded(n, k)
            assert padded_n in range(n, n + packing.n_multiple)
            assert padded_k in range(k, k + packing.k_multiple)
            assert padded_n % packing.n_multiple == padded_k % packing.k_multiple == 0


def test_weights_need_not_be_contiguous():
    weight = codes(70, 90)
    for packing in PACKINGS:
        assert torch.equal(packing.pack(weight.t()), packing.pack(weight.t().contiguous()))


@EVERY
def test_weights_and_panels_may_begin_anywhere(packing):
    weight = codes(*packing.padded(1, packing.k_multiple + 1))
    panels = packing.pack(weight)
    for offset in range(9):
        moved = [torch.empty(weight.numel() + 9, dtype=torch.int8)[offset:][: weight.numel()] for _ in range(2)]
        elsewhere = moved[0].view_as(weight).copy_(weight)
        assert torch.equal(packing.pack(elsewhere), panels)
        assert torch.equal(unpack(moved[1].view_as(panels).copy_(panels), *weight.shape), weight)
