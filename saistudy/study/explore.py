"""What notebooks/explore.ipynb shows: a threshold and what moves with it, an index, two runs, a camera."""

import ipywidgets as widgets
import pandas as pd

from saistudy.study import catalogue, looking, sheets
from saistudy.study.controls import Chooser, Drawn, Panel, dropdown, offer, quiet

__all__ = ["Beside", "Browse", "Chooser", "Film", "Threshold", "figures"]

ANY, NONE = "any", "-"
PAGE_N, ONE_PX = 8, (1000, 700)
SHOWN = {
    **{"precision": "precision", "recall": "recall", "f1": "F1"},
    **{"tp_n": "boxes found", "fn_n": "boxes missed", "fp_n": "false boxes"},
    **{"image_recall": "alarm, of images with a box", "image_false_positive_rate": "of those without"},
    "alarms_per_camera_day": "false alarms a camera-day",
}


class Threshold(Panel):
    """The threshold, and what moves with it: figures, curves, and pictures with misses and false alarms."""

    def __init__(self, chosen: Chooser):
        super().__init__(chosen, [chosen.cut, chosen.again], [chosen.cut])

    def draw(self) -> Drawn:
        one, cut, n = self.chosen.seen, self.chosen.cut.value, sheets.COLUMNS_N
        table = figures(one, {"at the slider": cut, "chosen on val": one.cut})
        drawn, top, axes = sheets.figure(2, above_px=230)
        note = (
            f"{one.profile}, {one.run}, {one.model}, {one.split}: most missed boxes above, false alarms below"
        )
        sheets.by_threshold(top, looking.curve(one), cut, one.cut, note)
        for row, images in enumerate((looking.misses(one, cut, n), looking.alarms(one, cut, n))):
            _fill(axes[row * n : (row + 1) * n], one, images, cut, self.chosen.images.read)
        return table, drawn


def figures(one: looking.Seen, cuts: dict[str, float]) -> pd.DataFrame:
    """Figures at some thresholds by name, a row each: three digits, `-` where there is none."""
    return pd.DataFrame({name: _figures(one, cut) for name, cut in cuts.items()}).T


def _figures(one: looking.Seen, cut: float) -> dict[str, str]:
    seen = looking.figures(one, cut)
    return {"threshold": f"{cut:.3f}"} | {word: _cell(seen[key]) for key, word in SHOWN.items()}


def _cell(value: float | None) -> str:
    return NONE if value is None else f"{value:_}" if isinstance(value, int) else f"{value:.3f}"


def _fill(
    axes: list, one: looking.Seen, images: list[str], cut: float, read, titles: list | None = None
) -> None:
    """Pictures of the split with truth and what was predicted at or above a threshold."""
    sizes = one.images.set_index("image").loc[images, ["width", "height"]].itertuples(index=False)
    cells = [
        sheets.Cell(image, tuple(size), *looking.boxes(one, image, cut), title)
        for image, size, title in zip(images, sizes, titles or images, strict=True)
    ]
    sheets.fill(axes, cells, read)


