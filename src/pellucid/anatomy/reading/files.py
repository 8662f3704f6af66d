"""Networks in files: a `config.json`, a folder, and of weights their headers alone."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pellucid.anatomy import families
from pellucid.anatomy.families.defaults import DEFAULTS
from pellucid.anatomy.memory.sizes import as_bytes
from pellucid.anatomy.reading import tensors
from pellucid.anatomy.reading.gguf_config import config_of
from pellucid.anatomy.report import Anatomy
from pellucid.anatomy.what_if import context
from pellucid.checkpoints.headers import INDEX, TENSORS, Held, Stored, by_format, index_header, safetensors_header
from pellucid.checkpoints.json_file import read_json
from pellucid.errors import PellucidError
from pellucid.language import _

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pellucid.checkpoints.gguf_file import GGUFFile

PLAIN = {"F32": "fp32", "F16": "fp16", "BF16": "bf16", "float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
PART = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<parts>\d{5})\.gguf")


def of_path(path: Path) -> Anatomy:
    """The network in a file or folder.

    Raises:
        PellucidError: when there is none, or it is damaged.
    """
    if path.is_dir():
        return _of_folder(path)
    if not path.is_file():
        raise PellucidError(_("This is neither a file nor a folder."), str(path), _("Name a file, or a folder."))
    if _begins(path) == b"GGUF":
        return _of_gguf(path)
    if path.suffix == ".safetensors":
        return _of_weights(path)
    if path.suffix == ".json":
        content = read_json(path)
        if "weight_map" in content:
            return _of_weights(path)
        kind = _own(content) or _("a config.json, without weights")
        return of_config(content, str(path), str(path), (kind, *by_class(content)))
    _refuse_pickle(path)
    raise PellucidError(
        _("This is no description of a network: neither config.json nor .safetensors nor .gguf."),
        str(path),
        _("Name one of these, a folder, or a published model."),
    )


def _of_folder(folder: Path) -> Anatomy:
    """By its config.json, with which the header of the weights is compared; without one by the header alone."""
    last = folder / "checkpoints" / "last"  # all that a run has before it was measured for the first time
    for home in (folder, last, last.with_name("last.previous")):
        if not exists(home / "config.json"):
            continue
        path, weights = home / "config.json", _weights(home)
        config = read_json(path)
        kind = _own(config) or _("a folder of Hugging Face's files")
        network = of_config(config, str(folder), str(path), (kind, *by_class(config)))
        return network if weights is None else _compared(network, weights)
    weights = _weights(folder)
    if weights is not None:
        return _of_weights(weights)
    ggufs = sorted(folder.glob("*.gguf"))
    if ggufs and len({PART.sub(r"\g<stem>", path.name) for path in ggufs}) == 1:
        return _of_gguf(ggufs[0])
    for path in sorted(folder.glob("*")):
        _refuse_pickle(path)
    raise PellucidError(
        _("There is no network here: neither config.json nor {name}.").format(name=TENSORS),
        str(folder),
        _("Name one of: {names}.").format(names=", ".join(path.name for path in ggufs))
        if ggufs
        else _("Name the folder of a model, or a published one; --list shows these."),
    )


def _refuse_pickle(path: Path) -> None:
    if path.suffix in PICKLES:
        raise PellucidError(
            _("{name} is a pickle: opening it could run any program that its author put in.").format(name=path.name),
            str(path),
            _("If you trust it, open it with transformers and save_pretrained(folder): that writes safetensors."),
        )


def _weights(folder: Path) -> Path | None:
    """The file whose header tells of all weights; None where there is none, or several that no index joins."""
    for name in (TENSORS, INDEX):
        if (folder / name).is_file():
            return folder / name
    files = sorted(folder.glob("*.safetensors"))
    return files[0] if len(files) == 1 else None


def _own(config: dict[str, Any]) -> str | None:
    """What a folder of ours is for; None for others'."""
    own = config.get("pellucid")
    if not isinstance(own, dict):
        return None
    task = own.get("task", config.get("model_type"))
    encoding = own.get("encoding")
    if not isinstance(encoding, dict):
        return _("a network of Pellucid's, for {task}").format(task=task)
    columns = [str(part.get("column")) for part in encoding.get("inputs", ()) if isinstance(part, dict)]
    return _("a network of Pellucid's, for {task}: from {inputs} to {output}").format(
        task=task, inputs=", ".join(columns), output=encoding.get("target")
    )


