"""Set the smallest weights of a checkpoint to zero.

    python cli.py prune --in data/work/demo/train@dual --amount 0.3 --out pruned

The weights of all GRU, convolution and linear layers form one pool (global L1), as published;
nothing is trained afterwards. It writes checkpoints/best.pt, which stores only what is not zero and
works like any other checkpoint, and pruning.json: zeros of each module, size ratios, bytes on disk.
"""

import json

from pydantic import BaseModel, Field, model_validator

from pipeline import log
from pipeline.core import stage
from pipeline.core.files import atomic_write, written
from pipeline.core.stage import Item, Need, Outcome
from pipeline.core.state import Record, digest
from pipeline.errors import DataError

REPORT = "pruning.json"


class Options(BaseModel, extra="forbid"):
    amount: float = Field(
        ge=0,
        le=1,
        description="share of the pool that becomes zero, 0 to 1",
    )
    weights: bool = Field(True, description="put weights into the pool")
    biases: bool = Field(False, description="put biases into the pool (row F of the paper: both)")
    reference: int | None = Field(
        None,
        ge=1,
        description="parameters that size ratios refer to; the paper's: 69176796  [this model's]",
    )

    @model_validator(mode="after")
    def _something_to_prune(self) -> "Options":
        if not self.weights and not self.biases:
            raise ValueError("nothing to prune: choose weights, biases or both")
        return self


class Stage(stage.Stage):
    needs = {"checkpoint": Need("checkpoint", help="trained model: best.pt, or --out of train")}
    makes = "checkpoint"
    runs = "inline"
    keeps = True
    Options = Options

    def items(self) -> list[Item]:
        checkpoint = self.inputs["checkpoint"]
        return [Item("prune", digest(checkpoint.content), source=str(checkpoint.path))]

    def process(self, item: Item) -> Outcome:
        from models.base import Mismatch
        from pipeline.checkpoints import pruned

        source, out, options = (
            self.inputs["checkpoint"].path,
            self.out / "checkpoints" / "best.pt",
            self.options,
        )
        try:
            made = pruned.make(
                source, options.amount, weights=options.weights, biases=options.biases
            )
        except Mismatch as error:
            raise DataError(error.what, where=source, fix=error.fix) from error
        pruned.save(made, out)
        report = made.report(options.reference, out)
        atomic_write(self.out / REPORT, json.dumps(report, indent=1) + "\n")
        _say(report)
        outputs = {
            path.relative_to(self.out).as_posix(): written(path)
            for path in (out, self.out / REPORT)
        }
        return Outcome(outputs=outputs, facts={k: v for k, v in report.items() if k != "modules"})

    def finish(self, records: list[Record]) -> dict:
        """Return the report without its modules, for the manifest."""
        return dict(records[0].facts) if records else {}


def _say(report: dict) -> None:
    """Two lines: what is left, and what the file became."""
    ratio = report["size_ratio"]
    log.info(
        f"prune: {report['pruned']:,} of {report['pool']:,} entries of the pool are zero;"
        f" {report['nonzero']:,} of {report['parameters']:,} parameters are left"
        f" ({report['nonzero_share']:.1%})"
    )
    log.info(
        f"prune: size ratio {ratio['nonzero']:.3f} (entries that are not zero) or"
        f" {ratio['product']:.3f} (1 - amount, times parameters) of {report['reference']:,}; file"
        f" {report['bytes_before']:,} -> {report['bytes']:,} bytes"
    )
