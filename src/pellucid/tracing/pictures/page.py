"""A look as one page of HTML that needs nothing else, its pictures within, or as one sheet of pictures."""

from __future__ import annotations

import io
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, PngImagePlugin, UnidentifiedImageError

from pellucid.checkpoints.whole_file import write_text, write_whole
from pellucid.errors import PellucidError
from pellucid.language import _
from pellucid.tracing.display import percent, signed
from pellucid.tracing.page import ASSETS, MARK
from pellucid.tracing.pictures.drawing import data_uri, filter_picture, fit, heat, over, photograph, sheet, sides
from pellucid.tracing.pictures.looking import adds_up

if TYPE_CHECKING:
    from pellucid.tracing.pictures.channels import Patch
    from pellucid.tracing.pictures.looking import Channel, Level, Look

SOFTWARE = "Pellucid"
FILTERS = 64  # most filters that are drawn
SIDE = 224  # most pixels of a patch or dream on a page, each way


def save(look: Look, path: Path) -> None:
    """See `Look.save`."""
    kind = path.suffix.lower()
    if kind not in (".html", ".htm", ".png"):
        raise PellucidError(
            _("A look is saved as a page or as a picture."), str(path), _("Name it look.html or look.png.")
        )
    if path.exists() and not _is_ours(path):
        raise PellucidError(
            _("{name} is there already, and was not made by Pellucid.").format(name=path.name),
            str(path),
            _("Choose another name."),
        )
    if kind == ".png":
        _write_png(contact_sheet(look), path)
    else:
        write_text(path, page(look))


def _is_ours(path: Path) -> bool:
    if path.suffix.lower() != ".png":
        return path.is_file() and MARK in path.read_text("utf-8", "replace")[:2000]
    try:
        with Image.open(path) as there:
            return there.info.get("Software") == SOFTWARE
    except (UnidentifiedImageError, OSError):
        return False