def _of_weights(path: Path) -> Anatomy:
    """By the header of a safetensors file, and by the config.json beside it where they agree."""
    held, beside = _header(path), path.parent / "config.json"
    notes: tuple[str, ...] = ()
    if exists(beside):
        try:
            return _compared(of_config(read_json(beside), str(path), str(beside), (_("a file of tensors"),)), path)
        except PellucidError as error:
            notes = (_("{name} was left aside: {why}").format(name="config.json", why=error.what),)
    taken = _("a file of tensors without a config.json: layers are guessed by names and shapes, their order is unknown")
    return replace(_of_tensors(held, path, (taken, *notes)), stored=_format(held))


def _of_tensors(held: Mapping[str, Stored], path: Path, notes: tuple[str, ...]) -> Anatomy:
    packed = [name for name, tensor in held.items() if tensor.is_whole and "weight" in name]
    if packed:
        line = _("packed into whole numbers, so not counted as parameters: {names}")
        notes += (line.format(names=_few(packed)),)
    tree = tensors.tree_of(held, str(path))
    return Anatomy(str(path), tree, where=str(path), notes=(*notes, *_said(held, path)), file=by_format(held))


def _compared(network: Anatomy, weights: Path) -> Anatomy:
    """The same network, with what the header of its weights says.

    Raises:
        PellucidError: when a tensor contradicts the configuration.
    """
    held = _header(weights)
    fit = tensors.fit(network.tree, held)
    if fit.misfit is not None:
        raise PellucidError(
            _("The tensor {name} is {found}; config.json makes it {expected}.").format(
                name=fit.misfit.name, found=fit.misfit.found, expected=fit.misfit.expected
            ),
            f"{weights}: {fit.misfit.path}",
            _("The two files belong to different models; name one of them to count it alone."),
        )
    notes = (*network.notes, *_said(held, weights))
    numbers = sum(tensor.numbers for tensor in held.values())
    if numbers != network.parameters.total + network.parameters.buffers:
        if fit.missing:
            notes += (_("not in the file: {names}").format(names=_few(fit.missing)),)
        if fit.surplus:
            notes += (_("in the file beside these parameters: {names}").format(names=_few(fit.surplus)),)
    return replace(network, notes=notes, stored=_format(held), file=by_format(held))


def _of_gguf(path: Path) -> Anatomy:
    """By the settings of a .gguf, if its tensors are those of the network that they describe; else by its tensors."""
    from pellucid.checkpoints.gguf_file import GGUFFile

    files = [GGUFFile(part) for part in _gguf_parts(path)]
    held = {name: tensor for file in files for name, tensor in _held(file).items()}
    if not held:
        raise PellucidError(
            _("This file holds no tensors: a vocabulary only."), str(path), _("Name the file of a model.")
        )
    settings = files[0].settings.values
    taken = _("a .gguf of the architecture {name}").format(name=settings.get("general.architecture"))
    try:
        network = _by_settings(settings, held, path, taken)
    except PellucidError as error:  # the tensors still say how many numbers there are
        line = _("its settings are left aside: {why} Layers are guessed by names and shapes, their order is unknown")
        network = _of_tensors(held, path, (taken, line.format(why=error.what)))
    return replace(network, stored=_format(held), file=by_format(held))


def _by_settings(settings: Mapping[str, Any], held: Mapping[str, Stored], path: Path, taken: str) -> Anatomy:
    """The network that the settings describe.

    Raises:
        PellucidError: when they describe none that is known, or one with other tensors.
    """
    config = config_of(settings, held)
    if config is None:
        raise PellucidError(
            _("Networks of the type {name} are not known here.").format(name=settings.get("general.architecture"))
        )
    network = of_config(config, str(path), str(path), (taken, *_said(held, path)))
    fit = tensors.fit(network.tree, {name: t for name, t in held.items() if not name.startswith("rope_")})
    if fit.missing or fit.surplus:
        names = _few((*fit.missing, *fit.surplus))
        raise PellucidError(_("They do not fit its tensors: {names}.").format(names=names))
    return network


