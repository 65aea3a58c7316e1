"""OpenMP's functions that compiled kernels call, on real threads of a bare AArch64 process, for `arm_emulation.link`.

`GOMP_parallel` clones a thread for each member of a team but the first, which is its caller. A member's number is its
thread pointer (TPIDR_EL0), that of the process being 0. One team at a time; it must be at most `MOST_THREADS`.
"""

MOST_THREADS = 4

# Linux's asm-generic/unistd.h has the numbers of calls, its sched.h the flags: CLONE_VM, CLONE_FS, CLONE_FILES,
# CLONE_SIGHAND, CLONE_THREAD, CLONE_SYSVSEM, CLONE_SETTLS.
ASSEMBLY = f"""\
    .text
    .global GOMP_parallel, omp_get_thread_num, omp_get_num_threads
GOMP_parallel:                      // x0: function, x1: its argument, w2: members
    stp x29, x30, [sp, #-64]!
    stp x19, x20, [sp, #16]
    stp x21, x22, [sp, #32]
    str x23, [sp, #48]
    mov x19, x0
    mov x20, x1
    mov w21, w2
    adrp x22, team
    add x22, x22, :lo12:team
    cmp w21, #{MOST_THREADS}
    b.hi broken
    stp w21, wzr, [x22]             // members, and how many have ended
    mov x23, #1
start:
    cmp x23, x21
    b.hs own
    adrp x1, stacks
    add x1, x1, :lo12:stacks
    add x1, x1, x23, lsl #20        // the end of its stack
    mov x0, #0x0f00
    movk x0, #0xd, lsl #16
    mov x2, #0
    mov x3, x23
    mov x4, #0
    mov x8, #220                    // clone
    svc #0
    cbz x0, member
    tbnz x0, #63, broken
    add x23, x23, #1
    b start
own:
    mov x0, x20
    blr x19
wait:
    add x0, x22, #4
    ldar w1, [x0]
    add w1, w1, #1
    cmp w1, w21
    b.eq all
    mov x8, #124                    // sched_yield
    svc #0
    b wait
all:
    mov w0, #1
    str w0, [x22]
    ldp x19, x20, [sp, #16]
    ldp x21, x22, [sp, #32]
    ldr x23, [sp, #48]
    ldp x29, x30, [sp], #64
    ret
member:
    mov x0, x20
    blr x19
    add x0, x22, #4
end:
    ldaxr w1, [x0]
    add w1, w1, #1
    stlxr w2, w1, [x0]
    cbnz w2, end
    mov x8, #93                     // exit, of this thread
    svc #0
broken:
    brk #0

omp_get_thread_num:
    mrs x0, tpidr_el0
    ret

omp_get_num_threads:
    adrp x0, team
    ldr w0, [x0, :lo12:team]
    ret

    .data
    .balign 8
team:
    .word 1, 0

    .bss
    .balign 64
stacks:
    .zero {MOST_THREADS - 1} << 20
"""
