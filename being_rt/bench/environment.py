"""What a measurement was made on: enough to compare two of them, nothing that names the machine, its user or a path."""

from __future__ import annotations

import ctypes
import datetime
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

import being_rt
from being_rt.cuda import check_device
from being_rt.parallel import usable_cores

# What must agree before two speeds can be compared; the rest is told for the record.
COMPARABLE = ("processor", "cores", "instruction set", "system", "GPU")


def environment(device: str = "cpu") -> dict[str, str]:
    """Facts by name, with those of a CUDA device where one is named. COMPARABLE says which must agree.

    >>> sorted(environment())[:2]
    ['CUDA part', 'Python']
    """
    return {
        "being_rt": being_rt.__version__,
        "commit": _commit(),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "processor": processor(),
        "cores": str(usable_cores()),
        **native_build(),
        "system": f"{platform.system()} {platform.machine()}",
        "kernel": platform.release().split("-")[0],  # what follows names somebody's machines
        "Python": platform.python_version(),
        "NumPy": np.__version__,
        **gpu_facts(device),
    }


def gpu_facts(device: str) -> dict[str, str]:
    """What a CUDA device is and what drives it; nothing for "cpu". Raises ``DeviceError``."""
    index = check_device(device)
    if index is None:
        return {}
    from being_rt import _C

    facts = _C.cuda_devices()[index]
    major, minor = facts["capability"]
    return {
        "GPU": str(facts["name"]),
        "capability": f"{major}.{minor}",
        "multiprocessors": str(facts["multiprocessors"]),
        "GPU memory": f"{facts['memory'] / 1e9:.0f} GB",
        "driver": _driver(),
        "CUDA of driver": _cuda_of_driver(),
        "CUDA code for": _C.cuda_architectures,
    }


def _driver() -> str:
    """The version of the kernel's module, where Linux tells."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text()
    except OSError:
        return "unknown"
    found = re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)", text)
    return found[1] if found else "unknown"


def _cuda_of_driver() -> str:
    """The latest CUDA version that the driver runs, like 13.0."""
    try:
        library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        version = ctypes.c_int(0)
        if library.cuDriverGetVersion(ctypes.byref(version)) == 0:
            return f"{version.value // 1000}.{version.value % 1000 // 10}"
    except (AttributeError, OSError):
        pass
    return "unknown"


def processor() -> str:
    """The processor's name as its maker gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown"


def memory_gigabytes() -> float | None:
    """Main memory in GB, where the system tells."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (AttributeError, OSError, ValueError):
        return None


def peak_memory_megabytes() -> float | None:
    """The most memory that this process has held so far, in MB, where the system tells."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6  # bytes there, KiB elsewhere


def native_build() -> dict[str, str]:
    """What the native core was built from and which instruction set it chose here."""
    from being_rt import _C

    return {
        "instruction set": os.environ.get("BEING_RT_SIMD") or _C.simd_levels()[-1],
        "compiler": _C.compiler,
        "CUDA part": "built" if _C.cuda_built else "not built",
    }


def _commit() -> str:
    """The commit of a source checkout; "unknown" for an installed package."""
    root = Path(being_rt.__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return "unknown"
    try:
        command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=10"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
