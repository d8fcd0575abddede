"""The renderer as one fused Triton kernel: a plan and a store in, a batch out, nothing in between in memory.

Compiled without contraction of a product and a sum (`enable_fp_fusion=False`): where OpenCV rounds twice, so
does this; where it fuses, `tl.fma` says so. Imported only where Triton is (it ships with CUDA torch).
"""

import numpy as np
import torch
import triton
import triton.language as tl

from saistudy.training.plans import FLAGS, LAYERS_N, PATCH_N, PATCHES_N, unpacked
from saistudy.training.rendering import FILL, HUES_N, from_hsv, to_hsv

BLOCK_N = 256  # pixels a program renders; 4 warps
SPARE_SHARE = 0.45  # of the free GPU memory may hold the store, the rest is the training's (see `resident`)

_LAYERS, _PATCHES, _PATCH, _FILL, _HUES = (
    tl.constexpr(n) for n in (LAYERS_N, PATCHES_N, PATCH_N, FILL, HUES_N)
)
_FLAGS = tl.constexpr(len(FLAGS))
_INTS = tl.constexpr(LAYERS_N * PATCHES_N * PATCH_N + len(FLAGS))
_FLOATS = tl.constexpr(6 * LAYERS_N + 2)


@triton.jit
def _at(ints, layer: tl.constexpr, x, y):
    """Byte of the store that a canvas pixel lies at, -1 where no patch is; x and y (BLOCK,) int64."""
    found = tl.full(x.shape, -1, tl.int64)
    for k in tl.static_range(_PATCHES):
        patch = ints + (layer * _PATCHES + k) * _PATCH
        base, wide = tl.load(patch), tl.load(patch + 1)
        inside = (x >= tl.load(patch + 2)) & (y >= tl.load(patch + 3))
        inside = inside & (x < tl.load(patch + 4)) & (y < tl.load(patch + 5))
        found = tl.where(inside, base + 3 * (y * wide + x), found)
    return found


@triton.jit
def _blend(pixels, a, b, c, d, fx, fy, channel: tl.constexpr):
    """One channel between four taps, rounded half to even; float32 of whole numbers 0 to 255."""
    left = tl.load(pixels + a + channel, mask=a >= 0, other=_FILL).to(tl.float32)
    right = tl.load(pixels + b + channel, mask=b >= 0, other=_FILL).to(tl.float32)
    top = tl.fma(fx, right - left, left)
    left = tl.load(pixels + c + channel, mask=c >= 0, other=_FILL).to(tl.float32)
    right = tl.load(pixels + d + channel, mask=d >= 0, other=_FILL).to(tl.float32)
    bottom = tl.fma(fx, right - left, left)
    value = tl.fma(fy, bottom - top, top)
    low = tl.floor(value)
    part = value - low
    odd = low - 2 * tl.floor(low * 0.5)
    up = (part > 0.5) | ((part == 0.5) & (odd == 1))
    return tl.minimum(tl.maximum(tl.where(up, low + 1, low), 0.0), 255.0)


@triton.jit
def _warped(pixels, ints, floats, layer: tl.constexpr, x, y):
    """Blue, green and red of a layer at whole coordinates of the rendered image."""
    m = floats + 6 * layer
    m0, m1, m2 = (
        tl.load(m).to(tl.float32),
        tl.load(m + 1).to(tl.float32),
        tl.load(m + 2).to(tl.float32),
    )
    m3, m4, m5 = (
        tl.load(m + 3).to(tl.float32),
        tl.load(m + 4).to(tl.float32),
        tl.load(m + 5).to(tl.float32),
    )
    fx, fy = x.to(tl.float32), y.to(tl.float32)
    sx = tl.fma(tl.zeros_like(fx) + m0, fx, fy * m1 + m2)
    sy = tl.fma(tl.zeros_like(fx) + m3, fx, fy * m4 + m5)
    lx, ly = tl.floor(sx), tl.floor(sy)
    ix, iy = lx.to(tl.int64), ly.to(tl.int64)
    fx, fy = sx - lx, sy - ly
    a, b = _at(ints, layer, ix, iy), _at(ints, layer, ix + 1, iy)
    c, d = _at(ints, layer, ix, iy + 1), _at(ints, layer, ix + 1, iy + 1)
    blue = _blend(pixels, a, b, c, d, fx, fy, 0)
    green = _blend(pixels, a, b, c, d, fx, fy, 1)
    return blue, green, _blend(pixels, a, b, c, d, fx, fy, 2)


@triton.jit
def _mixed(one, other, weight, rest):
    """NumPy's blend in float64, cut to a whole number."""
    return (one.to(tl.float64) * weight + other.to(tl.float64) * rest).to(tl.int32)


