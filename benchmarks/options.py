"""What the options of several jobs may be, and the settings as options."""

from collections.abc import Iterable
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, TypedDict, get_args

from tyro.conf import arg

from benchmarks.config.optimizers import OPTIMIZERS
from benchmarks.config.settings import ANNOTATIONS, FROM_1, KINDS, PAPERS, Allowed
from benchmarks.data import registry as datasets
from benchmarks.models.registry import MODELS


def one_of(names: Iterable[str]) -> Allowed:
    """Allows some names."""
    names = tuple(names)
    return Allowed(f"one of {', '.join(names)}", names.__contains__)


DATASET, MODEL, OPTIMIZER, PAPER = map(one_of, (datasets.NAMES, MODELS, OPTIMIZERS, PAPERS))
Dataset = Annotated[str, DATASET, arg(metavar="NAME", help=DATASET.text)]
Model = Annotated[str, MODEL, arg(metavar="NAME", help=MODEL.text)]
Optimizer = Annotated[tuple[str], OPTIMIZER, arg(name="optimizer", metavar="NAME", help=OPTIMIZER.text)]
_help, _hint = f"each {OPTIMIZER.text}", "(default: all that have a preset, or results)"
_several = arg(aliases=["--optimizer"], metavar="NAME ...", help=_help, help_behavior_hint=_hint)
Optimizers = Annotated[tuple[str, ...] | None, OPTIMIZER, _several]
# Their comments tell what None stands for.
Folder = Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="")]
Number = Annotated[int | None, FROM_1, arg(metavar="N", help_behavior_hint="")]


def overrides(*but: str, several: bool = True) -> Any:
    """Describes the options of settings, but for some: a dictionary of the values of those named."""
    fields: dict[str, Any] = {}
    for name, annotation in ANNOTATIONS.items():
        *allowed, text = getattr(annotation, "__metadata__", [""])
        if text and name not in but:
            parts = get_args(KINDS[name])
            kind: Any = parts[0] if NoneType in parts else KINDS[name]
            values: Any = tuple[kind, ...] if several else tuple[kind]
            about = " ".join([text, *(f"({one.text})" for one in allowed)])
            fields[name] = Annotated[values, arg(help=about, help_behavior_hint="")]
    typed_dict: Any = TypedDict
    return arg(constructor=typed_dict("Overrides", fields, total=False))
