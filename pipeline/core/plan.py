"""A pipeline: steps in order, each wired to the steps that make what it needs, each with a state
and a reason.

Wiring: a need takes the latest earlier step (or the dataset) that makes its kind, unless the step
names another one:
`in: NAME` for the first need, `<need>: NAME` for any (`init: backbone`). A name with a slash is a
file or folder that lies ready (`init: data/weights/ViT-B-32.pt`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import BaseModel

from pipeline import registry
from pipeline.config import Config, assign
from pipeline.core import seeds
from pipeline.core.artefact import Artefact, GivenArtefact
from pipeline.core.manifest import effective_options, stage_fingerprint
from pipeline.core.stage import Need, Stage
from pipeline.core.state import STATE, digest, read_manifest
from pipeline.errors import ConfigError, DataError, TvrError

DATASET = "dataset"
_DATASET_MAKES = ("annotations", "video_files")


@dataclass(frozen=True)
class Step:
    """One step of a pipeline, checked: its stage class, options, and the names its needs are wired
    to.
    """

    name: str
    kind: type[Stage]
    options: BaseModel
    wiring: dict[str, list[str]]
    out: Path


class Mistakes(ConfigError):
    """Everything that is wrong with a pipeline. `pipeline` has the steps that are right."""

    def __init__(self, what: str, pipeline: "Pipeline"):
        super().__init__(what)
        self.pipeline = pipeline


@dataclass
class Pipeline:
    """Steps by name, in order. `dataset` is the resolved {"type": ..., options}."""

    name: str
    dataset: dict
    steps: dict[str, Step] = field(default_factory=dict)
    _fingerprints: dict[str, str] = field(
        default_factory=dict
    )  # of steps; they depend on the configuration alone

    @classmethod
    def open(
        cls,
        config: Config,
        name: str,
        work: Path,
        overrides: list[str] | None = None,
        folder: str = "",
    ) -> "Pipeline":
        """Check a pipeline of the configuration; its steps live in `work/<folder or name>/<step>`.

        ConfigError lists all mistakes, each with its YAML path.
        """
        where = f"pipelines.yaml: pipelines.{name}"
        entry = config.pipeline(name)
        faults: list[str] = []
        for assignment in overrides or []:
            _override(entry, assignment, faults)
        unknown = set(entry) - {"dataset", "steps"}
        faults += [
            f"{where}.{key}: unknown key. {registry.suggest(key, ['dataset', 'steps'])}"
            for key in sorted(unknown)
        ]
        pipeline = cls(name, _dataset(config, entry.get("dataset"), where, faults))
        has_all = True
        for step_name, values in (entry.get("steps") or {}).items():
            known = len(faults)
            values = dict(values or {})
            count = values.pop("seeds", 1)
            step = _step(
                pipeline,
                config,
                name=step_name,
                values=values,
                out=work / (folder or name) / step_name,
                where=where,
                faults=faults,
            )
            if step is None:
                has_all = False
                continue
            pipeline.steps[step_name] = step
            is_wired = has_all and len(faults) == known
            mistakes = step.kind.mistakes(step.options, step.wiring if is_wired else None)
            if wrong := count != 1 and seeds.fault(step.kind, count):
                mistakes = [*mistakes, f"seeds: {wrong}"]
            faults += [f"{where}.steps.{step_name}: {mistake}" for mistake in mistakes]
            if not mistakes:
                runs = {run.name: run for run in _runs(step, count)}
                taken = sorted(set(runs) & set(entry["steps"]) - {step_name})
                faults += [f"{where}.steps.{n}: a run of {step_name} has this name" for n in taken]
                pipeline.steps |= runs
        if faults:
            raise Mistakes("\n".join(faults), pipeline)
        return pipeline

    def step(self, name: str) -> Step:
        if name not in self.steps:
            raise ConfigError(
                f"{self.name} has no step {name!r}", fix=registry.suggest(name, list(self.steps))
            )
        return self.steps[name]

    def stage(self, step: Step) -> Stage:
        """Return the stage of a step with its inputs as they are on disk now."""
        inputs = {need: self._input(step, need, spec) for need, spec in step.kind.needs.items()}
        return step.kind(step.options, inputs, step.out)

    def artefact(self, name: str, kind: str, remembered: Path | None = None) -> Artefact:
        """Return what a step (or the dataset) hands on; `content` is "" until it is made as
        configured now. remembered: where digests of files that lie ready are kept.
        """
        if name == DATASET:
            return dataset_artefact(self.dataset, kind)
        if is_path(name):
            return given_artefact(Path(name), kind, remembered)
        step = self.steps[name]
        if name not in self._fingerprints:
            self._fingerprints[name] = stage_fingerprint(self.stage(step))
        fingerprint = self._fingerprints[name]
        manifest = read_manifest(step.out)
        content = (
            manifest["content"]
            if manifest and manifest.get("fingerprint", "") == fingerprint
            else ""
        )
        return Artefact(
            kind=step.kind.makes,
            path=step.out,
            fingerprint=fingerprint,
            content=content,
            step=name,
            options=step.options.model_dump(mode="json"),
        )

    def lineage(self, step: Step) -> dict[str, dict]:
        """Return the options that matter of every step this one depends on, itself included."""
        found: dict[str, dict] = {}
        for sources in step.wiring.values():
            for source in sources:
                if not is_path(source):
                    found |= (
                        {DATASET: self.dataset}
                        if source == DATASET
                        else self.lineage(self.steps[source])
                    )
        return found | {step.name: effective_options(self.stage(step))}

    def upstream(self, step: Step) -> list[Step]:
        """Return the steps this one reads from directly."""
        return [
            self.steps[s] for sources in step.wiring.values() for s in sources if s in self.steps
        ]

    def _input(self, step: Step, need: str, spec: Need) -> Artefact | list[Artefact] | None:
        remembered = step.out / STATE / "digests.jsonl"
        sources = step.wiring.get(need, [])
        found = [self.artefact(source, spec.kind, remembered) for source in sources]
        if spec.many:
            return found
        return found[0] if found else None


def dataset_artefact(spec: dict, kind: str) -> Artefact:
    """Return the artefact of a dataset: annotations, or the video files it names.

    content: digest of the annotation files; "" if they cannot be read yet (the step that needs them
    says why).
    """
    dataset = _dataset_of(spec)
    try:
        content = dataset.digest()
    except (DataError, OSError):
        content = ""
    options = dataset.options.model_dump(mode="json", exclude=set(dataset.indifferent))
    root = getattr(dataset.options, "root", Path())
    full = {"type": spec["type"]} | dataset.options.model_dump(mode="json")
    return Artefact(
        kind=kind,
        path=Path(root),
        fingerprint=digest({"type": spec["type"]} | options),
        content=content,
        step=DATASET,
        options=full,
    )


def is_path(source: str) -> bool:
    """Return whether a step's source is a file or folder that lies ready, and not the name of a
    step.
    """
    return "/" in source


def given_artefact(path: Path, kind: str, remembered: Path | None = None) -> Artefact:
    """Return a file or folder that lies ready. content: its digest; "" while it is not there.
    remembered: where digests of unchanged files are kept.
    """
    manifest = read_manifest(path)
    if manifest:
        return Artefact(
            kind=kind,
            path=path,
            fingerprint=manifest.get("fingerprint", ""),
            content=manifest["content"],
            step=path.name,
            options=manifest.get("options", {}),
        )
    return GivenArtefact(kind, path, digest(["given", kind]), remembered)


def dataset_fault(spec: dict, kinds: set[str]) -> str:
    """Return why a dataset cannot be read, "" if it can: every file it expects when one of `kinds`
    is missing, else what is wrong with what it holds.
    """
    dataset = _dataset_of(spec)
    try:
        files = [file for file in dataset.expected_files() if file.kind in kinds]
        if any(file.is_missing for file in files):
            return "\n    ".join(map(str, files))
        dataset.digest()
        dataset.load()
    except TvrError as error:
        return str(error)
    except OSError as error:
        return f"{error.filename or ''}: cannot be read: {error.strerror}\n    Check the path."
    return ""


def _dataset_of(spec: dict) -> object:
    """Return the reader of {"type": ..., <its options>}."""
    module, values = (
        registry.find("dataset", spec["type"]),
        {k: v for k, v in spec.items() if k != "type"},
    )
    return module.Dataset(
        registry.options(module.Dataset.Options, values, f"dataset {spec['type']}")
    )


def _runs(step: Step, count: int) -> Iterator[Step]:
    """Yield the step, and its runs with other seeds beside it."""
    for name, options in seeds.repeated(step.kind, step.name, step.options, count):
        yield replace(step, name=name, options=options, out=step.out.with_name(name))


def _override(entry: dict, assignment: str, faults: list[str]) -> None:
    step, _, rest = assignment.partition(".")
    steps = entry.get("steps") or {}
    if step == DATASET:
        if isinstance(entry.get("dataset"), str):
            entry["dataset"] = {"name": entry["dataset"]}
        assign(entry["dataset"], rest, "--set")
    elif step not in steps:
        faults.append(
            f"--set {assignment}: there is no step {step!r}."
            f" {registry.suggest(step, [DATASET, *steps])}"
        )
    else:
        steps[step] = steps[step] or {}
        assign(steps[step], rest, "--set")


def _dataset(config: Config, value: object, where: str, faults: list[str]) -> dict:
    if value is None:
        faults.append(f"{where}.dataset: required, but not given.")
        return {"type": "folder"}
    over = {}
    if isinstance(value, dict):
        over = {k: v for k, v in value.items() if k != "name"}
        value = value.get("name")
    try:
        spec = (config.dataset(str(value)) if value else {}) | over
        if "type" not in spec:
            raise ConfigError("type: required, but not given", where=f"{where}.dataset")
        registry.known("dataset", spec["type"])
        module = registry.find("dataset", spec["type"])
        registry.options(
            module.Dataset.Options,
            {k: v for k, v in spec.items() if k != "type"},
            f"pipelines.yaml: datasets.{value}",
        )
    except ConfigError as error:
        faults.append(str(error))
        return {"type": "folder"}
    return spec


def _step(
    pipeline: Pipeline,
    config: Config,
    name: str,
    values: dict,
    out: Path,
    where: str,
    faults: list[str],
) -> Step | None:
    where = f"{where}.steps.{name}"
    try:
        kind = registry.find("stage", str(values.pop("stage", name.partition("@")[0]))).Stage
    except ConfigError as error:
        faults.append(f"{where}: {error}")
        return None
    named = _named_sources(kind, values)
    try:
        options = stage_options(kind, values, config, where)
    except ConfigError as error:
        faults.append(str(error))
        return None
    return Step(
        name, kind, options, _wire(pipeline, kind.wanted(options), named, where, faults), out
    )


def stage_options(kind: type[Stage], values: dict, config: Config, where: str) -> BaseModel:
    """Options of a stage; names of recipes and the like are replaced by what they stand for.

    Raises ConfigError with every mistake: names that stand for nothing, and what the options say.
    """
    values, faults = dict(values), []
    for option, section in kind.references.items():
        if option in values:
            try:
                values[option] = config.resolve(section, values[option])
            except ConfigError as error:
                faults.append(f"{where}.{option}: {error}")
    try:
        options = registry.options(kind.Options, values, where)
    except ConfigError as error:
        faults.append(str(error))
    if faults:
        raise ConfigError("\n".join(faults))
    return options


def _named_sources(kind: type[Stage], values: dict) -> dict[str, list[str]]:
    """Take the wiring keys (`in`, names of needs) out of a step's values."""
    named: dict[str, list[str]] = {}
    first = next(iter(kind.needs), None)
    for key in ["in", *kind.needs]:
        if key in values:
            value = values.pop(key)
            named[first if key == "in" else key] = [
                str(v) for v in (value if isinstance(value, list) else [value])
            ]
    return named