@triton.jit
def _shifted(blue, green, red, lut, to_hsv, from_hsv):
    """OpenCV's integer HSV, its planes through the tables, back by a table."""
    value = tl.maximum(tl.maximum(blue, green), red)
    spread = value - tl.minimum(tl.minimum(blue, green), red)
    saturation = (spread * tl.load(to_hsv + value) + 2048) >> 12
    hue = tl.where(value == green, blue - red + 2 * spread, red - green + 4 * spread)
    hue = tl.where(value == red, green - blue, hue)
    hue = (hue * tl.load(to_hsv + 256 + spread) + 2048) >> 12
    hue = tl.where(hue < 0, hue + _HUES, hue)
    h = tl.load(lut + hue).to(tl.int32)
    s = tl.load(lut + 256 + saturation).to(tl.int32)
    v = tl.load(lut + 512 + value).to(tl.int32)
    at = from_hsv + 3 * ((h * 256 + s) * 256 + v)
    return tl.load(at).to(tl.int32), tl.load(at + 1).to(tl.int32), tl.load(at + 2).to(tl.int32)


@triton.jit
def render_kernel(pixels, ints, floats, luts, to_hsv, from_hsv, out, height, width, BLOCK: tl.constexpr):
    """One block of pixels of one image; `out` is (N, 3, height, width) uint8."""
    image, block = tl.program_id(1).to(tl.int64), tl.program_id(0)
    ints, floats, lut = ints + image * _INTS, floats + image * _FLOATS, luts + image * 768
    flags = ints + _INTS - _FLAGS
    at = block * BLOCK + tl.arange(0, BLOCK)
    inside = at < height * width
    row, column = at // width, at % width
    y = tl.where(tl.load(flags + 1) != 0, height - 1 - row, row)
    x = tl.where(tl.load(flags + 2) != 0, width - 1 - column, column)
    blue, green, red = _warped(pixels, ints, floats, 0, x, y)
    b, g, r = blue.to(tl.int32), green.to(tl.int32), red.to(tl.int32)
    if tl.load(flags) > 1:
        blue2, green2, red2 = _warped(pixels, ints, floats, 1, x, y)
        weight, rest = tl.load(floats + 6 * _LAYERS), tl.load(floats + 6 * _LAYERS + 1)
        b, g, r = (
            _mixed(blue, blue2, weight, rest),
            _mixed(green, green2, weight, rest),
            _mixed(red, red2, weight, rest),
        )
    if tl.load(flags + 4) != 0:
        b, g, r = _shifted(b, g, r, lut, to_hsv, from_hsv)
    reverse = tl.load(flags + 3) != 0
    plane = out + image * 3 * height * width + at
    tl.store(plane, tl.where(reverse, r, b).to(tl.uint8), mask=inside)
    tl.store(plane + height * width, g.to(tl.uint8), mask=inside)
    tl.store(plane + 2 * height * width, tl.where(reverse, b, r).to(tl.uint8), mask=inside)


class TritonRenderer:
    """Renders a batch in one launch.

    Args:
        pixels: the store's bytes, uint8, on the device or pinned on the host (see `resident`).
        hw: height and width of what is rendered.
        device: where tables, plans and batches are.
        block_n: pixels per program, a power of 2; large ones suit the interpreter.
    """

    def __init__(self, pixels: torch.Tensor, hw: tuple[int, int], device: torch.device, block_n=BLOCK_N):
        self.pixels, self.hw, self.device, self.block_n = pixels, hw, device, block_n
        self.to_hsv = torch.from_numpy(to_hsv()).to(device)
        self.from_hsv = torch.from_numpy(from_hsv()).to(device)

    def __call__(self, plans: torch.Tensor) -> torch.Tensor:
        """Images (N, 3, height, width) uint8 of plans (N, BYTES_N) uint8."""
        ints, floats, luts = unpacked(plans.to(self.device, non_blocking=True))
        images = torch.empty((len(plans), 3, *self.hw), dtype=torch.uint8, device=self.device)
        grid = triton.cdiv(self.hw[0] * self.hw[1], self.block_n), len(plans)
        render_kernel[grid](
            *(self.pixels, ints, floats, luts, self.to_hsv, self.from_hsv, images, *self.hw),
            BLOCK=self.block_n,
            enable_fp_fusion=False,
        )
        return images


def resident(pixels: np.ndarray, device: torch.device) -> torch.Tensor:
    """The store's bytes where a kernel reads them: in GPU memory where they fit, else pinned where they are.

    Fitting is SPARE_SHARE of what is free before the training takes its part: on an H200 63 of 140 GiB, which
    holds 37,413 images at 896 (47 GiB at 16:9, 63 at 4:3: arithmetic) beside the 57 GiB of a seed's training.
    Pinning registers the mapped pages; the kernel then reads over PCIe. Neither was run on a GPU yet.

    Raises:
        RuntimeError: the pages cannot be registered.
    """
    host = torch.from_numpy(pixels)
    if len(pixels) <= SPARE_SHARE * torch.cuda.mem_get_info(device)[0]:
        return host.to(device)
    if failed := torch.cuda.cudart().cudaHostRegister(host.data_ptr(), len(pixels), 0):
        raise RuntimeError(f"{len(pixels)} bytes of the store cannot be pinned: {failed}")
    return host
