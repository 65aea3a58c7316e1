"""What compiled kernels call, in LLVM IR, for programs without a C library: memory of each thread, memset, memcpy.

OpenMP's functions are those of `arm_threads`.
"""

from arm_threads import MOST_THREADS

_HEAP = f"@heap = internal global [{MOST_THREADS} x [33554432 x i8]] zeroinitializer, align 64"

STUBS = (
    _HEAP
    + """

define ptr @aligned_alloc(i64 %alignment, i64 %size) #0 {
  %fits = icmp ule i64 %size, 33554432
  %thread = call i32 @omp_get_thread_num()
  %own = getelementptr [33554432 x i8], ptr @heap, i32 %thread
  %block = select i1 %fits, ptr %own, ptr null
  ret ptr %block
}

define void @free(ptr %block) #0 {
  ret void
}

define void @abort() #0 {
  call void @llvm.trap()
  unreachable
}

declare i32 @omp_get_thread_num()
declare void @llvm.trap()

define ptr @memset(ptr %to, i32 %value, i64 %count) #0 {
entry:
  %byte = trunc i32 %value to i8
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %next, %body ]
  %more = icmp ult i64 %i, %count
  br i1 %more, label %body, label %done
body:
  %place = getelementptr i8, ptr %to, i64 %i
  store i8 %byte, ptr %place
  %next = add i64 %i, 1
  br label %head
done:
  ret ptr %to
}
define ptr @memcpy(ptr %to, ptr %from, i64 %count) #0 {
entry:
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %next, %body ]
  %more = icmp ult i64 %i, %count
  br i1 %more, label %body, label %done
body:
  %source = getelementptr i8, ptr %from, i64 %i
  %place = getelementptr i8, ptr %to, i64 %i
  %byte = load i8, ptr %source
  store i8 %byte, ptr %place
  %next = add i64 %i, 1
  br label %head
done:
  ret ptr %to
}
"""
)
