"""Compare with recorded cases of the published programs.

    python cli.py parity tests/golden/metrics

Every folder with a case.json at or below PATH is a case. Exit code 1 if a difference is beyond its
tolerance, if an expected array, value or file was not compared, or if a kind is unknown.
"""

import json
import math
from dataclasses import asdict
from pathlib import Path

import click

from pipeline.errors import ComparisonFailed


@click.command(help=__doc__)
@click.argument(
    "paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(path_type=Path)
)
@click.option("--json", "as_json", is_flag=True, help="print as JSON")
def command(paths: tuple[Path, ...], as_json: bool) -> None:
    from pipeline.parity.run import find_cases, run_case

    reports = []
    for case in find_cases(paths):
        reports.append(run_case(case))
        if not as_json:
            _print(reports[-1], header=len(reports) == 1)
    failed = [report.name for report in reports if not report.ok]
    rows = sum(len(report.rows) for report in reports)
    if as_json:
        body = [asdict(report) | {"ok": report.ok} for report in reports]
        click.echo(
            json.dumps({"ok": not failed, "rows": rows, "cases": _without_nan(body)}, indent=1)
        )
    else:
        click.echo(
            f"{len(reports):,} cases, {rows:,} rows:"
            f" {'all ok' if not failed else f'{len(failed):,} cases failed'}"
        )
    if failed:
        names = ", ".join(failed[:5]) + (" ..." if len(failed) > 5 else "")
        raise ComparisonFailed(
            f"{len(failed):,} of {len(reports):,} cases failed: {names}",
            where="parity",
            fix=(
                "Each row that says FAIL names the array; --debug shows the traceback of a handler"
                " that raised."
            ),
        )


def _print(report: object, header: bool) -> None:
    if header:
        click.echo("case | array | max abs diff | tolerance | ok")
    for row in report.rows:
        verdict = "ok" if row.ok else f"FAIL {row.note}".rstrip()
        click.echo(
            f"{report.name} | {row.name} | {row.difference:.3g} | {row.tolerance} | {verdict}"
        )
    for fault in report.faults:
        click.echo(f"{report.name} | {report.kind} | - | - | FAIL {fault}")


def _without_nan(value: object) -> object:
    if isinstance(value, dict):
        return {k: _without_nan(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
