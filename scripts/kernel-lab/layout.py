# Part of Martlet. See LICENSE.
# SPDX-License-Identifier: Apache-2.0
"""The weight layout `mma16x16` (described in mma16x16.cuh) in PyTorch, and quantization for tests.

WEIGHT numbers: 1 f16, 2 bf16, 4 and 8 bits. ZERO: 0 none, 1 integer, 2 minimum.
"""

import torch
from nvrtc import words_of


def paired8(gate, up):
    """Gate and up rows, 8 and 8 of the same outputs."""
    pad = -gate.shape[0] % 8
    gate, up = (torch.nn.functional.pad(x, (0, 0, 0, pad)) for x in (gate, up))
    return torch.stack((gate.unflatten(0, (-1, 8)), up.unflatten(0, (-1, 8))), 1).flatten(0, 2)


def pack(codes, weight, group=0, scales=None, zeros=None, interleave=0):
    """Bytes of the layout. `codes` [N, K]: bf16, f16, or u8 codes; scales and zeros [N, K / group]."""
    n, k = codes.shape
    word_k, words = words_of(weight, k)
    pad = -n % 16
    codes = torch.nn.functional.pad(codes, (0, 0, 0, pad))
    tiles = codes.view(-1, 2, 8, k // word_k, word_k // 16, 2, 4, 2)  # strip row8 g word tile half t pair
    if weight == 4:
        x = tiles.permute(0, 3, 2, 6, 4, 7, 1, 5)  # strip word g t tile pair row8 half
        x = x[..., 0] | x[..., 1] << 4
    else:
        x = tiles.permute(0, 3, 2, 6, 4, 5, 1, 7)  # strip word g t tile half row8 pair
    x = x.contiguous().view(torch.uint8).reshape(-1, k // word_k // words, words * 512)
    if group and weight in (4, 8):
        parts = [scales] if zeros is None else [scales, zeros]
        parts = [torch.nn.functional.pad(p.half(), (0, 0, 0, pad)).view(
            -1, 2, 8, x.shape[1], words * word_k // group) for p in parts]
        s = torch.stack(parts, 0).permute(1, 4, 5, 3, 0, 2).contiguous()  # strip chunk group g kind row8
        x = torch.cat((x, s.view(torch.uint8).reshape(x.shape[0], x.shape[1], -1)), 2)
    return (interleaved(x, interleave) if interleave else x).reshape(-1)


def interleaved(x, blocks):
    """Chunk j of block b goes to j x blocks + b; blocks own whole strips, the longer ones first."""
    strips, chunks = x.shape[:2]
    few, longer = strips // blocks, strips % blocks
    head = x[:longer * (few + 1)].view(longer, (few + 1) * chunks, -1)
    tail = x[longer * (few + 1):].view(blocks - longer, few * chunks, -1)
    even = torch.cat((head[:, :few * chunks], tail), 0).transpose(0, 1)
    return torch.cat((even.reshape(-1, x.shape[2]), head[:, few * chunks:].transpose(0, 1).reshape(-1, x.shape[2])))


def plane(x, rows):
    """Per-channel numbers, padded to whole strips."""
    return torch.nn.functional.pad(x.float(), (0, -rows % 16))


def quantize(w, weight, group, zero):
    """(codes, scales, zeros, decoded f32); one group per row where `group` is 0."""
    if weight in (1, 2):
        codes = w.to(torch.float16 if weight == 1 else torch.bfloat16)
        return codes, None, None, codes.float()
    top = 15 if weight == 4 else 255
    middle = (top + 1) // 2
    g = w.float().view(w.shape[0], -1, group or w.shape[1])
    if zero == 0:
        s = g.abs().amax(2) / (middle - 1)
        s = s.half().float() if group else s
        q = (g / s[..., None]).round().clamp(-middle, middle - 1)
        return (q + middle).to(torch.uint8).view_as(w), s, None, (q * s[..., None]).view_as(w)
    low, high = g.amin(2), g.amax(2)
    s = (high - low) / top
    s = s.half().float() if group else s
    if zero == 1:
        z = (-low / s).round().clamp(0, top)
        q = (g / s[..., None] + z[..., None]).round().clamp(0, top)
        return q.to(torch.uint8).view_as(w), s, z, ((q - z[..., None]) * s[..., None]).view_as(w)
    m = low.half().float() if group else low
    q = ((g - m[..., None]) / s[..., None]).round().clamp(0, top)
    return q.to(torch.uint8).view_as(w), s, m, (q * s[..., None] + m[..., None]).view_as(w)


def random_weights(f, inputs, outputs):
    """Packed random codes: finite numbers of a small size."""
    strips = (outputs + 15) // 16
    if f["WEIGHT"] == 2:
        return (torch.randn(strips * 16 * inputs, device="cuda") * 0.02).bfloat16().view(torch.uint8)
    word_k, words = words_of(f["WEIGHT"], inputs)
    chunks = strips * inputs // (word_k * words)
    x = torch.randint(0, 256, (chunks, words * 512), device="cuda", dtype=torch.uint8)
    if f.get("GROUP"):
        scales = torch.full((chunks, words * word_k // f["GROUP"] * 16), 0.005, device="cuda", dtype=torch.float16)
        x = torch.cat((x, scales.view(torch.uint8)), 1)
    return x.reshape(-1)
