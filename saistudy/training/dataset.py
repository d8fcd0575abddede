"""The stock data set at exactly a rectangle: stock transforms get it through their public attributes."""

import cv2
from ultralytics.data import YOLODataset
from ultralytics.data.augment import LetterBox, Mosaic, RandomPerspective
from ultralytics.data.utils import get_split_fraction


def walk(transform):
    """Every transform of a Compose tree, those before MixUp, CutMix and CopyPaste included."""
    yield transform
    for part in [*getattr(transform, "transforms", []), getattr(transform, "pre_transform", None)]:
        if part is not None:
            yield from walk(part)


def mosaic(dataset) -> float:
    """The probability of mosaic among the transforms of an Ultralytics data set, 0 where there is none."""
    return max((float(t.p) for t in walk(dataset.transforms) if isinstance(t, Mosaic)), default=0.0)


def set_rectangle(transforms, hw: tuple[int, int], kinds: set[type]) -> None:
    """Give stock transforms the rectangle, and prove that each kind that decides the shape was met.

    Mosaic keeps its canvas of twice its integer size and moves the joint into the central rectangle;
    RandomPerspective then crops about the centre of that canvas.

    Raises:
        RuntimeError: a kind was not met: this Ultralytics builds its transforms in another way.
    """
    height, width = hw
    met = set()
    for transform in walk(transforms):
        if isinstance(transform, Mosaic):
            size = transform.imgsz
            transform.border = (height // 2 - size, width // 2 - size)
        elif isinstance(transform, RandomPerspective):
            transform.size = (width, height)
        elif isinstance(transform, LetterBox):
            transform.new_shape = hw
        met.add(type(transform))
    if missing := kinds - met:
        raise RuntimeError(
            f"no {missing} among the transforms: the rectangle cannot be set in this Ultralytics"
        )


class RectDataset(YOLODataset):
    """The stock data set whose samples are letterboxed or cropped to `hw` (height, width in pixels)."""

    def __init__(self, *args, hw: tuple[int, int], **kwargs):
        self.hw = hw
        super().__init__(*args, imgsz=max(hw), rect=False, pad=0.0, **kwargs)

    def load_image(self, i, rect_mode=True, resize_short=False):
        """The stock triple (image, original shape, resized shape), shrunk until it fits the rectangle.

        Stock only makes the long side fit a square. LetterBox would shrink further, but then boxes are
        scaled back without the rounding to whole pixels: off by up to half a pixel of the tensor.
        """
        image, original, resized = super().load_image(i, rect_mode, resize_short)
        ratio = min(self.hw[0] / resized[0], self.hw[1] / resized[1])
        if ratio >= 1:
            return image, original, resized
        height, width = (max(1, min(round(n * ratio), m)) for n, m in zip(resized, self.hw, strict=True))
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        return image.reshape(height, width, -1), original, (height, width)

    def build_transforms(self, hyp):
        """The stock transforms with the rectangle set."""
        transforms = super().build_transforms(hyp)
        set_rectangle(transforms, self.hw, {Mosaic, RandomPerspective} if self.augment else {LetterBox})
        return transforms


def build_dataset(args, path, hw, batch, data, mode, stride, kind=RectDataset) -> RectDataset:
    """A RectDataset, or `kind` of it, as Ultralytics builds its own (`build_yolo_dataset`, 8.4.190)."""
    return kind(
        img_path=path,
        hw=hw,
        batch_size=batch,
        augment=mode == "train",
        hyp=args,
        cache=args.cache or None,
        single_cls=args.single_cls or False,
        stride=stride,
        prefix=f"{mode}: ",
        task=args.task,
        classes=args.classes,
        data=data,
        fraction=get_split_fraction(args.fraction, "train" if mode == "train" else args.split),
    )


def refuse_other_shape(batch: dict, hw: tuple[int, int]) -> None:
    """Raise RuntimeError unless the batch's images (N, 3, height, width) have exactly the declared shape."""
    seen = tuple(batch["img"].shape[2:])
    if seen != tuple(hw):
        raise RuntimeError(f"a tensor of {seen} reached the network where {tuple(hw)} was declared")
