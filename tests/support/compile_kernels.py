"""Compile every kernel for GPUs, without one: `python tests/support/compile_kernels.py [80 …]` prints a line for each.

A kernel that takes more shared memory than a block of the card has is an error.
"""

import sys

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from olmoe_ft.model.kernels import combine, grouped, norm, rotate, swiglu
from olmoe_ft.training.optimizer import kernel as optimizer

HALF, SINGLE, INDEX, NUMBER = "*bf16", "*fp32", "*i64", "i32"
ROUND = "i32:16"  # a number that 16 divides, which lets a kernel load 16 bytes at a time
# capability: the shared memory of a block, in KB (CUDA C++ Programming Guide, technical specifications)
CARDS = {80: 163, 86: 99, 89: 99, 90: 227, 120: 99}


def grouped_product(kernel, dtype, m, n, contiguous):
    """The entry of a product of OLMoE-1B-7B's sizes; `contiguous`: the strides of 1."""
    pointer = {torch.bfloat16: HALF, torch.float32: SINGLE}[dtype] + ":16"
    constants = grouped.Tile.of(m, n, 2048, dtype).constants(dtype) | dict.fromkeys(contiguous, 1) | {"EXPERTS": 64}
    types = dict.fromkeys(("left", "right", "out"), pointer) | {"ends": "*i32:16", "tiles": NUMBER}
    names = [name for name in kernel.arg_names if name not in constants]
    known = {name: value for name, value in constants.items() if name in kernel.arg_names or name.startswith("num_")}
    return kernel, {name: types.get(name, ROUND) for name in names}, known


KERNELS = [
    (swiglu._forward, {"gate_up": HALF, "out": HALF, "width": NUMBER}, {"BLOCK": swiglu.BLOCK}),
    (
        swiglu._backward,
        dict.fromkeys(("gate_up", "gradient", "weights", "weighted", "to_gate_up", "to_weights"), HALF)
        | {"width": NUMBER},
        {"BLOCK": swiglu.BLOCK},
    ),
    *(
        (
            combine._combine,
            {"rows": HALF, "place": INDEX, "weights": HALF, "out": HALF, "hidden": NUMBER},
            {"EACH": 8, "WEIGHTED": weighted, "BLOCK": combine.BLOCK},
        )
        for weighted in (True, False)
    ),
    (
        norm._forward,
        {"x": HALF, "weight": HALF, "out": HALF, "scale": SINGLE, "hidden": NUMBER, "eps": "fp32"},
        {"BLOCK": 2048},
    ),
    (
        norm._backward,
        {"gradient": HALF, "x": HALF, "weight": HALF, "scale": SINGLE, "to_x": HALF, "partial": SINGLE}
        | dict.fromkeys(("rows", "hidden", "programs"), NUMBER),
        {"BLOCK": 2048},
    ),
    *(
        (
            rotate._rotate,
            dict.fromkeys(("x", "cos", "sin", "out"), kind) | {"heads": NUMBER, "sign": "fp32"},
            {"HALF": 64, "BLOCK": 1024},
        )
        for kind in (HALF, SINGLE)
    ),
    *(
        grouped_product(grouped.by_rows, dtype, 2048, width, ("left_k", contiguous))
        for dtype, width, contiguous in (
            (torch.bfloat16, 2048, "right_k"),
            (torch.bfloat16, 2048, "right_n"),
            (torch.bfloat16, 16, "right_k"),
            (torch.float32, 2048, "right_k"),
        )
    ),
    *(
        grouped_product(grouped.over_rows, dtype, 2048, width, ("left_m", "right_n"))
        for dtype, width in ((torch.bfloat16, 2048), (torch.bfloat16, 16))
    ),
    (
        optimizer._update,
        {"weight": HALF, "gradient": HALF, "exponents": "*u8", "count": "i64", "number": NUMBER}
        | dict.fromkeys(("remainder", "moments"), "*i16")
        | dict.fromkeys(("lr", "decay", "eps", "first", "second", "later"), "fp32"),
        {},
    ),
]

for capability in map(int, sys.argv[1:] or CARDS):
    for kernel, types, constants in KERNELS:
        options = {name: value for name, value in constants.items() if name.startswith("num_")}
        places = {(kernel.arg_names.index(name),): constants[name] for name in constants.keys() - options.keys()}
        signature = {name: types.get(name, "constexpr").removesuffix(":16") for name in kernel.arg_names}
        multiples = [name for name, kind in types.items() if kind.endswith(":16")]
        attributes = {(kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in multiples}
        source = ASTSource(fn=kernel, signature=signature, constexprs=places, attrs=attributes)
        built = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
        size, shared = len(built.asm["cubin"]), built.metadata.shared
        name = f"sm_{capability} {kernel.__module__}.{kernel.__name__}"
        print(f"{name}: {size:,} bytes, {shared / 1024:.1f} KB shared", flush=True)
        assert shared <= CARDS[capability] * 1024, f"{name}: a block has {CARDS[capability]} KB"
