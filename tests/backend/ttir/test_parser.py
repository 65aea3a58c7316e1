import pytest

from hf_tle_int8.backend.ttir import (
    DenseElements,
    FloatType,
    FunctionType,
    IntegerType,
    OpaqueType,
    PointerType,
    TensorType,
    TTIRSyntaxError,
    parse,
)

F32, I32, I1 = FloatType("f32"), IntegerType(32), IntegerType(1)

BRANCHES = """\
#loc = loc("kernel.py":3:0)
"builtin.module"() ({
  "tt.func"() <{function_type = (!tt.ptr<f32>, i32) -> (), sym_name = "k", sym_visibility = "public"}> ({
  ^bb0(%arg0: !tt.ptr<f32> loc("x"(#loc)), %arg1: i32 loc(unknown)):
    %c = "arith.constant"() <{value = 4 : i32}> : () -> i32 loc(#loc2)
    %0 = "arith.cmpi"(%arg1, %c) <{predicate = 2 : i64}> : (i32, i32) -> i1 loc(#loc3)
    "cf.cond_br"(%0)[^bb1, ^bb2] <{operandSegmentSizes = array<i32: 1, 0, 0>}> : (i1) -> () loc(#loc4)
  ^bb1:  // pred: ^bb0
    "tt.return"() : () -> () loc(callsite(#loc2 at callsite(#loc3 at "ker at nel.py":9:1)))
  ^bb2:  // pred: ^bb0
    %1:2 = "scf.while"(%c, %c) ({
    ^bb0(%a: i32, %b: i32):
      "scf.condition"(%0, %a, %b) : (i1, i32, i32) -> ()
    }, {
    ^bb0(%a_1: i32, %b_2: i32):
      "scf.yield"(%b_2, %a_1) : (i32, i32) -> ()
    }) : (i32, i32) -> (i32, i32) loc(fused[#loc3, #loc2])
    %2 = "arith.addi"(%1#0, %1#1) <{overflowFlags = #arith.overflow<none>}> : (i32, i32) -> i32
    "tt.return"() : () -> ()
  }) {noinline = false} : () -> ()
}) : () -> () loc(#loc)
#loc2 = loc("library.py":7:2)
#loc3 = loc("kernel.py":5:4)
#loc4 = loc(callsite(#loc2 at #loc3))
"""


def wrap(*lines: str) -> str:
    """A module around operations."""
    body = "\n".join(lines)
    return f'"builtin.module"() ({{\n{body}\n}}) : () -> ()'


def constant(text: str):
    (operation,) = (
        parse(wrap(f'%0 = "arith.constant"() <{{value = {text}}}> : () -> i32')).operation.regions[0].entry.operations
    )
    return operation.attributes["value"]


class TestStructure:
    @pytest.fixture
    def kernel(self):
        return parse(BRANCHES).kernel

    def test_signature(self, kernel):
        assert kernel.attributes["function_type"] == FunctionType((PointerType(F32), I32), ())
        assert kernel.attributes["noinline"] is False
        assert [argument.type for argument in kernel.regions[0].entry.arguments] == [PointerType(F32), I32]

    def test_blocks_and_successors(self, kernel):
        entry, *others = kernel.regions[0].blocks
        assert entry.terminator.successors == others
        assert [block.label for block in others] == ["^bb1", "^bb2"]
        assert all(block.region is kernel.regions[0] for block in [entry, *others])

    def test_results_operands_and_uses(self, kernel):
        loop, add, _ = kernel.regions[0].blocks[2].operations
        assert add.operands == loop.results
        assert loop.results[0].uses == [add]
        assert add.operands[1].defining_op is loop
        condition, body = loop.regions
        assert condition.entry.arguments[0].defining_op is None
        assert condition.entry.arguments[0].owner is condition.entry
        assert body.entry.terminator.operands == body.entry.arguments[::-1]

    def test_operand_segments(self, kernel):
        branch = kernel.regions[0].entry.terminator
        assert branch.operand_segments() == [branch.operands, [], []]

    def test_walk_is_in_order(self, kernel):
        names = [operation.name for operation in kernel.walk()]
        assert names[:3] == ["tt.func", "arith.constant", "arith.cmpi"]
        assert names[5:8] == ["scf.while", "scf.condition", "scf.yield"]

    def test_locations(self, kernel):
        library, kernel_line = ("library.py", 7), ("kernel.py", 5)
        constant, compare, branch = kernel.regions[0].entry.operations
        assert constant.location.frames == (library,)
        assert compare.location.frames == (kernel_line,)
        assert branch.location.frames == (library, kernel_line)
        assert str(branch.location) == "kernel.py:5 (in a call, at library.py:7)"
        early, loop = (block.operations[0] for block in kernel.regions[0].blocks[1:])
        assert early.location.frames == (library, kernel_line, ("ker at nel.py", 9))
        assert loop.location.frames == (kernel_line,)
        assert str(loop.regions[0].entry.terminator.location) == "an unknown line"

    def test_the_kernel_is_the_public_function(self):
        functions = ['"tt.func"() <{sym_name = "NAME", sym_visibility = "public"}> ({}) : () -> ()'] * 2
        module = parse(wrap(*(text.replace("NAME", name) for text, name in zip(functions, "ab", strict=True))))
        with pytest.raises(ValueError, match="2 public functions"):
            _ = module.kernel


