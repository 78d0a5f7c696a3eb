"""Started by a launcher: trains the runs that a JSON file lists, `{"settings", "output", "interrupted"}` each, and at
the end gives the command line `{"arguments"}`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from rekd_edge import cli
from rekd_edge.errors import InputError
from rekd_edge.training.configuration import load_config
from rekd_edge.training.processes import is_first
from rekd_edge.training.run import train


class Interrupt(TrainerCallback):
    """Ends a run as Ctrl-C would, after its first checkpoint."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt


def main() -> None:
    *cases, last = json.loads(Path(sys.argv[1]).read_text())
    for case in cases:
        config, output = load_config(None, case["settings"]), Path(case["output"])
        try:
            if case.get("interrupted"):
                train(config, output, callbacks=lambda stage: [] if stage.startswith("control") else [Interrupt()])
            else:
                train(config, output)
        except KeyboardInterrupt:
            train(config, output, resume=True)
        except InputError as error:
            if is_first():
                output.with_suffix(".refused").write_text(str(error))
    sys.argv[1:] = last["arguments"]
    cli.main()


if __name__ == "__main__":
    main()
