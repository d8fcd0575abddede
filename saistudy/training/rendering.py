"""Plans made into pixels, as OpenCV 5 would: mosaic, affine, mixup, HSV, flips and channel order in one go.

The arithmetic is OpenCV 5.0.0's, found by comparing (tests/test_deferred.py): the inverse matrix in float64,
cast to float32; a row's term y m1 + m2 rounded twice, the column's fused; bilinear between four taps, fused,
rounded half to even; 114 where no patch is. BGR to HSV is OpenCV's integer arithmetic; HSV to BGR is a table
that OpenCV itself fills. Mixup is NumPy's float64, cut. OpenCV 4 warps with 1/32 pixel and differs.
"""

from functools import cache

import cv2
import numpy as np
import torch

from saistudy.training.plans import FLAGS, LAYERS_N, PATCH_N, PATCHES_N, unpacked

FILL = 114  # Ultralytics' grey around images
HUES_N = 180


def to_hsv() -> np.ndarray:
    """OpenCV's two division tables (2, 256) int32: of value for saturation, of the spread for hue."""
    level = np.arange(1, 256, dtype=np.float64)
    table = np.zeros((2, 256), np.int32)
    table[0, 1:] = np.rint((255 << 12) / level)
    table[1, 1:] = np.rint((HUES_N << 12) / (6 * level))
    return table


@cache
def from_hsv() -> np.ndarray:
    """BGR of every hue, saturation, value, (180 * 256 * 256, 3) uint8 (35 MB), from the installed OpenCV."""
    levels = np.indices((256, 256), dtype=np.uint8)
    grid = np.empty((256, 256, 3), np.uint8)
    grid[..., 1], grid[..., 2] = levels
    table = np.empty((HUES_N, 256 * 256, 3), np.uint8)
    for hue in range(HUES_N):
        grid[..., 0] = hue
        table[hue] = cv2.cvtColor(grid, cv2.COLOR_HSV2BGR).reshape(-1, 3)
    return table.reshape(-1, 3)


class TorchRenderer:
    """Renders with plain torch operations, an image at a time; on a CPU, for tests and where Triton is not.

    Args:
        pixels: the store's bytes, uint8 (bytes,).
        hw: height and width of what is rendered.
    """

    def __init__(self, pixels: torch.Tensor, hw: tuple[int, int]):
        self.pixels, self.hw = pixels, hw
        self.to_hsv = torch.from_numpy(to_hsv()).to(pixels.device)
        self.from_hsv = torch.from_numpy(from_hsv()).to(pixels.device)

    def __call__(self, plans: torch.Tensor) -> torch.Tensor:
        """Images (N, 3, height, width) uint8 of plans (N, BYTES_N) uint8."""
        ints, floats, luts = unpacked(plans.to(self.pixels.device))
        return torch.stack([self._image(*one) for one in zip(ints, floats, luts, strict=True)])

    def _image(self, ints: torch.Tensor, floats: torch.Tensor, lut: torch.Tensor) -> torch.Tensor:
        flags = dict(zip(FLAGS, ints[-len(FLAGS) :].tolist(), strict=True))
        patches = ints[: -len(FLAGS)].reshape(LAYERS_N, PATCHES_N, PATCH_N)
        layers = [
            self._warped(patches[k], floats[6 * k : 6 * k + 6].to(torch.float32))
            for k in range(flags["layers_n"])
        ]
        image = layers[0]
        if len(layers) > 1:
            image = layers[0].double() * floats[-2] + layers[1].double() * floats[-1]
            image = image.to(torch.uint8)
        image = self._shifted(image, lut) if flags["hsv"] else image
        flipped = [axis for axis, on in enumerate((flags["flip_up_down"], flags["flip_left_right"])) if on]
        image = image.flip(flipped) if flipped else image
        return (image.flip(2) if flags["reverse"] else image).permute(2, 0, 1).contiguous()

    def _warped(self, patches: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
        """A canvas through an inverse matrix, (height, width, 3) uint8."""
        height, width = self.hw
        y, x = (torch.arange(n, device=m.device) for n in (height, width))
        sx, sy = (_fma(m[k], x[None], (y.float() * m[k + 1] + m[k + 2])[:, None]) for k in (0, 3))
        ix, iy = sx.floor(), sy.floor()
        fx, fy = (sx - ix)[..., None], (sy - iy)[..., None]
        ix, iy = ix.long(), iy.long()
        taps = [[self._tap(patches, ix + dx, iy + dy) for dx in (0, 1)] for dy in (0, 1)]
        top, bottom = (_fma(fx, right - left, left) for left, right in taps)
        return _fma(fy, bottom - top, top).round().clamp(0, 255).to(torch.uint8)

    def _tap(self, patches: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Pixels of the canvas at whole coordinates, (height, width, 3) float32."""
        at = torch.full_like(x, -1)
        for base, wide, x1, y1, x2, y2 in patches.tolist():
            inside = (x >= x1) & (x < x2) & (y >= y1) & (y < y2)
            at = torch.where(inside, base + 3 * (y * wide + x), at)
        found = self.pixels[at.clamp(0)[..., None] + torch.arange(3, device=at.device)]
        return torch.where(at[..., None] < 0, FILL, found).float()

    def _shifted(self, image: torch.Tensor, lut: torch.Tensor) -> torch.Tensor:
        """Hue, saturation and value through their tables, (height, width, 3) uint8."""
        blue, green, red = image.int().unbind(-1)
        value = torch.maximum(torch.maximum(blue, green), red)
        spread = value - torch.minimum(torch.minimum(blue, green), red)
        saturation = (spread * self.to_hsv[0][value] + (1 << 11)) >> 12
        hue = torch.where(value == green, blue - red + 2 * spread, red - green + 4 * spread)
        hue = torch.where(value == red, green - blue, hue)
        hue = (hue * self.to_hsv[1][spread] + (1 << 11)) >> 12
        hue = torch.where(hue < 0, hue + HUES_N, hue)
        h, s, v = (lut[k][plane].long() for k, plane in enumerate((hue, saturation, value)))
        return self.from_hsv[(h * 256 + s) * 256 + v]


def _fma(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """a b + c of float32 values, rounded once: the product of two float32 is exact in float64."""
    return (a.double() * b.double() + c.double()).float()