def _gguf_parts(path: Path) -> list[Path]:
    """All files of a model that was cut into several, of which the first has the settings."""
    match = PART.fullmatch(path.name)
    if match is None:
        return [path]
    names = [f"{match['stem']}-{n:05}-of-{match['parts']}.gguf" for n in range(1, int(match["parts"]) + 1)]
    missing = next((name for name in names if not exists(path.with_name(name))), None)
    if missing is not None:
        raise PellucidError(
            _("The shard {name} is missing.").format(name=missing), str(path.parent), _("Copy or download it again.")
        )
    return [path.with_name(name) for name in names]


def _held(file: GGUFFile) -> dict[str, Stored]:
    from gguf import GGMLQuantizationType

    return {
        name: Stored(info.shape, GGMLQuantizationType(info.kind).name, info.size) for name, info in file.tensors.items()
    }


def _header(path: Path) -> dict[str, Stored]:
    """All tensors that a file or an index names.

    Raises:
        PellucidError: when it is damaged, or there are none.
    """
    held = index_header(path) if path.suffix == ".json" else safetensors_header(path)
    if not held:
        raise PellucidError(_("This file holds no tensors."), str(path), _("Name the file of a model."))
    return held


def _format(held: Mapping[str, Stored]) -> str:
    """The number format of most numbers, by the name that it has elsewhere in this room."""
    formats: dict[str, Held] = by_format(held)
    name = max(formats, key=lambda name: formats[name].numbers)
    return PLAIN.get(name, name)


def _said(held: Mapping[str, Stored], path: Path) -> tuple[str, ...]:
    """The bytes of a file's tensors, exact, by number format."""
    formats = by_format(held)
    numbers, size = (sum(getattr(h, name) for h in formats.values()) for name in ("numbers", "bytes"))
    each = ", ".join(f"{name} {as_bytes(h.bytes)}" for name, h in formats.items())
    line = _("{file}: {n:,} tensors of {size}, {bits:.2f} bits a number: {each}")
    return (line.format(file=path.name, n=len(held), size=as_bytes(size), bits=8 * size / max(1, numbers), each=each),)


def of_config(config: dict[str, Any], name: str, where: str, notes: tuple[str, ...] = ()) -> Anatomy:
    """The network that a configuration describes."""
    tree = families.describe(config, where)
    quantised = config.get("quantization_config")
    if isinstance(quantised, dict):
        notes += (
            _("its weights are quantised ({method}); counted is what they stand for").format(
                method=quantised.get("quant_method", "?")
            ),
        )
    stored = config.get("dtype", config.get("torch_dtype"))
    return Anatomy(name, tree, config, where, None, context(config), PLAIN.get(str(stored)), notes)


def by_class(config: dict[str, Any]) -> tuple[str, ...]:
    """What to say of sizes that a configuration leaves out: they are those of Hugging Face's class."""
    kind = str(config.get("model_type"))
    if f"{kind}_text" in DEFAULTS:  # one of pictures and text
        inner = config.get("text_config")
        kind, config = f"{kind}_text", inner if isinstance(inner, dict) else {}
    by_default = {} if "pellucid" in config else DEFAULTS.get(kind, {})
    sizes = [f"{name} = {size}" for name, size in by_default.items() if name not in config and _is_size(size)]
    line = _("not in the configuration, so as in the class of {kind}: {names}")
    return (line.format(kind=kind, names=_few(sizes, 4)),) if sizes else ()


def _is_size(value: Any) -> bool:
    return isinstance(value, int | list | tuple) and not isinstance(value, bool)


# Small things


def exists(path: Path) -> bool:
    """Whether there is anything of this name.

    Raises:
        PellucidError: when it may not be looked at.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a name with a zero byte
        return False
    except OSError as error:
        if isinstance(error, PermissionError):
            raise PellucidError(
                _("{name} cannot be read: {why}.").format(name=path.name, why=error.strerror), str(path)
            ) from error
        return False  # a name that is too long for any file
    return True


def _begins(path: Path) -> bytes:
    """The first four bytes of a file."""
    try:
        with path.open("rb") as file:
            return file.read(4)
    except OSError as error:
        raise PellucidError(
            _("{name} cannot be read: {why}.").format(name=path.name, why=error.strerror), str(path)
        ) from error


def _few(names: tuple[str, ...] | list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (" …" if len(names) > most else "")
