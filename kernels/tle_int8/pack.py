"""int8 matrices into the order in which `product` reads them; the oracle is `hf_tle_int8.packing.Packing.pack`."""

import triton
import triton.language as tl


@triton.jit
def pack(
    x, stride, q, M, K, K_PADDED, ROWS: tl.constexpr, GROUP: tl.constexpr, BLOCK: tl.constexpr, FLIPPED: tl.constexpr,
    TRANSPOSED: tl.constexpr,
):  # fmt: skip
    """Rows in groups: ``[M / ROWS][K_PADDED / GROUP][ROWS][GROUP]``, zeros behind M and K.

    Grid: as many groups as ``q`` has room for.

    Args:
        x: int8 ``[M, K]``: elements of a row are neighbours and rows ``stride`` apart, or the reverse if TRANSPOSED.
        q: int8, with flipped sign bits if FLIPPED.
        BLOCK: elements of a row at a time, a multiple of GROUP.
    """
    group = tl.program_id(0)
    rows, columns, packed = group * ROWS + tl.arange(0, ROWS), tl.arange(0, BLOCK), tl.arange(0, ROWS * BLOCK)
    to = q + group.to(tl.int64) * ROWS * K_PADDED
    for k in range(0, K_PADDED, BLOCK):
        if TRANSPOSED:
            places = x + rows[:, None] + (k + columns)[None, :].to(tl.int64) * stride
        else:
            places = x + rows[:, None].to(tl.int64) * stride + (k + columns)[None, :]
        codes = tl.load(places, mask=(rows[:, None] < M) & ((k + columns)[None, :] < K), other=0)
        if FLIPPED:
            codes = codes ^ -128
        in_order = codes.reshape(ROWS, BLOCK // GROUP, GROUP).permute(1, 0, 2).reshape(ROWS * BLOCK)
        tl.store(to + k * ROWS + packed, in_order, mask=packed < (K_PADDED - k) * ROWS)
