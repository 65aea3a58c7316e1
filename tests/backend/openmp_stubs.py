"""What compiled kernels call, in LLVM IR, for programs without a C library: OpenMP on one thread, memset, memcpy."""

STUBS = """
define void @GOMP_parallel(ptr %function, ptr %data, i32 %team, i32 %flags) #0 {
  call void %function(ptr %data)
  ret void
}
define i32 @omp_get_thread_num() #0 {
  ret i32 0
}
define i32 @omp_get_num_threads() #0 {
  ret i32 1
}
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
