"""Pictures of a sweep: the errors against the setting, and of data with two columns what each network makes of them."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.figure import Figure

from pellucid.data import tables
from pellucid.experiments.sweep import Setting, Sweep, named, shown
from pellucid.language import _
from pellucid.tasks import task_named
from pellucid.training.plan import Plan

if TYPE_CHECKING:
    from torch import nn

# told apart by readers who are colour-blind, too (Okabe and Ito 2008)
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8a8a8a")
CHINESE = (
    *("Noto Sans CJK SC", "Source Han Sans SC", "PingFang SC", "Microsoft YaHei", "WenQuanYi Micro Hei"),
    *("WenQuanYi Zen Hei", "SimHei"),
)
GRID = 90  # points on each side of a decision surface
PANELS = 24  # at most


def draw(found: Sweep) -> list[Path]:
    """Write sweep.png and, for two columns of numbers, surfaces.png; .svg, where no font here has Chinese."""
    with fonts(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # only where the reader's fonts draw an SVG's text
        figures = {"sweep": errors(found), "surfaces": surfaces(found)}
        paths = []
        for name, figure in figures.items():
            for old in found.folder.glob(f"{name}.[ps][nv]g"):
                old.unlink()
            if figure is not None:
                paths.append(found.folder / f"{name}.{_format(figure)}")
                figure.savefig(paths[-1], dpi=150, bbox_inches="tight", facecolor="white")
    return paths


def errors(found: Sweep) -> Figure:
    """Training and unseen error against the first option's values, a colour for each combination of the others."""
    first, *others = found.vary
    positions = {value: x for x, value in enumerate(found.vary[first])}
    rest = [dict(zip(others, values, strict=True)) for values in itertools.product(*(found.vary[o] for o in others))]
    figure = Figure(figsize=(max(5.5, 0.8 * len(positions) + 2.5), 4.2))
    axes = figure.add_subplot()
    for n, fixed in enumerate(rest):
        settings = [s for s in found.settings if s.finished and fixed.items() <= s.values.items()]
        x = np.array([positions[s.values[first]] for s in settings]) + 0.08 * (n - (len(rest) - 1) / 2) / len(rest)
        colour = COLOURS[n % len(COLOURS)]
        pair = (colour, colour) if fixed else (COLOURS[1], colour)
        for part, line, colour, beside in zip(("training", "unseen"), ("--", "-"), pair, (-0.03, 0.03), strict=True):
            means = [setting.mean(part) for setting in settings]
            each = [setting.each(part) for setting in settings]
            reach = np.array([(m - min(e), max(e) - m) for m, e in zip(means, each, strict=True)]).T.clip(0)
            filled = "white" if part == "training" else colour
            label = _("unseen data") if part == "unseen" else _("training data")
            label = label if not fixed else f"{named(fixed)}, {label}"
            axes.errorbar(
                x + beside, means, reach, color=colour, ls=line, marker="o", mfc=filled, ms=5, lw=1.5, elinewidth=1,
                capsize=2, label=label,
            )  # fmt: skip
            if part == "unseen" and found.best in settings:
                where = settings.index(found.best)
                axes.plot(
                    x[where] + beside, means[where], "o", ms=13, mfc="none", mec="#333333", ls="", label=_("best")
                )
    axes.set_xticks(range(len(positions)), [str(value) for value in positions])
    axes.margins(x=0.08)
    axes.set_xlabel(first)
    axes.set_ylabel(_("{figure} at the end of training").format(figure=found.figure))
    _scale(axes, found)
    axes.grid(axis="y", color="#e5e5e5", lw=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    seeds = max(len(s.runs) for s in found.settings)
    axes.set_title(
        _("{source}: mean of {seeds} seeds, and from the lowest to the highest").format(
            source=Path(found.source).name, seeds=seeds
        ),
        fontsize=10, loc="left",
    )  # fmt: skip
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _scale(axes: Any, found: Sweep) -> None:
    values = [v for s in found.settings for part in ("training", "unseen") for v in s.each(part)]
    if found.figure != "error" and min(values) > 0 and max(values) > 30 * min(values):
        axes.set_yscale("log")
        return
    axes.set_ylim(0, 1.12 * max(values) or 1)
    if found.figure == "error":
        axes.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0, decimals=None))


