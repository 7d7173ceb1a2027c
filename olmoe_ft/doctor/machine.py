"""Devices, CPU and memory."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil

from olmoe_ft.constants import GIB

SHARED, FILES = 1.0, 4096  # GiB of /dev/shm that workers and NCCL need; number of open files


def devices(findings: list[str]) -> Iterator[str]:
    """GPUs as torch sees them, driver, NCCL."""
    import torch

    driver = _nvidia_smi("driver_version")
    cuda, rocm = torch.version.cuda, torch.version.hip
    build = f"CUDA {cuda}" if cuda else f"ROCm {rocm}" if rocm else "CPU"
    yield f"torch {torch.__version__} built for {build}; NVIDIA driver {driver[0] if driver else 'none'}"
    if not torch.cuda.is_available():
        yield "no GPU that torch can use"
        if driver:
            findings.append(
                f"there is a GPU (driver {driver[0]}) that torch, built for {build}, cannot use; install a torch built "
                "for a CUDA version that this driver supports (https://pytorch.org), or unset CUDA_VISIBLE_DEVICES"
            )
        else:
            findings.append(
                "found no GPU; the released network needs GPUs to train, and a CPU is enough only for recipes/tiny"
            )
        return
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        yield (
            f"cuda:{index} {card.name}, {total / GIB:.1f} GiB ({free / GIB:.1f} free), "
            f"capability {card.major}.{card.minor}, {card.multi_processor_count} multiprocessors"
        )
        if total - free > 2 * GIB:
            taken = (total - free) / GIB
            findings.append(f"cuda:{index}: other processes use {taken:.1f} GiB; nvidia-smi lists them")
        if (card.major, card.minor) < (8, 0) and cuda:
            findings.append(f"cuda:{index} does not support bf16 (capability below 8.0); set model.dtype: float32")
    cudnn = torch.backends.cudnn.version()
    if torch.distributed.is_nccl_available():
        yield f"cuDNN {cudnn}, NCCL {'.'.join(map(str, torch.cuda.nccl.version()))}"
    else:
        yield f"cuDNN {cudnn}, NCCL none"


def _nvidia_smi(field: str) -> list[str]:
    """What the driver says about each card; empty if there is no driver."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    return done.stdout.split("\n")[:-1] if done.returncode == 0 else []


def cpu(findings: list[str]) -> Iterator[str]:
    """The cores that this process may use, and the instructions that decide its speed."""
    import torch

    try:
        usable = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        usable = os.cpu_count() or 1
    threads = torch.get_num_threads()
    cores = psutil.cpu_count(logical=False)
    yield f"{cores} cores, {os.cpu_count()} threads, {usable} for this process, {threads} used by torch"
    info = Path("/proc/cpuinfo")
    flags = set(info.read_text().partition("\nflags")[2].partition("\n")[0].split()) if info.exists() else set()
    wide = [name for name in ("avx512f", "avx512_bf16", "amx_tile", "amx_bf16") if name in flags]
    yield f"{torch.backends.cpu.get_cpu_capability()}; of AVX-512 and AMX: {', '.join(wide) or 'none'}"
    if not torch.cuda.is_available():
        if flags and not {"avx512_bf16", "amx_bf16"} & flags:
            findings.append("this CPU has no bf16 instructions; set model.dtype: float32, which makes a step faster")
        if threads < usable and usable > 2:
            value = os.environ.get("OMP_NUM_THREADS", "not set")
            findings.append(
                f"torch uses {threads} of {usable} CPU threads (OMP_NUM_THREADS: {value}); set OMP_NUM_THREADS={usable}"
            )


def memory(findings: list[str]) -> Iterator[str]:
    """RAM, the container's share of it, shared memory and limits."""
    found = psutil.virtual_memory()
    yield f"RAM {found.total / GIB:.1f} GiB, {found.available / GIB:.1f} available{_container()}"
    shared = Path("/dev/shm")
    if shared.exists():
        free = shutil.disk_usage(shared).free / GIB
        yield f"/dev/shm {free:.1f} GiB free"
        if free < SHARED:
            findings.append(
                f"/dev/shm has only {free:.1f} GiB free, too little for workers and NCCL; start the container with "
                "--shm-size=8g"
            )
    import resource  # not on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield f"open files (ulimit -n) {soft}, at most {hard}"
    if soft < FILES:
        findings.append(f"only {soft} files may be open, too few for many shards or workers; run ulimit -n 65536")


def _container() -> str:
    file = Path("/sys/fs/cgroup/memory.max")
    limit = file.read_text().strip() if file.exists() else "max"
    return "" if limit == "max" else f", of which this container may use {int(limit) / GIB:.1f}"