class Browse(Panel):
    """The index, filtered: a page of pictures or a single one, with truth, and predictions where tested."""

    def __init__(self, chosen: Chooser):
        self.split, self.kind, self.finding = (
            dropdown(name, [ANY], ANY) for name in ("split", "kind", "finding")
        )
        self.group = widgets.Text(description="group", placeholder="begins with", continuous_update=False)
        self.page = widgets.BoundedIntText(description="page", min=1, max=1, value=1)
        self.size = widgets.ToggleButtons(options=["eight", "one"], style={"button_width": "5em"})
        filters = [self.split, self.kind, self.group, self.finding]
        super().__init__(chosen, [*filters, self.page, self.size])

    def offer(self) -> None:
        rows = self.chosen.images.rows
        for control in (self.split, self.kind, self.finding):
            offer(control, [ANY, *sorted(rows[control.description].unique())])

    def draw(self) -> Drawn:
        images, n = self.chosen.images, PAGE_N if self.size.value == "eight" else 1
        chosen = (self.split.value, self.kind.value, self.group.value.strip(), self.finding.value)
        rows = catalogue.choose(images.rows, *("" if value == ANY else value for value in chosen))
        if rows.empty:
            return "No image is of that split, kind, group and finding.", None
        with quiet(self):
            self.page.max = -(-len(rows) // n)
        shown = rows.iloc[(self.page.value - 1) * n : self.page.value * n]
        return self._table(shown, len(rows)), self._sheet(shown, n)

    def _table(self, shown: pd.DataFrame, all_n: int) -> pd.DataFrame:
        table = shown.set_index("image").rename_axis(f"{len(shown)} of {all_n:_} images")
        return table.rename(columns={"boxes_n": "boxes", "width": "width, px", "height": "height, px"})

    def _sheet(self, shown: pd.DataFrame, n: int):
        one, images = self.chosen.seen, self.chosen.images
        drawn, _, axes = sheets.figure(2) if n > 1 else sheets.figure(1, 1, cell=ONE_PX)
        tested = set(one.images["image"])
        cells = []
        for row in shown.itertuples():
            predicted = looking.boxes(one, row.image, one.cut)[1] if row.image in tested else []
            size, told = (row.width, row.height), "" if row.image in tested else " (not predicted)"
            cells.append(sheets.Cell(row.image, size, images.boxes(row.image), predicted, row.image + told))
        sheets.fill(axes, cells, images.read)
        return drawn


class Beside(Panel):
    """Another run on the same images, each at its own threshold: how often they part, and where."""

    def __init__(self, chosen: Chooser, against: str):
        self.run, self.model = dropdown("against", [against], against), dropdown("model", [NONE], NONE)
        self.page = widgets.BoundedIntText(description="page", min=1, max=1, value=1)
        super().__init__(chosen, [self.run, self.model, self.page])

    def offer(self) -> None:
        offer(self.run, [*looking.runs(self.chosen.profile.value)])
        self._models()

    def _models(self) -> None:
        models = looking.runs(self.chosen.profile.value)[self.run.value]
        if list(self.model.options) != models:
            offer(self.model, models)

    def draw(self) -> Drawn:
        with quiet(self):
            self._models()
        one, n = self.chosen.seen, sheets.COLUMNS_N
        other = looking.seen(one.profile, self.run.value, self.model.value, one.split)
        table, parted = looking.agreement(one, other), looking.parted(one, other)
        with quiet(self):
            self.page.max = max(1, -(-len(parted) // n))
        shown = parted[(self.page.value - 1) * n : self.page.value * n]
        drawn, _, axes = sheets.figure(2)
        for row, side in enumerate((one, other)):
            outcome = dict(zip(side.images["image"], looking.outcomes(side, side.cut), strict=True))
            titles = [f"{side.run} {side.model}: {outcome[image]}" for image in shown]
            _fill(axes[row * n : (row + 1) * n], side, shown, side.cut, self.chosen.images.read, titles)
        return table, drawn if shown else None


class Film(Panel):
    """The frames of one group in time: the largest score of each, and eight of them as pictures."""

    def __init__(self, chosen: Chooser):
        self.group = dropdown("group", [NONE], NONE)
        self.start = widgets.IntSlider(description="from frame", min=0, max=0, continuous_update=False)
        super().__init__(chosen, [self.group, self.start])

    def offer(self) -> None:
        offer(self.group, looking.filmed(self.chosen.seen) or [NONE])

    def draw(self) -> Drawn:
        one = self.chosen.seen
        frames = looking.film(one, self.group.value)
        with quiet(self):
            self.start.max = max(0, len(frames) - PAGE_N)
        shown = frames.iloc[self.start.value : self.start.value + PAGE_N]
        drawn, top, axes = sheets.figure(2, above_px=230)
        note = f"{one.profile}, {one.run}, {one.model}, {one.split}, group {self.group.value}"
        sheets.by_time(top, frames, one.cut, shown, note)
        titles = [f"{place}: {time:%Y-%m-%d %H:%M:%S}" for place, time in shown["time"].items()]
        _fill(axes, one, shown["image"].tolist(), one.cut, self.chosen.images.read, titles)
        alarm = shown["score"] >= one.cut
        return shown.assign(score=[_cell(v) if v == v else NONE for v in shown["score"]], alarm=alarm), drawn
