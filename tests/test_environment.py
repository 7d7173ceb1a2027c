"""What must stand in the environment before torch is imported, at each of the ways into a launch."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import os, runpy, sys

class First:
    @staticmethod
    def find_spec(name, *_):
        if name == "torch":
            names = "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "GOMP_SPINCOUNT"
            print(*(os.environ.get(name) for name in names))
            os._exit(sys.stdout.flush() or 0)

sys.meta_path.insert(0, First)
sys.argv = ["olmoe-ft", "plan", "recipes/tiny/sft.yaml"]
"""
WAYS = {
    "accelerate launch -m olmoe_ft": "runpy.run_module('olmoe_ft', run_name='__main__')",
    "olmoe-ft": "from olmoe_ft.ending import program; program()",
}
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other platforms have no such segments")


def at_torchs_import(way: str, **given: str) -> list[str]:
    names = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "GOMP_SPINCOUNT")
    environment = {name: value for name, value in os.environ.items() if name not in names} | given
    command = [sys.executable, "-c", SCRIPT + WAYS[way]]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment).stdout.split()


@pytest.mark.parametrize("way", WAYS)
def test_a_gpus_memory_grows_in_segments_whatever_the_way_in(way):
    assert at_torchs_import(way) == ["expandable_segments:True", "None", "1000"]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("PYTORCH_ALLOC_CONF", ["max_split_size_mb:64", "None", "1000"]),
        ("PYTORCH_CUDA_ALLOC_CONF", ["None", "max_split_size_mb:64", "1000"]),
    ],
)
def test_a_value_of_the_users_own_stays(name, found):
    assert at_torchs_import("olmoe-ft", **{name: "max_split_size_mb:64"}) == found
