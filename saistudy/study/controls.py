"""Controls of notebooks/explore.ipynb, and below them one table and one picture that are replaced in place.

Where no kernel runs (a page, an executed notebook) the same display shows table and picture as they were
first drawn.
"""

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import ipywidgets as widgets
import pandas as pd
from IPython.display import display
from matplotlib.figure import Figure

from saistudy.paths import Refusal
from saistudy.study import catalogue, looking, sheets

PROFILES = ("demo", "mini", "h200")
LAB = tuple(f"lab/{name}" for name in PROFILES)  # what was run in JupyterLab (params.check)
Drawn = tuple[pd.DataFrame | str, Figure | None]  # a table or a sentence, and a figure where there is one


class Chooser:
    """Which model of which run is looked at, and at which threshold; `told` is called for another one."""

    def __init__(self, profile: str, run: str, split: str):
        looking.model_of(profile, run)
        known = [name for name in PROFILES + LAB if looking.runs(name)]
        self.profile = dropdown("profile", known, profile)
        self.run, self.model = dropdown("run", looking.runs(profile), run), dropdown("model", [], None)
        self.split = dropdown("split", ["test", "val"], split)
        self.cut = widgets.FloatSlider(
            min=0.01, max=1, step=0.001, readout_format=".3f", continuous_update=False
        )
        self.cut.description, self.cut.layout.width = "threshold", "32em"
        self.again, self.note = widgets.Button(description="threshold of val"), widgets.HTML()
        self.told: list[Callable[[], None]] = []
        self.busy = False
        self._models()
        self.profile.observe(self._runs, "value")
        self.run.observe(self._models, "value")
        for one in (self.model, self.split):
            one.observe(self._other, "value")
        self.again.on_click(self._own)

    @property
    def seen(self) -> looking.Seen:
        return looking.seen(self.profile.value, self.run.value, self.model.value, self.split.value)

    @property
    def images(self) -> catalogue.Catalogue:
        return catalogue.of(self.profile.value, self.run.value)

    def show(self) -> None:
        """Display the controls that choose a run."""
        chosen = [self.profile, self.run, self.model, self.split]
        told = ", ".join(f"{one.description} {one.value}" for one in chosen)
        box = widgets.VBox([widgets.HBox(chosen), self.note])
        show(box, {"text/html": f"<p>{told}</p>", "text/plain": told})

    def _runs(self, _=None) -> None:
        if not self.busy:
            self._offer(self.run, [*looking.runs(self.profile.value)])
            self._models()

    def _models(self, _=None) -> None:
        if not self.busy:
            self._offer(self.model, looking.runs(self.profile.value)[self.run.value])
            self._other()

    def _offer(self, control: widgets.Dropdown, options: list[str]) -> None:
        """Other options, and nobody told."""
        with quiet(self):
            offer(control, options)

    def _other(self, _=None) -> None:
        if self.busy:
            return
        self.note.value = ""
        with suppress(Refusal):  # told by each panel below
            self._own()
            self.note.value = f"<p>{self.images.note}</p>" if self.images.note else ""
        for tell in self.told:
            tell()

    def _own(self, _=None) -> None:
        """Back to the threshold from val."""
        self.cut.value = self.seen.cut


@contextmanager
def quiet(owner) -> Iterator[None]:
    """While the block runs, `owner` is `busy`: it does not answer when its own controls move."""
    owner.busy = True
    try:
        yield
    finally:
        owner.busy = False


def offer(control: widgets.Dropdown, options: list[str]) -> None:
    """Set other options; the value stays where it is one of them, else it is the first."""
    value = control.value
    control.options = options
    control.value = value if value in options else options[0]


def dropdown(name: str, options, value) -> widgets.Dropdown:
    return widgets.Dropdown(description=name, options=list(options), value=value, layout={"width": "17em"})


class Panel:
    """Controls, and below them what `draw` returns, again when one of them moves or another run is chosen.

    A subclass has `draw`, and `offer` where its options hang on the run.
    """

    def __init__(self, chosen: Chooser, controls: list, listened: list | None = None):
        self.chosen, self.controls, self.busy = chosen, controls, False
        self.table, self.picture, self.plain = widgets.HTML(), widgets.Image(format="jpeg"), ""
        for control in controls if listened is None else listened:
            control.observe(self.redraw, "value")
        chosen.told.append(self.renew)
        self.renew()

    def draw(self) -> Drawn:
        """What to show for the controls as they stand."""
        raise NotImplementedError

    def offer(self) -> None:
        """Set the options that hang on the chosen run."""

    def renew(self) -> None:
        """Draw for another run."""
        with quiet(self), suppress(Refusal):  # told by the drawing below
            self.offer()
        self.redraw()

    def redraw(self, _=None) -> None:
        """Replace table and picture; where that cannot be, by the sentence that says why."""
        if self.busy:
            return
        try:
            told, figure = self.draw()
        except Refusal as refusal:
            told, figure = str(refusal), None
        self.plain = told if isinstance(told, str) else told.to_string()
        inside = f"<p>{told}</p>" if isinstance(told, str) else told.to_html(border=0)
        self.table.value = f'<div class="jp-RenderedHTMLCommon">{inside}</div>'  # tables as elsewhere in Lab
        self.picture.value = sheets.jpeg(figure) if figure else b""
        self.picture.layout.display = None if figure else "none"

    def show(self) -> None:
        """Display it: live where there is a kernel, else as it was drawn now."""
        lines = [widgets.HBox(self.controls[i : i + 4]) for i in range(0, len(self.controls), 4)]
        show(widgets.VBox([*lines, self.table]), {"text/html": self.table.value, "text/plain": self.plain})
        image = {"image/jpeg": base64.b64encode(self.picture.value).decode()} if self.picture.value else {}
        show(self.picture, image | {"text/plain": "pictures with boxes" if image else "no picture"})


def show(widget: widgets.Widget, still: dict[str, str]) -> None:
    """Display a widget, with what stands for it where there is none."""
    display(widget._repr_mimebundle_() | still, raw=True)