def _wire(
    pipeline: Pipeline,
    needs: dict[str, Need],
    named: dict[str, list[str]],
    where: str,
    faults: list[str],
) -> dict[str, list[str]]:
    """Return a source for every need."""
    wiring: dict[str, list[str]] = {}
    for need, spec in needs.items():
        sources = named.get(need) or _default_sources(pipeline, spec)
        for source in sources:
            _check_source(pipeline, source, spec, f"{where}.{need}", faults)
        if (
            not sources and not spec.optional and not any(".steps." in fault for fault in faults)
        ):  # it may be one of those
            faults.append(
                f"{where}: needs {spec.kind}, but no earlier step makes it. Add such a step, or"
                " name it with `in:`."
            )
        wiring[need] = [s for s in sources if s == DATASET or is_path(s) or s in pipeline.steps]
    return wiring


def _default_sources(pipeline: Pipeline, spec: Need) -> list[str]:
    if not spec.auto:
        return []
    makers = [name for name, step in pipeline.steps.items() if step.kind.makes == spec.kind]
    if spec.many:
        return makers
    if makers:
        return makers[-1:]
    return [DATASET] if spec.kind in _DATASET_MAKES else []


def _check_source(
    pipeline: Pipeline, source: str, spec: Need, where: str, faults: list[str]
) -> None:
    if is_path(source) or (source == DATASET and spec.kind in _DATASET_MAKES):
        return
    if source not in pipeline.steps:
        faults.append(
            f"{where}: there is no earlier step {source!r}."
            f" {registry.suggest(source, list(pipeline.steps))}"
        )
    elif pipeline.steps[source].kind.makes != spec.kind:
        makes = pipeline.steps[source].kind.makes
        faults.append(f"{where}: {source} makes {makes}, not {spec.kind}.")
