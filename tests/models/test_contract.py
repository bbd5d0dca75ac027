"""What every model of the registry promises, whatever its system (models/base.py)."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.base import RetrievalModel
from pipeline import registry
from pipeline.checkpoints.archive import read_archive
from pipeline.checkpoints.archive_writer import write_archive
from tests.models.contract_worker import (
    IN_PARTS,
    RULES,
    gradients,
    gradients_in_parts,
    train_without_chance,
)
from tests.models.subject import Batch, cases, subject

ROOT = Path(__file__).resolve().parents[2]
CASES = pytest.mark.parametrize(("system", "kind"), cases())
CLOSE = {"atol": 5e-6, "rtol": 1e-5}  # float32 products of another shape


@torch.no_grad()
def score(model: RetrievalModel, batch: Batch) -> dict[str, Tensor]:
    shared = model.prepare()
    return model.score(model.encode_text(batch, shared), model.encode_video(batch, shared))


@functools.cache
def of_whole_batch(system: str, kind: str) -> dict[str, Tensor]:
    own = subject(system)
    return gradients(train_without_chance(own.model(**own.kinds[kind])), own.batch(5))


def assert_equal_but_for_rounding(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Every gradient, within 3e-6 of the length of all of them: float32 sums in another order."""
    length = torch.stack([grad.norm() for grad in expected.values()]).norm()
    assert found.keys() == expected.keys()
    far = {name: float((found[name] - grad).norm() / length) for name, grad in expected.items()}
    assert max(far.values()) < 3e-6, max(far, key=far.get)


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Tensor]]:
    folder = tmp_path_factory.mktemp("contract")
    command = [sys.executable, "-m", "tests.models.contract_worker", folder / "grads.pt"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen([*command, folder / "store", str(rank)], cwd=ROOT, env=environment)
        for rank in range(2)
    ]
    assert [rank.wait(timeout=300) for rank in ranks] == [0, 0]
    return torch.load(folder / "grads.pt", weights_only=True)


def test_every_system_is_a_subject() -> None:
    assert {system for system, _ in cases()} == set(registry.names("model"))


@CASES
def test_an_item_alone_scores_as_in_a_batch(system: str, kind: str) -> None:
    own = subject(system)
    model, batch = own.model(**own.kinds[kind]), own.batch(4)

    together = score(model, batch)
    alone = [score(model, {k: v[i : i + 1] for k, v in batch.items()}) for i in range(4)]

    for name, values in together.items():
        found = torch.cat([one[name] for one in alone])[:, 0]
        torch.testing.assert_close(found, values.diagonal(), **CLOSE)


@CASES
def test_padding_changes_nothing(system: str, kind: str) -> None:
    own = subject(system)
    model, batch = own.model(**own.kinds[kind]), own.batch(4)

    other = own.repad(batch)

    assert any(not torch.equal(other[name], value) for name, value in batch.items())
    torch.testing.assert_close(score(model, other), score(model, batch), **CLOSE)


@CASES
def test_permuting_a_batch_permutes_the_scores(system: str, kind: str) -> None:
    own = subject(system)
    model, batch, order = own.model(**own.kinds[kind]), own.batch(4), [2, 0, 3, 1]

    found = score(model, {name: value[order] for name, value in batch.items()})

    expected = {name: value[order][:, order] for name, value in score(model, batch).items()}
    torch.testing.assert_close(found, expected, **CLOSE)


@CASES
def test_two_processes_have_the_gradients_of_one(
    system: str, kind: str, two_processes: dict[str, dict[str, Tensor]]
) -> None:
    expected = of_whole_batch(system, kind)

    found = two_processes[f"{system} {kind}"]
    assert found.keys() >= expected.keys()
    for name, grad in expected.items():
        # sums in another order; a shift of all scores has the gradient 0 but for rounding
        allowed = 1e-3 * float(grad.abs().max()) + 1e-5
        torch.testing.assert_close(
            found[name], grad, atol=allowed, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
        )


@CASES
def test_parts_of_a_batch_have_the_gradients_of_the_whole(system: str, kind: str) -> None:
    own = subject(system)

    found = gradients_in_parts(
        train_without_chance(own.model(**own.kinds[kind])), own.batch(5), n_pairs=2
    )

    assert_equal_but_for_rounding(found, of_whole_batch(system, kind))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("system", "kind"), IN_PARTS)
def test_parts_have_the_gradients_of_the_whole_on_two_processes(
    system: str, kind: str, rule: str, two_processes: dict[str, dict[str, Tensor]]
) -> None:
    whole = f"{system} {kind}" if rule == "full_gradient" else f"{rule} {system} {kind}"

    found = two_processes[f"{rule} {system} {kind} in parts"]

    assert_equal_but_for_rounding(found, two_processes[whole])


@CASES
def test_export_then_import_gives_equal_scores(system: str, kind: str, tmp_path: Path) -> None:
    own, published = subject(system), registry.model_part(system, "published")
    model, batch = own.model(**own.kinds[kind]), own.batch(4)

    written = published.export_file(model.options, model.state_dict(), {})
    write_archive(tmp_path / "file", written)
    read = read_archive(tmp_path / "file", published=True)
    told, assets = published.import_checkpoint(read, *own.side(model, written))

    found = {name: getattr(told, name) for name in own.told}
    back = own.build(model.options.model_copy(update=found), assets).eval()
    assert published.recognises(read)
    assert found == {name: getattr(model.options, name) for name in own.told}
    torch.testing.assert_close(score(back, batch), score(model, batch), atol=0, rtol=0)