def _write_png(picture: Image.Image, path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Software", SOFTWARE)
    file = io.BytesIO()
    picture.save(file, "png", pnginfo=info)
    write_whole(path, lambda temporary: temporary.write_bytes(file.getvalue()))


def contact_sheet(look: Look) -> Image.Image:
    """First the picture and its region, then a row a channel: its map, its patches, its dream."""
    region = look.region
    rows = [
        [
            photograph(look.picture),
            sides(region.pixels.map, contrast=0.5),
            sides(region.maps.map, look.picture),
            over(look.picture, region.grad_cam),
        ]
    ]
    for level in look.levels:
        for one in level.channels:
            patches = [photograph(look.scale.pixels(patch.pixels)) for patch in one.patches]
            dreamt = [photograph(one.dream)] if one.dream is not None else []
            rows.append([over(look.picture, one.map), heat(one.map), *patches, *dreamt])
    columns = max(map(len, rows))
    blank = Image.new("RGB", (1, 1), (252, 251, 248))
    return sheet([picture for row in rows for picture in row + [blank] * (columns - len(row))], columns)


def page(look: Look) -> str:
    """The whole page."""
    style = "".join((ASSETS / name).read_text("utf-8") for name in ("why.css", "pictures.css"))
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    title = escape(look.name or look.target)
    return (
        f'<!DOCTYPE html>\n<html lang="{_("en")}">\n<head>\n<meta charset="utf-8">\n{MARK}\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{title}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f'<main class="why look">{_head(look)}{_region(look)}{_levels(look)}{_filters(look)}{_foot()}</main>\n'
        "</body>\n</html>\n"
    )


def _head(look: Look) -> str:
    items = "".join(
        f'<li><span class="token">{escape(guess.label)}</span>'
        f'<span class="meter"><i style="--v:{guess.probability:.4f}"></i></span>'
        f'<b title="{escape(guess.address)} = {guess.logit:.3f}">{percent(guess.probability)}</b></li>'
        for guess in look.guesses
    )
    first = look.guesses[0]
    said = _("The network says: {label}, with a probability of {p}.").format(
        label=first.label, p=percent(first.probability)
    )
    return (
        f'<header><p class="model">{escape(look.model)}</p><h1>{escape(look.name or first.label)}</h1>'
        f'<p class="lead">{escape(said)}</p><div class="seen">{_figure(photograph(look.picture), "", lossy=True)}'
        f'<ol class="next">{items}</ol></div></header>'
    )


def _region(look: Look) -> str:
    region = look.region
    target = look.target
    if look.rather_than is not None:
        target = _("{target} rather than {other}").format(target=look.target, other=look.rather_than)
    hint = _(
        "Three accounts of the same logit. The flow adds up exactly and takes both sides: blue spoke for {target}, "
        "orange against. To the pixels it is sharp but restless, and much of a deep network's answer lies in "
        "constants, the biases of channels that had seen enough; at the last maps it is coarse and plain. Grad-CAM "
        "adds up to nothing in particular and leaves out what spoke against; it is here to be compared."
    ).format(target=target)
    figures = [
        _figure(sides(region.pixels.map, contrast=0.5), _("flow to the pixels")),
        _figure(sides(region.maps.map, look.picture), _("flow to {path}").format(path=region.maps.path)),
        _figure(over(look.picture, region.grad_cam), _("Grad-CAM of {path}").format(path=region.maps.path), lossy=True),
    ]
    sums = "".join(f'<p class="sum">{escape(adds_up(look, part))}</p>' for part in (region.pixels, region.maps))
    asked = f'<p class="quiet"><code>trace.why("{escape(region.question)}")</code></p>' * (look.rather_than is None)
    body = f'<div class="three">{"".join(figures)}</div>{sums}{asked}'
    return _section(_("Which region decided: {target}").format(target=target), hint, body)


def _levels(look: Look) -> str:
    if not look.levels:
        return ""
    hint = _(
        "From early to late, channels that spoke clearly for this answer. Bright in the picture: where the channel "
        "answers. Then the patches of other pictures that it answers to most, cut out exactly as far as it can see, "
        "and a picture made up so that it answers as much as it can."
    )
    return _section(_("What its channels answer to"), hint, "".join(_level(look, level) for level in look.levels))


def _level(look: Look, level: Level) -> str:
    channels, height, width = level.shape
    about = _("{channels:,} channels of {height} × {width}; each place sees {rows} × {columns} pixels").format(
        channels=channels, height=height, width=width, rows=level.field.height, columns=level.field.width
    )
    rows = "".join(_channel(look, level, one) for one in level.channels)
    return (
        f'<div class="level"><h3><code>{escape(level.path)}</code> <span class="quiet">{escape(about)}</span></h3>'
        f"{rows}</div>"
    )


def _channel(look: Look, level: Level, one: Channel) -> str:
    brought = _("brought {amount}").format(amount=signed(one.contribution))
    side = "for" if one.contribution > 0 else "against"
    patches = "".join(_patch(look, patch) for patch in one.patches)
    dreamt = _figure(photograph(one.dream), _("made up"), lossy=True) if one.dream is not None else ""
    return (
        f'<div class="channel"><div class="about"><b>{escape(_("channel {n}").format(n=one.channel))}</b>'
        f'<span class="n {side}">{escape(brought)}</span><code>{escape(one.address)}</code></div>'
        f"{_figure(over(look.picture, one.map), _('where it answers'), lossy=True)}"
        f'<div class="patches">{patches}</div>{dreamt}</div>'
    )


def _patch(look: Look, patch: Patch) -> str:
    name = look.names[patch.picture]
    return _figure(
        fit(photograph(look.scale.pixels(patch.pixels)), min(SIDE, max(patch.box.height, patch.box.width))),
        "",
        title=f"{name}: {signed(patch.value)}, {patch.address}",
        lossy=patch.box.height > 32,
    )


def _filters(look: Look) -> str:
    if look.filters is None or look.filters[0, 0].numel() < 4:
        return ""
    shown = look.filters[:FILTERS]
    hint = _("{n} of {all} filters; grey is 0. A channel answers most to what looks like its filter.").format(
        n=len(shown), all=len(look.filters)
    )
    figures = "".join(_figure(filter_picture(weights), "", title=f"[{n}]") for n, weights in enumerate(shown))
    return _section(_("The filters of the first convolution"), hint, f'<div class="filters">{figures}</div>')


def _figure(picture: Image.Image, caption: str, title: str = "", lossy: bool = False) -> str:
    small = ' class="small"' if max(picture.size) < 64 else ""
    said = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    described = escape(title or caption, quote=True)
    return f'<figure{small}><img src="{data_uri(picture, lossy)}" alt="{described}" title="{described}">{said}</figure>'


def _section(title: str, hint: str, body: str) -> str:
    return f'<section><h2>{escape(title)}</h2><p class="hint">{escape(hint)}</p>{body}</section>'


def _foot() -> str:
    exact = _("Exact is not the same as causal: without one part, others may step in.")
    made = _("Made with Pellucid: a file of its own, which asks nothing of the network.")
    return f"<footer><p>{escape(exact)}</p><p>{escape(made)}</p></footer>"
