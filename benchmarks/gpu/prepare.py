"""`make gpu-prepare`: the wheels that a machine without a network lacks, and the one command to type there.

Which ones follows from what the project stands on (pyproject.toml, and the packages installed here) less what such a
machine has. Versions are those installed here, by `make setup` those of constraints.txt. It needs a network and no GPU.
"""

import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from email import message_from_string
from importlib.metadata import requires, version
from pathlib import Path
from zipfile import ZipFile

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[2]
FOLDER = REPOSITORY / ".gpu"
LIMIT = 48 * 2**20  # bytes: such a machine takes 64 MiB along, and the repository is some of them
# The machine: CPython 3.12 on x86-64 Linux, with these; a version where it is known.
PYTHON = "3.12"
THERE = {
    "torch": "2.11.0", "triton": "3.6.0", "transformers": "5.17.0", "accelerate": "1.15.0", "tokenizers": "0.23.2",
    "huggingface-hub": "1.33.0", "safetensors": "0.8.0", "numpy": "2.5.2",
    **dict.fromkeys((
        "aiohttp", "certifi", "charset-normalizer", "click", "contourpy", "cycler", "einops", "execnet", "filelock",
        "fonttools", "fsspec", "hf-xet", "httpx", "hypothesis", "idna", "iniconfig", "jinja2", "kiwisolver",
        "markdown-it-py", "markupsafe", "matplotlib", "mdurl", "mpmath", "msgpack", "networkx", "ninja", "packaging",
        "pandas", "pillow", "pluggy", "protobuf", "psutil", "py-cpuinfo", "pyarrow", "pygments", "pyparsing", "pytest",
        "pytest-timeout", "pytest-xdist", "python-dateutil", "pyyaml", "regex", "requests", "rich", "scipy",
        "setuptools", "shellingham", "sortedcontainers", "sympy", "tqdm", "typer", "typing-extensions", "urllib3",
    )),
}  # fmt: skip
# libraries whose versions the project is tested with, and which are small: carried whatever the machine has
CARRIED = ("peft", "xxhash")
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "any")
SOURCE_ALONE = ("deepspeed",)  # published without wheels; pure Python as long as no operator is built beforehand
ENVIRONMENT = {
    "python_version": PYTHON, "python_full_version": f"{PYTHON}.3", "sys_platform": "linux", "extra": "",
    "platform_system": "Linux", "platform_machine": "x86_64", "implementation_name": "cpython", "os_name": "posix",
    "platform_python_implementation": "CPython",
}  # fmt: skip


def wanted(requirements: Iterable[str]) -> list[Requirement]:
    """Those that hold on the machine; of no extra."""
    parsed = map(Requirement, requirements)
    return [one for one in parsed if one.marker is None or one.marker.evaluate(ENVIRONMENT)]


def missing() -> set[str]:
    """Names of all that the project stands on, directly or not, and the machine has not."""
    found: set[str] = set()
    ahead = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["dependencies"]
    while ahead:
        names = {canonicalize_name(one.name) for one in wanted(ahead)} - found - THERE.keys()
        found |= names
        ahead = [line for name in names for line in requires(name) or ()]
    return found


def fetch(names: Iterable[str]) -> None:
    """Wheels of the versions that are installed here, into the folder."""
    pins = [f"{name}=={version(name)}" for name in sorted(names)]
    pip, source = [sys.executable, "-m", "pip"], [pin for pin in pins if pin.partition("==")[0] in SOURCE_ALONE]
    where = ["--python-version", PYTHON, "--implementation", "cp", *(f"--platform={name}" for name in PLATFORMS)]
    download = ["download", "--quiet", "--no-deps", "--only-binary=:all:", *where, "--dest", str(FOLDER)]
    subprocess.run([*pip, *download, *(pin for pin in pins if pin not in source)], check=True)
    build = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(FOLDER)]
    subprocess.run([*pip, *build, *source], check=True)


def unmet(wheels: Iterable[Path], there: Mapping[str, str | None]) -> list[str]:
    """What a wheel asks for that neither another wheel nor the machine has, as far as versions are known."""
    asked, has = [], dict(there)
    for wheel in wheels:
        with ZipFile(wheel) as archive:
            name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
            metadata = message_from_string(archive.read(name).decode())
        has[canonicalize_name(metadata["Name"])] = metadata["Version"]
        asked += [(metadata["Name"], one) for one in wanted(metadata.get_all("Requires-Dist") or ())]
        if PYTHON not in SpecifierSet(metadata["Requires-Python"] or ""):
            asked.append((metadata["Name"], Requirement(f"python{metadata['Requires-Python']}")))
    return [
        f"{name} asks for {one}, there is {has.get(canonicalize_name(one.name), 'none')}"
        for name, one in asked
        if canonicalize_name(one.name) not in has or not _suits(has[canonicalize_name(one.name)], one.specifier)
    ]


def _suits(version: str | None, specifier: SpecifierSet) -> bool:
    return version is None or specifier.contains(version, prereleases=True)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.whl"):
        old.unlink()
    fetch(missing() | set(CARRIED))
    wheels = sorted(FOLDER.glob("*.whl"))
    lacking = unmet(wheels, THERE)
    size = sum(wheel.stat().st_size for wheel in wheels)
    print(f"{len(wheels)} wheels, {size / 2**20:.0f} MiB, in {FOLDER.relative_to(REPOSITORY)}/")
    print("".join(f"  {line}\n" for line in lacking), end="")
    if lacking or size > LIMIT:
        sys.exit("this will not do: see above" if lacking else f"over {LIMIT / 2**20:.0f} MiB")
    print(f"there, in the repository's root, with {FOLDER.name}/ carried along:\n\n{COMMAND}\n")


COMMAND = (
    "python3 -m pip install -q --no-index --no-deps --no-compile --upgrade --target /tmp/site .gpu/*.whl && "
    "PYTHONPATH=/tmp/site:$PWD:$PWD/benchmarks python3 -m gpu.run"
)


if __name__ == "__main__":
    main()
