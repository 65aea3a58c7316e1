"""What cannot be compiled says what it is, and the line of the kernel."""

import pytest

from hf_tle_int8.backend import target
from hf_tle_int8.backend.lowering.elementwise import UnsupportedOperationError
from hf_tle_int8.backend.lowering.kernel import lower_kernel
from hf_tle_int8.backend.ttir import parse

_MODULE = """"builtin.module"() ({{
  "tt.func"() <{{function_type = () -> (), sym_name = "k", sym_visibility = "public"}}> ({{
    {body}
  }}) : () -> ()
}}) : () -> ()
"""


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            '"tt.call"() <{callee = @k}> : () -> () loc("k.py":3:1)\n"tt.return"() : () -> ()',
            "k.py:3: tt.call of",
        ),
        (
            '"cf.br"()[^bb1] : () -> ()\n^bb1:\n"cf.br"()[^bb1] : () -> () loc("k.py":4:1)',
            "k.py:4: cf.br to",
        ),
    ],
)
def test_what_triton_does_not_write_is_refused(body, message):
    with pytest.raises(UnsupportedOperationError, match=message):
        lower_kernel(parse(_MODULE.format(body=body)), target.named("neon"))
