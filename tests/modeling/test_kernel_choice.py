"""Which attention kernel runs, and what is said of those that cannot."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest
import torch

from streampetr_vit.errors import InputError
from streampetr_vit.modeling.ops import attention, kernel_choice
from streampetr_vit.modeling.ops.kernel_choice import choose_kernel, why_not
from streampetr_vit.modeling.ops.ragged_attention import RAGGED_KERNELS

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
OLD_GPU = torch.device("cuda", 1)
HALF = torch.bfloat16


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Nothing that a test finds out holds in another."""
    for cached in (choose_kernel, why_not):
        cached.cache_clear()
    yield
    for cached in (choose_kernel, why_not):
        cached.cache_clear()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[], None]]:
    """A machine with a Hopper and a Turing GPU, on which everything imports and runs.

    A function that is put under the name of a module or a kernel is called where that is imported
    or tried.
    """
    acts: dict[str, Callable[[], None]] = {}

    def act(name: str) -> None:
        acts.get(name, lambda: None)()

    def kernel(name: str) -> Callable[..., None]:
        return lambda *arguments: act(name)

    made = torch.zeros
    monkeypatch.setattr(kernel_choice.torch, "zeros", lambda *s, device, **o: made(*s, **o))
    monkeypatch.setattr(kernel_choice.torch, "tensor", lambda values, **options: values)
    monkeypatch.setattr(kernel_choice.importlib, "import_module", act)
    monkeypatch.setattr(
        torch.cuda, "get_device_capability", lambda device: (9, 0) if device == GPU else (7, 5)
    )
    for name in RAGGED_KERNELS:
        monkeypatch.setitem(RAGGED_KERNELS, name, kernel(name))
    monkeypatch.setitem(attention.KERNELS, "xformers", kernel("xformers"))
    return acts


def failing(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def test_a_cpu_uses_torchs_kernel_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            assert choose_kernel("auto", CPU, torch.float32, False) == "sdpa"
    assert [r.message for r in caplog.records] == [
        "window attention in inference (cpu, torch.float32): sdpa"
    ]


@pytest.mark.usefixtures("machine")
def test_a_gpu_uses_one_call_in_inference_with_half_precision() -> None:
    assert choose_kernel("auto", GPU, HALF, False) == "varlen"
    assert choose_kernel("flash-attn", GPU, torch.float16, False) == "flash-attn"
    assert choose_kernel("auto", GPU, HALF, True) == "sdpa"
    assert choose_kernel("flash-attn", GPU, torch.float16, True) == "sdpa"
    assert choose_kernel("xformers", GPU, torch.float16, True) == "xformers"
    assert choose_kernel("auto", GPU, torch.float32, False) == "sdpa"


@pytest.mark.usefixtures("machine")
def test_the_gpu_of_the_tensors_is_asked() -> None:
    assert choose_kernel("auto", OLD_GPU, torch.float16, False) == "sdpa"
    with pytest.raises(InputError, match="'varlen' cannot run: it needs a GPU of compute cap"):
        choose_kernel("varlen", OLD_GPU, torch.float16, False)


@pytest.mark.usefixtures("machine")
def test_amd_gpus_have_no_varlen(monkeypatch: pytest.MonkeyPatch) -> None:
    """They too report a capability above 8."""
    monkeypatch.setattr(torch.version, "hip", "7.0")
    assert choose_kernel("auto", GPU, HALF, False) == "flash-attn"
    with pytest.raises(InputError, match="'varlen' cannot run: torch has it for NVIDIA's GPUs"):
        choose_kernel("varlen", GPU, HALF, False)


PROBLEMS = {
    "not installed": (
        "flash_attn",
        ModuleNotFoundError("No module named 'flash_attn'", name="flash_attn"),
        "flash_attn is not installed",
    ),
    "a part is not installed": (
        "flash_attn",
        ModuleNotFoundError("No module named 'einops'", name="einops"),
        "flash_attn does not import: No module named 'einops'",
    ),
    "built for another torch": (
        "flash_attn",
        ImportError("flash_attn_2_cuda.so: undefined symbol: _ZN3c10\nmore"),
        "flash_attn does not import: ImportError: flash_attn_2_cuda.so: undefined symbol",
    ),
    "a library is missing": (
        "flash_attn",
        OSError("libcudart.so.11.0: cannot open shared object file"),
        "flash_attn does not import: OSError: libcudart",
    ),
    "it raises": (
        "flash-attn",
        RuntimeError("FlashAttention only supports Ampere GPUs or newer.\nDetails"),
        "it fails: RuntimeError: FlashAttention only supports Ampere GPUs or newer",
    ),
    "another signature": (
        "flash-attn",
        TypeError("unexpected keyword argument 'return_attn_probs'"),
        "it fails: TypeError: unexpected keyword",
    ),
}


@pytest.mark.parametrize(("place", "error", "reason"), PROBLEMS.values(), ids=PROBLEMS)
def test_auto_falls_back_and_says_why_and_a_name_is_an_error(
    place: str,
    error: Exception,
    reason: str,
    machine: dict[str, Callable[[], None]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    machine["torch.nn.attention.varlen"] = failing(ImportError("of an older torch"))
    machine[place] = failing(error)
    with caplog.at_level(logging.INFO):
        assert choose_kernel("auto", GPU, HALF, False) == "sdpa"
    (record,) = caplog.records
    assert reason in record.message and "varlen: torch.nn.attention.varlen does" in record.message
    with pytest.raises(InputError, match="'flash-attn' cannot run: .*set the ViT's xattn=True"):
        choose_kernel("flash-attn", GPU, HALF, False)
    assert reason in (why_not("flash-attn", GPU, HALF) or "")


def test_xformers_is_tried_too(machine: dict[str, Callable[[], None]]) -> None:
    machine["xformers"] = failing(NotImplementedError("No operator found"))
    with pytest.raises(InputError, match="'xformers' cannot run: it fails: NotImpl.*No operator"):
        choose_kernel("xformers", GPU, torch.float16, True)


def test_a_kernel_is_tried_once(machine: dict[str, Callable[[], None]]) -> None:
    tried: list[int] = []
    machine["varlen"] = lambda: tried.append(1)
    for kernel in ("auto", "varlen", "auto"):
        choose_kernel(kernel, GPU, HALF, False)
    assert tried == [1]


def test_a_kernel_that_cannot_run_is_an_error() -> None:
    with pytest.raises(InputError, match="'flash-attn' cannot run: it needs a GPU"):
        choose_kernel("flash-attn", CPU, torch.float32, False)
    with pytest.raises(InputError, match="'flash' is unknown; use one of"):
        choose_kernel("flash", CPU, torch.float32, False)
