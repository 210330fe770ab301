"""Check the promises about the base install: its size, what an import loads, and how long that takes."""

import subprocess
import sys
import sysconfig
from pathlib import Path

LIMIT_MB = 280
LIMIT_SECONDS = 0.5
TOOLS = ("pip", "setuptools", "pkg_resources", "_distutils_hack")  # of the virtual environment, not ours

site = Path(sysconfig.get_path("purelib"))
files = [file for file in site.rglob("*") if file.is_file() and not file.relative_to(site).parts[0].startswith(TOOLS)]
megabytes = sum(file.stat().st_size for file in files) / 1e6
print(f"site-packages: {megabytes:.0f} MB (limit {LIMIT_MB})")

timed = "import time; start = time.perf_counter(); import gliclass_rerank; print(time.perf_counter() - start)"
seconds = sorted(
    float(subprocess.run([sys.executable, "-c", timed], capture_output=True, text=True, check=True).stdout)
    for _ in range(7)
)
print(f"import: {seconds[3]:.2f} s in the median, {seconds[0]:.2f} s at best (limit {LIMIT_SECONDS})")

# The best of seven: the limit is about what is imported, and a busy machine only adds to it.
sys.exit(megabytes > LIMIT_MB or seconds[0] > LIMIT_SECONDS)
