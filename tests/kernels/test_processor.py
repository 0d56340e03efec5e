"""Claims about what kernels may use of a processor, whatever the compiler was told."""

import pytest

from kernels import processor
from kernels.processor import LANES_NAMES, choose_lanes

AVX2 = "+sse,+sse2,+sse3,+ssse3,+sse4.1,+sse4.2,+avx,+avx2,+fma,+f16c"
AVX512 = AVX2 + ",+avx512f,+avx512vl,+avx512bw,+avx512dq"
IFMA = AVX512 + ",+avx512ifma"


def tell(monkeypatch: pytest.MonkeyPatch, features: str) -> None:
    """Let the compiler's features be these for the rest of a test."""
    monkeypatch.setattr(processor.CONFIG, "CPU_FEATURES", features)


def test_effective_features_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the compiler was told to use counts, not what the processor could do."""
    tell(monkeypatch, "+avx512f,-avx512ifma, +avx512vl,+avx512bw")
    assert processor.cpu_features() == {"avx512f", "avx512vl", "avx512bw"}
    assert not processor.has_avx512()
    tell(monkeypatch, "+avx512f,+avx512vl,+avx512bw,+avx512dq")
    assert processor.has_avx512()


@pytest.mark.parametrize(
    ("features", "lanes"),
    [
        (IFMA, "ifma"), (AVX512, "avx512"), (AVX2, "avx2"), ("+sse2,+avx,+avx2", None), ("", None),
        (AVX512.replace("+avx512dq", "-avx512dq"), "avx2"),
    ],
)  # fmt: skip
def test_features_choose_the_lanes(
    features: str, lanes: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fastest that may be compiled, what was forced if it may, and nothing that may not."""
    tell(monkeypatch, features)
    usable = LANES_NAMES[LANES_NAMES.index(lanes) :] if lanes else ()
    assert choose_lanes(None) == choose_lanes("libsodium") == choose_lanes("no path") == lanes
    for name in LANES_NAMES:
        assert choose_lanes(name) == (name if name in usable else lanes)
        assert (processor.missing_features(name) == []) == (name in usable)


@pytest.mark.parametrize(
    ("off", "lanes"),
    [
        ("sse", None), ("sse4.2", None), ("avx", None), ("avx2", None), ("fma", None),
        ("f16c", "avx2"), ("avx512f", "avx2"), ("avx512vl", "avx2"), ("avx512ifma", "avx512"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("order", ["{on},-{off}", "-{off},{on}", "{on},-{off},+{off}"])
def test_what_is_switched_off_takes_along_what_builds_on_it(
    off: str, lanes: str | None, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compiler drops it too, and would end the process at the first such instruction."""
    tell(monkeypatch, order.format(on=IFMA, off=off))
    assert off not in processor.cpu_features()
    assert choose_lanes(None) == lanes
