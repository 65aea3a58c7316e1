"""What the machine code of `hf_tle_int8.native_code` calls, in LLVM IR, for programs without torch.

A tensor is 16 numbers of 8 bytes: the address of its data, how many dimensions and elements, dtype, whether it is
contiguous, and sizes.
"""

from hf_tle_int8 import native_code

FIELDS = 16
DATA, DIMENSIONS, ELEMENTS, DTYPE, CONTIGUOUS, SIZES = range(6)
# What `drive` reports: whether the result is the tensor that was made, tensors given up, errors, and that tensor.
RESULT_IS_NEW, DELETED, ERRORS, NEW = range(4)
REPORT = NEW + FIELDS

_GETTERS = {"dim": ("i64", DIMENSIONS), "numel": ("i64", ELEMENTS), "dtype": ("i32", DTYPE), "data_ptr": ("ptr", DATA)}


def _getter(name: str, kind: str, field: int) -> str:
    return f"""
define i32 @aoti_torch_{name}(ptr %tensor, ptr %to) #0 {{
  %place = getelementptr i64, ptr %tensor, i64 {field}
  %value = load {kind}, ptr %place
  store {kind} %value, ptr %to
  ret i32 0
}}"""


def stubs(slots: list[str | None], threads: int) -> str:
    """The functions, and ``drive(x, panels, scale, bias, y, tensors, report, k, biased)``.

    Args:
        slots: names of kernels for `native_code.SLOTS`.
        threads: what torch would use.
    """
    kernels = ", ".join("ptr null" if name is None else f"ptr @{name}" for name in slots)
    declarations = "\n".join(f"declare void @{name}()" for name in sorted({name for name in slots if name}))
    getters = "".join(_getter(f"get_{name}", *of) for name, of in _GETTERS.items())
    return f"""
@{native_code.SLOTS} = global [{len(slots)} x ptr] [{kernels}]
@new = internal global [{FIELDS} x i64] zeroinitializer
@deleted = internal global i64 0
@errors = internal global i64 0
@no_kernel = internal constant [10 x i8] c"no kernel\\00"
{declarations}
declare void @linear(ptr, i64, i64)
declare void @linear_bias(ptr, i64, i64)
{getters}
{_getter("is_contiguous", "i8", CONTIGUOUS)}
define i32 @aoti_torch_get_sizes(ptr %tensor, ptr %to) #0 {{
  %place = getelementptr i64, ptr %tensor, i64 {SIZES}
  store ptr %place, ptr %to
  ret i32 0
}}
define void @{native_code.PREPARE}(i64 %dtype, i64 %bias, i64 %tile, ptr %to) #0 {{
  store ptr @no_kernel, ptr %to
  ret void
}}
define i32 @_ZN2at15get_num_threadsEv() #0 {{
  ret i32 {threads}
}}
define i32 @aoti_torch_delete_tensor_object(ptr %tensor) #0 {{
  %count = load i64, ptr @deleted
  %more = add i64 %count, 1
  store i64 %more, ptr @deleted
  ret i32 0
}}
define void @aoti_torch_check(i1 zeroext %holds, ptr %function, ptr %file, i32 %line, ptr %message) #0 {{
  %first = load i8, ptr %message
  %some = icmp ne i8 %first, 0
  %fails = xor i1 %holds, true
  %both = and i1 %some, %fails
  %one = zext i1 %both to i64
  store i64 %one, ptr @errors
  ret void
}}
define i32 @aoti_torch_empty_strided(i64 %dim, ptr %sizes, ptr %strides, i32 %dtype, i32, i32, ptr %to) #0 {{
  %places = getelementptr i64, ptr @new, i64 {SIZES}
  %bytes = shl i64 %dim, 3
  call ptr @memcpy(ptr %places, ptr %sizes, i64 %bytes)
  %behind = getelementptr i64, ptr %places, i64 %dim
  call ptr @memcpy(ptr %behind, ptr %strides, i64 %bytes)
  %dimensions = getelementptr i64, ptr @new, i64 {DIMENSIONS}
  store i64 %dim, ptr %dimensions
  %wide = sext i32 %dtype to i64
  %kind = getelementptr i64, ptr @new, i64 {DTYPE}
  store i64 %wide, ptr %kind
  store ptr @new, ptr %to
  ret i32 0
}}
declare ptr @memcpy(ptr, ptr, i64)
define void @drive(ptr %x, ptr %w, ptr %s, ptr %b, ptr %y, ptr %tensors, ptr %report, i64 %k, i64 %biased) #0 {{
  %stack = alloca [5 x i64]
{_place_tensors()}
  store ptr %y, ptr @new
  store i64 0, ptr @deleted
  store i64 0, ptr @errors
  %with = icmp ne i64 %biased, 0
  br i1 %with, label %bias, label %none
bias:
  %last = getelementptr i64, ptr %stack, i64 4
  store i64 %k, ptr %last
  call void @linear_bias(ptr %stack, i64 5, i64 1)
  br label %done
none:
  %third = getelementptr i64, ptr %stack, i64 3
  store i64 %k, ptr %third
  call void @linear(ptr %stack, i64 4, i64 1)
  br label %done
done:
  %result = load ptr, ptr %stack
  %same = icmp eq ptr %result, @new
  %bit = zext i1 %same to i64
  store i64 %bit, ptr %report
  %count = load i64, ptr @deleted
  %second = getelementptr i64, ptr %report, i64 {DELETED}
  store i64 %count, ptr %second
  %failed = load i64, ptr @errors
  %to = getelementptr i64, ptr %report, i64 {ERRORS}
  store i64 %failed, ptr %to
  %copy = getelementptr i64, ptr %report, i64 {NEW}
  call ptr @memcpy(ptr %copy, ptr @new, i64 {8 * FIELDS})
  ret void
}}
"""


def _place_tensors() -> str:
    """Each tensor gets its data, and the stack the tensors."""
    lines = []
    for index, name in enumerate("xwsb"):
        lines += [
            f"%t{index} = getelementptr i64, ptr %tensors, i64 {index * FIELDS}",
            f"store ptr %{name}, ptr %t{index}",
            f"%p{index} = getelementptr i64, ptr %stack, i64 {index}",
            f"store ptr %t{index}, ptr %p{index}",
        ]
    return "\n".join(f"  {line}" for line in lines)