class TestConstants:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("16 : i32", 16),
            ("-1 : i64", -1),
            ("true", True),
            ("false", False),
            ("5.000000e-01 : f32", 0.5),
            ("0xFF800000 : f32", float("-inf")),
            ("0x7F80 : bf16", float("inf")),
            ("0xC400 : f16", -4.0),
            ("0x3FB999999999999A : f64", 0.1),
            ('"te\\"xt\\0A"', 'te"xt\n'),
            ("[1 : i32, 2 : i32]", [1, 2]),
            ("{a = 1 : i32, b}", {"a": 1, "b": True}),
            ("array<i32: 1, 0>", [1, 0]),
            ("array<i1: true, false>", [1, 0]),
            ("array<i32>", []),
            ("#arith.fastmath<none>", "#arith.fastmath<none>"),
            ("@symbol", "@symbol"),
            ("f32", F32),
        ],
    )
    def test_attributes(self, text, expected):
        value = constant(text)
        assert value == expected
        assert type(value) is type(expected)

    def test_nan(self):
        assert constant("0x7FC00000 : f32") != constant("0x7FC00000 : f32")

    @pytest.mark.parametrize(
        ("text", "shape", "element", "values"),
        [
            ("dense<0> : tensor<16x16xi32>", (16, 16), I32, (0,)),
            ("dense<-7> : tensor<4xi8>", (4,), IntegerType(8), (-7,)),
            ("dense<true> : tensor<4xi1>", (4,), I1, (1,)),
            ("dense<1.000000e+00> : tensor<64xf32>", (64,), F32, (1.0,)),
            ("dense<0xFF800000> : tensor<2xf32>", (2,), F32, (float("-inf"),)),
            ("dense<[[1, 2], [3, 4]]> : tensor<2x2xi32>", (2, 2), I32, (1, 2, 3, 4)),
            ("dense<[true, false]> : tensor<2xi1>", (2,), I1, (1, 0)),
            ('dense<"0x01000000FFFFFFFF"> : tensor<2xi32>', (2,), I32, (1, -1)),
            ('dense<"0x0000803F"> : tensor<8xf32>', (8,), F32, (1.0,)),
        ],
    )
    def test_dense(self, text, shape, element, values):
        value = constant(text)
        assert value == DenseElements(TensorType(shape, element), values)
        assert value.is_splat == (len(values) == 1)


class TestTypes:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("i1", I1),
            ("index", IntegerType(64)),
            ("bf16", FloatType("bf16")),
            ("!tt.ptr<i8>", PointerType(IntegerType(8))),
            ("!tt.ptr<i8, 1>", PointerType(IntegerType(8))),
            ("!tt.ptr<!tt.ptr<f32>>", PointerType(PointerType(F32))),
            ("tensor<4x8x!tt.ptr<f16>>", TensorType((4, 8), PointerType(FloatType("f16")))),
            ("tensor<f32>", TensorType((), F32)),
            ("!tt.tensordesc<tensor<4xf32>>", OpaqueType("!tt.tensordesc<tensor<4xf32>>")),
            ("f8E4M3FN", OpaqueType("f8E4M3FN")),
        ],
    )
    def test_types(self, text, expected):
        (operation,) = parse(wrap(f'%0 = "x.y"() : () -> {text}')).operation.regions[0].entry.operations
        assert operation.result.type == expected

    @pytest.mark.parametrize(
        "kind", [I32, F32, PointerType(F32), TensorType((2, 3), PointerType(F32)), FunctionType((I32,), (F32, I1))]
    )
    def test_text_reads_back(self, kind):
        (operation,) = parse(wrap(f'"x.y"() <{{t = {kind}}}> : () -> ()')).operation.regions[0].entry.operations
        assert operation.attributes["t"] == kind

    def test_size(self):
        assert TensorType((4, 8, 2), F32).size == 64
        assert TensorType((), F32).size == 1


class TestErrors:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "line 1 of the generic TTIR: the name of an operation was expected"),
            ("module {\n}", "the name of an operation was expected at 'module {'"),
            ('"tt.func"() : () -> ()', "builtin.module was expected"),
            (wrap('%0 = "a.b"(%1) : (i32) -> i32'), "line 2 .* %1 is used before it is defined"),
            (wrap('%0:2 = "a.b"() : () -> i32'), "a.b has 1 result types for 2 results"),
            (wrap('"a.b"()[^bb7] : () -> ()'), r"the block \^bb7 is not in this region"),
            (wrap('"a.b"() <{v = dense<1> : i32}> : () -> ()'), "a dense constant of type i32"),
            ('"builtin.module"() ({', "the name of an operation was expected"),
            (wrap('"a.b"() <{v = [1 : i32'), "was expected"),
        ],
    )
    def test_says_where(self, text, message):
        with pytest.raises(TTIRSyntaxError, match=message):
            parse(text)


def test_symbols_may_be_quoted():
    (call,) = parse(wrap('"tt.call"() <{callee = @"a.<locals>.f"}> : () -> ()')).operation.regions[0].entry.operations
    assert call.attributes["callee"] == "@a.<locals>.f"
