"""What differs between kinds of learning, one file each; found by name, imported when needed."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pellucid.errors import PellucidError
from pellucid.language import _

if TYPE_CHECKING:
    from pellucid.tasks.task import Task
    from pellucid.training.options import TrainOptions

# in the order in which they are asked whether a source is theirs
TASKS = {
    "boxes": "pellucid.tasks.boxes:BoxesTask",  # before pictures: its parts are folders of pictures as well
    "pictures": "pellucid.tasks.pictures:PictureTask",
    "table": "pellucid.tasks.table:TableTask",
    "pairs": "pellucid.tasks.pairs:PairsTask",
    "labels": "pellucid.tasks.labels:LabelTask",
    "text": "pellucid.tasks.text:TextTask",
}


# networks of others, by the model_type in their config.json
FOREIGN: dict[str, str] = {"bert": "labels", "marian": "pairs", "efficientnet-lite0": "pictures"}


def task_of(config: dict[str, Any]) -> str:
    """The name of the task that a config.json belongs to; whatever is of no other task writes text."""
    own = config.get("pellucid")
    return (own.get("task") if isinstance(own, dict) else None) or FOREIGN.get(str(config.get("model_type")), "text")


def task_named(name: str) -> type[Task]:
    """The task of this name.

    Raises:
        PellucidError: when there is none.
    """
    if name not in TASKS:
        raise PellucidError(
            _("There is no task {name!r}.").format(name=name),
            "task",
            _("Tasks: {names}").format(names=", ".join(TASKS)),
        )
    module, attribute = TASKS[name].split(":")
    return getattr(import_module(module), attribute)


def restored(name: str, folder: Path, facts: dict[str, Any] | None = None) -> Task:
    """The task of this name from the files it saved in a folder; with the plan's ``facts`` it has its data as well.

    Raises:
        PellucidError: when there is no such task, or its files are missing or hold something else.
    """
    try:
        return task_named(name).restore(folder, facts)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:  # JSON of any other shape
        file = "config.json" if facts is None else "plan.json"
        raise PellucidError(
            _("{name} is damaged: {why}.").format(
                name=file, why=_("the task {task} did not write it").format(task=name)
            ),
            str(folder / file),
            _("Copy or download it again."),
        ) from error


def recognise(source: str | None, options: TrainOptions) -> tuple[type[Task], str]:
    """The task that a source is for, and why: the one that the user named, or the first that says it is its own.

    Raises:
        PellucidError: when an option was given that the task does not understand.
    """
    if options.task:
        return _understanding(task_named(options.task), options), _("as given")
    for name in TASKS:
        why = task_named(name).recognise(source, options)
        if why:
            if name == "text" and options.target and source:
                _refuse_target(source)
            return _understanding(task_named(name), options), why
    raise AssertionError("text takes what nothing else claims")


def _refuse_target(source: str) -> None:
    """A target is a column, so the source must be a table."""
    from pellucid.data import tables

    if not tables.is_table(source):
        raise PellucidError(
            _("--target names a column of a table, and this is none."),
            source,
            _("Name a .csv, .tsv, .jsonl or .parquet file, or a data set on disk."),
        )


def _understanding(found: type[Task], options: TrainOptions) -> type[Task]:
    """The same task; refused together with an option that only other tasks understand."""
    for name in options.given():
        known_to = [task for task in TASKS if name in task_named(task).options]
        if known_to and found.name not in known_to:
            option = options.spelt(name)
            raise PellucidError(
                _("{option} means nothing to the task {task}.").format(option=option, task=found.name),
                option,
                _("It is for: {tasks}. --task names the task.").format(tasks=", ".join(known_to)),
            )
    return found
