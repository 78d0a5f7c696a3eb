"""Options and arguments that several verbs take, and what their values mean."""

from __future__ import annotations

from enum import Enum, StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from rekd_edge.errors import InputError
from rekd_edge.methods import METHODS
from rekd_edge.precisions import PRECISIONS

Method = Enum("Method", {name.upper(): name for name, method in METHODS.items() if method.public}, type=str)  # type: ignore[misc]
Precision = Enum("Precision", {name.upper(): name for name in PRECISIONS}, type=str)  # type: ignore[misc]
PRECISION_HELP = "; ".join(f"{name}: {precision.summary}" for name, precision in PRECISIONS.items()) + "."
METHOD_HELP = "; ".join(f"{name}: {method.summary}" for name, method in METHODS.items() if method.public) + "."


class Target(StrEnum):
    """Where a bundle will run."""

    CPU = "cpu"
    MOBILE = "mobile"
    WEB = "web"


class MaskKind(StrEnum):
    """Values of `evaluate --masks`."""

    DETERMINISTIC = "deterministic"
    SAMPLED = "sampled"


class Engine(StrEnum):
    """Where tasks are run."""

    LOCAL = "local"
    RAY = "ray"


class Isa(StrEnum):
    """Instruction sets that a bundle may be meant for."""

    AUTO = "auto"
    AVX2 = "avx2"
    AVX512_VNNI = "avx512_vnni"
    ARM64 = "arm64"


SPEC_HELP = "A .csv, .jsonl or .parquet file, a folder with one for each split or of images, a Hub name, builtin:NAME."
JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else on standard output.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One setting, for example data.text_column=body.")
]
BundlePath = Annotated[
    Path,
    typer.Argument(metavar="BUNDLE", help="A folder that export wrote, a model in the box, or owner/name on the Hub."),
]
TrustedKeys = Annotated[
    list[Path] | None,
    typer.Option(
        "--trusted-key", metavar="FILE", help="A public key; the bundle must be signed with it, or one of several."
    ),
]


def parse_settings(settings: list[str] | None) -> dict[str, str]:
    parsed: dict[str, str] = {}
    for setting in settings or []:
        key, equals, value = (part.strip() for part in setting.partition("="))
        if not equals or not key:
            raise InputError(f"--set takes key=value, not {setting!r}.")
        if key in parsed:
            raise InputError(f"--set {key} is given twice, as {parsed[key]!r} and {value!r}; give it once.")

        parsed[key] = value

    return parsed


def with_flags(settings: dict[str, str], flags: dict[str, Any]) -> dict[str, Any]:
    """Settings and flags as one; `None` is a flag that was not given.

    Raises:
        InputError: both give the same setting, and disagree.
    """
    given = {key: value for key, value in flags.items() if value is not None}
    both = {"data.spec" if key == "spec" else key: value for key, value in settings.items()}
    for key in both.keys() & given.keys():
        if both[key] != str(given[key]):
            flag = "--" + key.removeprefix("data.").replace("spec", "data").replace("_", "-")
            raise InputError(f"{flag} {given[key]} and --set {key}={both[key]} disagree; give one of them.")

    return {**both, **given}


def data_settings(settings: list[str] | None) -> Any:
    """The `data.…` settings of verbs that take nothing else; None where there are none."""
    parsed = parse_settings(settings)
    other = next((key for key in parsed if not key.startswith("data.") or key == "data.spec"), None)
    if other is not None:
        raise InputError(f"{other!r} is not a setting of this command; it takes data.NAME=value alone.")
    if not parsed:
        return None

    from rekd_edge.data import DataSettings

    return DataSettings.given(parsed)
