"""The opcodes of classic BPF that seccomp admits, by the kernel's names without ``BPF_``.

Sources: ``include/uapi/linux/bpf_common.h`` and ``filter.h``; admitted are those listed in ``seccomp_check_filter``
(kernel/seccomp.c): not MOD, nor loads of bytes, of half-words or from packets.
"""

from __future__ import annotations

X = 0x08  # added to an arithmetic or jump opcode: the operand is X, not the instruction's k

LD_ABS, LD_LEN, LD_IMM, LD_MEM = 0x20, 0x80, 0x00, 0x60
LDX_LEN, LDX_IMM, LDX_MEM = 0x81, 0x01, 0x61
ST, STX, TAX, TXA = 0x02, 0x03, 0x07, 0x87
ADD, SUB, MUL, DIV, OR, AND, LSH, RSH, NEG, XOR = 0x04, 0x14, 0x24, 0x34, 0x44, 0x54, 0x64, 0x74, 0x84, 0xA4
JA, JEQ, JGT, JGE, JSET = 0x05, 0x15, 0x25, 0x35, 0x45
RET_K, RET_A = 0x06, 0x16

ARITHMETIC = {ADD: "add", SUB: "sub", MUL: "mul", DIV: "div", OR: "or", AND: "and", LSH: "lsh", RSH: "rsh", XOR: "xor"}
ARITHMETIC |= {code | X: name for code, name in ARITHMETIC.items()}

CONDITIONAL = {JEQ: "jeq", JGT: "jgt", JGE: "jge", JSET: "jset"}
CONDITIONAL |= {code | X: name for code, name in CONDITIONAL.items()}

SCRATCH = frozenset({LD_MEM, LDX_MEM, ST, STX})

ADMITTED = (
    frozenset(ARITHMETIC)
    | frozenset(CONDITIONAL)
    | SCRATCH
    | {LD_ABS, LD_LEN, LD_IMM, LDX_LEN, LDX_IMM, NEG, JA, RET_K, RET_A, TAX, TXA}
)

CELLS = 16  # BPF_MEMWORDS: 32-bit cells of scratch memory
DATA_SIZE = 64  # sizeof(struct seccomp_data)
WORDS = DATA_SIZE // 4  # the 32-bit words that LD_ABS can load
MOST_INSTRUCTIONS = 4096  # BPF_MAXINSNS
