"""Attention within sequences of different lengths in one call, by optional GPU kernels.

They take half precision and give no gradients here.

Letters: n tokens of all sequences, h heads, D head dimension, S sequences.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

# (query, key, value (n, h, D), starts (S + 1,) int32, tokens of the longest sequence) ->
# attention (n, h, D), log-sum-exp of the scaled logits (n, h) float32
RaggedKernel = Callable[[Tensor, Tensor, Tensor, Tensor, int], tuple[Tensor, Tensor]]


def _varlen(
    query: Tensor, key: Tensor, value: Tensor, starts: Tensor, longest: int
) -> tuple[Tensor, Tensor]:
    from torch.nn.attention.varlen import AuxRequest, varlen_attn

    # Queries and keys have the same starts: a window attends to itself.
    aux = AuxRequest(lse=True)
    out, lse = varlen_attn(query, key, value, starts, starts, longest, longest, return_aux=aux)
    return out, _token_first(lse, query)


def _flash_attn(
    query: Tensor, key: Tensor, value: Tensor, starts: Tensor, longest: int
) -> tuple[Tensor, Tensor]:
    from flash_attn import flash_attn_varlen_func

    out, lse, _ = flash_attn_varlen_func(
        query, key, value, starts, starts, longest, longest, return_attn_probs=True
    )
    return out, _token_first(lse, query)


def _token_first(lse: Tensor, query: Tensor) -> Tensor:
    """(h, n), as the kernels give it, or (n, h), as torch documents it, to (n, h)."""
    tokens, heads = query.shape[:2]
    if lse.shape == (heads, tokens):
        return lse.t()
    if lse.shape == (tokens, heads):
        return lse
    raise RuntimeError(
        f"the attention kernel gave log-sum-exps of shape {tuple(lse.shape)} for {heads} heads and "
        f"{tokens} tokens; flash-attn before 2.7 does so: update it, or set the ViT's "
        'xattn="sdpa"'
    )


RAGGED_KERNELS: dict[str, RaggedKernel] = {"varlen": _varlen, "flash-attn": _flash_attn}
