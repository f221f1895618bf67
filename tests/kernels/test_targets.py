"""The kernels compile for processors that this machine is not, with the instructions they have."""

import subprocess

import pytest

from densepath.kernels import compile as compiling

pytestmark = pytest.mark.slow

OPTIONS = [one for one in compiling.OPTIONS if not one.startswith(("-march", "-shared"))]
# Of AMD's Zen 4 and later, for compilers that do not know them by name.
ZEN4 = (
    "znver3 -mavx512f -mavx512cd -mavx512dq -mavx512bw -mavx512vl -mavx512ifma -mavx512vbmi "
    "-mavx512vbmi2 -mavx512vnni -mavx512bitalg -mavx512vpopcntdq -mavx512bf16 -mgfni"
)
PRODUCT, ROUNDING = "vdpbf16ps", "vcvtneps2bf16"


def assembler(march):
    """The kernels in assembler; skips what this compiler does not know."""
    compiler = compiling.find_compiler()
    if compiler is None:
        pytest.skip("needs a C++ compiler: apt-get install g++")
    main = compiling.SOURCES / compiling.INFERENCE.main
    done = subprocess.run(
        [*compiler, *OPTIONS, *f"-march={march}".split(), "-S", str(main), "-o", "-"],
        capture_output=True,
        text=True,
        check=False,
    )
    if "bad value" in done.stderr or "unknown target CPU" in done.stderr:
        pytest.skip(f"this compiler does not know {march}")
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize(
    "march", ["cooperlake", "sapphirerapids", ZEN4], ids=["cooperlake", "sapphirerapids", "zen 4"]
)
def test_processors_that_multiply_bfloat16_do(march):
    text = assembler(march)
    assert PRODUCT in text
    assert ROUNDING in text


@pytest.mark.parametrize("march", ["x86-64", "haswell", "icelake-server"])
def test_other_processors_compute_it_in_float32(march):
    assert PRODUCT not in assembler(march)
