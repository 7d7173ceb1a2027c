"""Compile every kernel for GPUs, without one: `python tests/model/compile_kernels.py` prints a line for each."""

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from olmoe_ft.model.kernels import combine, norm, rotate, swiglu

HALF, SINGLE, INDEX, NUMBER = "*bf16", "*fp32", "*i64", "i32"
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
            {"rows": HALF, "place": INDEX, "weights": HALF, "out": HALF, "hidden": NUMBER, "per_token": NUMBER},
            {"WEIGHTED": weighted, "BLOCK": combine.BLOCK},
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
            dict.fromkeys(("x", "cos", "sin", "out"), kind) | {"heads": NUMBER, "half": NUMBER, "sign": "fp32"},
            {"BLOCK": 1024},
        )
        for kind in (HALF, SINGLE)
    ),
]

for capability in (80, 90):
    for kernel, types, constants in KERNELS:
        signature = {**types, **dict.fromkeys(constants, "constexpr")}
        places = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
        source = ASTSource(fn=kernel, signature=signature, constexprs=places)
        built = triton.compile(source, target=GPUTarget("cuda", capability, 32))
        print(f"sm_{capability} {kernel.__module__}.{kernel.__name__}: {len(built.asm['cubin']):,} bytes", flush=True)