def surfaces(found: Sweep) -> Figure | None:
    """What each setting's network of the first seed makes of the plane; None where there is no plane."""
    settings = [setting for setting in found.settings if setting.finished][:PANELS]
    task, _network = _opened(found, settings[0])
    if not _is_plane(task):
        return None
    columns = len(settings) if len(settings) <= 4 else math.ceil(math.sqrt(1.4 * len(settings)))
    rows = math.ceil(len(settings) / columns)
    figure = Figure(figsize=(2.4 * columns, 2.55 * rows + 0.6), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flatten()
    for n in range(len(settings), len(panels)):
        panels[n].set_visible(False)
        panels[n - columns].tick_params(labelbottom=True)  # what stands above it is the lowest of its column
    for panel, setting in zip(panels, settings, strict=False):
        _panel(panel, found, setting)
    encoding = task.encoding
    classes = encoding.classes or ()
    figure.supxlabel(encoding.input_names[0], fontsize=9)
    figure.supylabel(encoding.input_names[1], fontsize=9)
    said = ", ".join(f"{name}" for name in classes) or encoding.target
    figure.suptitle(
        _("{target}: each network's answer, training points (light rim), unseen points (dark rim)").format(target=said),
        fontsize=9,
    )
    return figure


def _is_plane(task: Any) -> bool:
    encoding = getattr(task, "encoding", None)
    return encoding is not None and len(encoding.input_names) == 2 and all(i.kind == "number" for i in encoding.inputs)


def _opened(found: Sweep, setting: Setting) -> tuple[Any, nn.Module]:
    """A setting's task, with its data, and its network at the end of the first seed's training."""
    folder = found.folder / setting.finished[0].folder
    plan = Plan.open(folder / "plan.json")
    task = task_named(plan.task).restore(folder, plan.facts)
    return task, task.open_network(folder / "checkpoints" / "last").eval()


def _panel(panel: Any, found: Sweep, setting: Setting) -> None:
    task, network = _opened(found, setting)
    parts = {part: task.points(part) for part in ("train", "test")}
    x = np.concatenate([points.numpy() for points, _y in parts.values()])
    low, high = x.min(0) - 0.08 * np.ptp(x, 0), x.max(0) + 0.08 * np.ptp(x, 0)
    across, up = np.meshgrid(*(np.linspace(a, b, GRID) for a, b in zip(low, high, strict=True)))
    names = task.encoding.input_names
    answers = task.predict(network, tables.from_columns({names[0]: across.ravel(), names[1]: up.ravel()}))
    classes = list(task.encoding.classes)
    if classes:
        colours = np.array([matplotlib.colors.to_rgb(c) for c in COLOURS[: len(classes)]])
        shares = np.array([_shares(answer, classes) for answer in answers])
        sure = (shares.max(1) - 1 / len(classes)) / (1 - 1 / len(classes))  # 0: white, as undecided as can be
        picture = (1 - 0.55 * sure[:, None] * (1 - colours[shares.argmax(1)])).reshape(GRID, GRID, 3)
        dots = {part: colours[y.numpy()] for part, (_x, y) in parts.items()}
    else:
        values = np.array([answer.value for answer in answers]).reshape(GRID, GRID)
        true = np.concatenate([y.numpy() for _x, y in parts.values()])
        norm = matplotlib.colors.Normalize(true.min(), true.max())
        heat = matplotlib.colormaps["RdYlBu_r"]
        picture = heat(norm(values))[..., :3]
        dots = {part: heat(norm(y.numpy())) for part, (_x, y) in parts.items()}
    panel.imshow(picture, extent=(low[0], high[0], low[1], high[1]), origin="lower", aspect="auto")
    for part, rim in (("train", "white"), ("test", "black")):
        points, _y = parts[part]
        panel.scatter(*points.numpy().T, c=dots[part], s=9, edgecolors=rim, linewidths=0.4)
    said = _("{training} on training data, {unseen} on unseen").format(
        training=shown(found.figure, setting.mean("training")), unseen=shown(found.figure, setting.mean("unseen"))
    )
    panel.set_title(f"{setting.name}{' ★' if setting is found.best else ''}\n{said}", fontsize=7.5)
    panel.tick_params(labelsize=7)


def _shares(answer: Any, classes: list[str]) -> list[float]:
    known: Mapping[str, float] = answer.probabilities or {answer.value: 1.0}
    return [known.get(name, 0.0) for name in classes]


@contextmanager
def fonts() -> Iterator[None]:
    """Chinese names where a font here has them."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    families = ["DejaVu Sans", *(name for name in CHINESE if name in installed)]
    with matplotlib.rc_context({"font.family": families, "svg.fonttype": "none", "svg.hashsalt": "pellucid"}):
        yield


def _format(figure: Figure) -> str:
    """PNG; SVG, whose text the reader's own fonts show, where letters are missing here."""
    return "svg" if lacks_letters(figure) else "png"


def lacks_letters(figure: Figure) -> bool:
    """Whether there is Chinese in it that no font here draws: within `fonts`."""
    return len(matplotlib.rcParams["font.family"]) == 1 and any(
        has_chinese(text.get_text()) for text in figure.findobj(matplotlib.text.Text)
    )


def has_chinese(text: str) -> bool:
    return any(ord(letter) > 0x2E7F for letter in text)
