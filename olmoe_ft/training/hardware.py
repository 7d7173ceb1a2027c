"""The hardware of a launch, and the energy that its devices use. Nothing here names a computer or its user."""

import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pynvml
import torch
from accelerate.utils import gather_object

from olmoe_ft.constants import GIB


def hardware(device: torch.device) -> dict[str, Any]:
    """This computer, and the devices of all processes; every process calls it."""
    card = torch.cuda.get_device_properties(device) if device.type == "cuda" else None
    names = gather_object([card.name if card is not None else device.type])
    return {
        "system": f"{platform.system()} {platform.release()}",
        "cpu": _cpu(),
        "cores": _cores(),
        "memory_gib": round(psutil.virtual_memory().total / GIB, 1),
        "devices": names,
        "device_memory_gib": None if card is None else round(card.total_memory / GIB, 1),
    }


def _cpu() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _cores() -> int:
    """That this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1


class Energy:
    """What the devices of a launch use from here on. NVIDIA's GPUs count it themselves, since Volta (NVML)."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.before = self._counted()

    def of_all(self) -> float | None:
        """Joules of all devices since the start; None where one does not count. Every process calls it."""
        now = self._counted()
        used = None if now is None or self.before is None else now - self.before
        every: list[float | None] = gather_object([used])
        return None if None in every else sum(one for one in every if one is not None)

    def _counted(self) -> float | None:
        """Joules since the driver was loaded."""
        if self.device.type != "cuda" or torch.version.cuda is None:
            return None
        uuid = f"GPU-{torch.cuda.get_device_properties(self.device).uuid}"
        try:
            pynvml.nvmlInit()
            millijoules = pynvml.nvmlDeviceGetTotalEnergyConsumption(pynvml.nvmlDeviceGetHandleByUUID(uuid))
        except pynvml.NVMLError:  # an older card, or a container without NVML
            return None
        return millijoules / 1000
