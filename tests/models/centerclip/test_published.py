import json
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

import cli
from models.base import Mismatch
from models.centerclip import published as centerclip
from models.centerclip import published_settings
from models.centerclip.model import CenterCLIP, build
from models.centerclip.options import Options
from models.centerclip.published_training import (
    as_state_dict,
    export_optimizer,
    import_optimizer,
    parameter_order,
)
from models.clip.towers import CLIP
from pipeline import config
from pipeline.checkpoints import model_file
from pipeline.checkpoints.archive_writer import write_archive
from pipeline.checkpoints.published import import_clip, import_file, is_clip
from pipeline.checkpoints.word_files import Files
from pipeline.errors import DataError
from pipeline.recipes.freeze import frozen_names
from pipeline.recipes.options import FreezeOptions
from pipeline.recipes.recipe import parse
from tests.models.centerclip.small_centerclip import SIZES, batch, scores, small
from tests.models.clip.hugging_face import as_hugging_face
from tests.models.clip.small_clip import small_clip

MEDOIDS = {"frames": 2, "tokens": 9}
KINDS = [
    {},
    {"temporal": "sequence", "temporal_layers": 2},
    {"temporal": "lstm", "padding": "zero", "temporal_eps": 1e-12},
    {"temporal": "tight", "temporal_layers": 1, "padding": "zero", "temporal_eps": 1e-12},
    {"patches": "3d"},
    {"reduce": {2: MEDOIDS}},
    {"reduce": {2: MEDOIDS | {"method": "deep"}}},
    {
        "reduce": {
            2: MEDOIDS | {"embedding": True, "frame_embedding": True, "keep": "mean", "p": 1.0}
        }
    },
    {
        "reduce": {
            2: MEDOIDS | {"method": "spectral", "graph": "knn", "space_time": True, "neighbours": 7}
        }
    },
    {"reduce": {2: {"frames": 4, "tokens": 12}, 3: {"frames": 1, "tokens": 5}}},
    {"reduce": {block: {"method": "token_shift"} for block in (1, 2, 3)}},
]


def settings_file(model: CenterCLIP, published: dict) -> dict:
    """The settings as they come back from a file."""
    return json.loads(json.dumps(centerclip.settings(model.options, published)))


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_export_and_import_give_back_options_and_weights(options: dict) -> None:
    model = small(**options)
    published = centerclip.export_file(model.options, model.state_dict(), {})

    back, assets = centerclip.import_checkpoint(published, settings_file(model, published))

    assert back == model.options
    assert torch.equal(scores(build(back, assets).eval(), batch()), scores(model, batch()))


@pytest.mark.parametrize("options", KINDS[:7], ids=str)
def test_files_are_recognised_by_their_names(options: dict) -> None:
    model = small(**options)
    published = centerclip.export_file(model.options, model.state_dict(), {})

    assert centerclip.recognises(published)
    assert not centerclip.recognises(
        published | {"state_dict": {"text_weight_fc.weight": torch.zeros(1)}}
    )
    assert not centerclip.recognises(model.clip.state_dict())


def test_clip4clip_files_are_bare_and_tell_their_epsilon() -> None:
    model = small(temporal="sequence", temporal_layers=1, padding="zero", temporal_eps=1e-12)
    published = centerclip.export_file(model.options, model.state_dict(), {})

    options, _ = centerclip.import_checkpoint(published)

    assert "clip.visual.conv1.weight" in published
    assert (options.temporal_eps, options.padding, options.temporal_layers) == (1e-12, "zero", 1)


def test_what_weights_cannot_tell_is_asked_for() -> None:
    model = small(reduce={2: MEDOIDS | {"embedding": True}})
    published = centerclip.export_file(model.options, model.state_dict(), {})

    with pytest.raises(Mismatch, match="reduction of tokens that the file does not describe"):
        centerclip.import_checkpoint(published)


def test_settings_beside_a_file_become_its_recipe(tmp_path: Path) -> None:
    model = small(reduce={2: MEDOIDS})
    published = centerclip.export_file(
        model.options, model.state_dict(), {"epoch": 3, "step": 40, "best_acc1": 44.1}
    )
    write_archive(tmp_path / "ckpt.best.pth.tar", published)
    (tmp_path / "hparams_train.json").write_text(
        json.dumps(centerclip.settings(model.options, published))
    )

    info, weights = import_file(tmp_path / "ckpt.best.pth.tar", Files(), config.load())

    assert info.recipe.options == model.options
    assert info.training == {
        "imported": "ckpt.best.pth.tar",
        "epoch": 3,
        "step": 40,
        "best_acc1": 44.1,
    }
    assert weights.keys() == model.state_dict().keys()


def test_a_file_without_settings_is_read_by_the_recipe_of_its_program(tmp_path: Path) -> None:
    theirs, ours = small(padding="zero", temporal_eps=1e-12), small()
    for name, model in (("pytorch_model.bin.4", theirs), ("ckpt.best.pth.tar", ours)):
        write_archive(
            tmp_path / name, centerclip.export_file(model.options, model.state_dict(), {})
        )

    recipes = [
        import_file(file, Files(), config.load())[0].recipe for file in sorted(tmp_path.iterdir())
    ]

    assert [recipe.name for recipe in recipes] == ["centerclip_base", "clip4clip_published"]
    assert [recipe.train.frames.evaluation for recipe in recipes] == ["centers", "linspace"]


def test_float16_of_a_clip4clip_file_is_read_in_float32_unless_half_is_asked_for(
    tmp_path: Path,
) -> None:
    model = small(padding="zero", temporal_eps=1e-12, half_weights=True)
    file = tmp_path / "pytorch_model.bin.4"
    write_archive(file, centerclip.export_file(model.options, model.state_dict(), {}))

    for asked, dtype in (([], torch.float32), (["options.half_weights=true"], torch.float16)):
        _, weights = import_file(file, Files(), config.load(), overrides=asked)
        assert weights["clip.visual.proj"].dtype == dtype
        assert all(torch.equal(weights[n], v.to(weights[n])) for n, v in model.state_dict().items())


@pytest.mark.parametrize("options", [{}, {"reduce": {2: MEDOIDS}}])
def test_nothing_has_to_be_assumed_of_settings_that_we_write(options: dict) -> None:
    settings = published_settings.settings_of(small(**options).options, blocks=3)

    assert published_settings.assumptions(settings) == []


def test_fp16_of_the_published_program_is_half_weights_without_a_scaler() -> None:
    settings = {"max_frames": 4, "max_words": 12, "precision": "fp16", "optim": "AdamW"}

    made = published_settings.recipe(settings)

    assert made["options"]["half_weights"]
    assert made["train"]["precision"] == "float32"  # amp is what scales the loss
    again = published_settings.settings_of(Options.model_validate(made["options"]), blocks=3)
    assert again["precision"] == "fp16"
    assert not any("precision" in line for line in published_settings.assumptions(settings))


def test_settings_that_are_none_are_refused(tmp_path: Path) -> None:
    model = small()
    write_archive(
        tmp_path / "ckpt.pth.tar", centerclip.export_file(model.options, model.state_dict(), {})
    )
    (tmp_path / "hparams_train.json").write_text('{"sim_header": "meanP"')

    with pytest.raises(DataError, match="not the settings of ckpt.pth.tar"):
        import_file(tmp_path / "ckpt.pth.tar", Files(), config.load())


def test_a_bare_clip_becomes_a_checkpoint_for_zero_shot_search(tmp_path: Path) -> None:
    clip, recipes = small_clip(SIZES), tmp_path / "recipes.yaml"
    write_archive(tmp_path / "clip.pt", clip.state_dict())
    recipes.write_text(
        "recipes: {z: {extends: centerclip_zero_shot, options: {backbone: given, words: 12}}}"
    )

    info, weights = import_clip(tmp_path / "clip.pt", config.load(recipes), "z")

    assert is_clip(tmp_path / "clip.pt")
    assert info.recipe.model == "centerclip"
    assert torch.equal(weights["clip.visual.proj"], clip.visual.proj.half().float())


def test_settings_of_the_user_hold_for_a_bare_clip_too(tmp_path: Path) -> None:
    write_archive(tmp_path / "clip.pt", small_clip(SIZES).state_dict())
    asked = ["--set", "options.backbone=given", "--set", "options.words=9", "--set", "train.seed=5"]

    done = cli.main(
        ["import-checkpoint", str(tmp_path / "clip.pt"), *asked, "--out", str(tmp_path / "out")]
    )

    recipe = model_file.load_model(tmp_path / "out")[1].recipe
    assert (done, recipe.options.words, recipe.train.seed) == (0, 9, 5)


FORMS = {  # as others than OpenAI save them
    "open_clip training": lambda state: {
        "epoch": 3,
        "state_dict": {f"module.{n}": v for n, v in state.items()},
    },
    "open_clip, text apart": lambda state: {
        n if n.startswith("visual.") or n == "logit_scale" else f"text.{n}": v
        for n, v in state.items()
    },
    "hugging face": as_hugging_face,
}


@pytest.mark.parametrize("form", FORMS)
def test_weights_of_others_become_the_same_checkpoint(form: str, tmp_path: Path) -> None:
    clip, recipes = small_clip(SIZES), tmp_path / "recipes.yaml"
    torch.save(FORMS[form](clip.state_dict()), tmp_path / "pytorch_model.bin")
    recipes.write_text(
        "recipes: {z: {extends: centerclip_zero_shot, options: {backbone: given, words: 12}}}"
    )
    arguments = [
        "import-checkpoint",
        tmp_path / "pytorch_model.bin",
        "--recipe",
        "z",
        "--config",
        recipes,
    ]

    assert cli.main([str(a) for a in (*arguments, "--out", tmp_path / "ours.pt")]) == 0

    model, _ = model_file.load_model(tmp_path / "ours.pt")
    expected = CLIP.from_state_dict(clip.state_dict()).state_dict()
    assert all(
        torch.equal(value, expected[name]) for name, value in model.clip.state_dict().items()
    )


def full_size(case: dict, plain: dict) -> dict[str, Tensor]:
    """A state dict of the recorded names and shapes, without memory."""
    shapes = {**plain, **case.get("changed_or_added", {})}
    return {
        name: torch.empty(shape, device="meta")
        for name, shape in shapes.items()
        if name not in case["removed"]
    }


CONFIGURATIONS = [
    "vit_b32_kmedoids_B6-6,49 (eclip_new_abla_lsmdc_04)",
    "vit_b32_spectral_B6-4,49 (eclip_new_abla_lsmdc_23)",
    "vit_b16_kmedoids_B6-4,160",
    "vit_b32_seqTransf",
    "vit_b32_linear3d",
    "vit_b32_kmedoids_cluster_embedding",
    "vit_b32_spectral_spg",
    "vit_b32_deep_cluster",
]


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_names_and_shapes_at_full_size(name: str, shared: Path) -> None:
    recorded = json.loads((shared / "golden/centerclip/keys.json").read_text())
    case, plain = recorded[name], recorded["vit_b32_meanP_no_clustering"]["params"]
    state, defaults = full_size(case, plain), _defaults(shared)
    with torch.device("meta"):
        options, assets = centerclip.import_checkpoint(
            {"state_dict": state}, defaults | case["options"]
        )
        model = build(options, assets)
        again = centerclip.published_names(options, model.state_dict())

    assert {key: value.shape for key, value in again.items()} == {
        key: value.shape for key, value in state.items()
    }
    unread = sum(b.numel() for n, b in model.named_buffers() if n.endswith("frame_embedding"))
    assert sum(p.numel() for p in model.parameters()) + unread == case["total_parameter_count"]


def _defaults(shared: Path) -> dict:
    """Options that the key lists leave out."""
    return json.loads((shared / "golden/centerclip/meanp-plain/case.json").read_text())["options"]


def test_settings_become_the_recipe_that_ships(shared: Path) -> None:
    script = _defaults(shared) | {
        "pretrained_clip_name": "ViT-B/32",
        "max_words": 32,
        "max_frames": 12,
        "cluster_inter": 1,
        "cluster_num_blocks": [49] * 12,
        "target_frames_blocks": [12] * 6 + [6] * 6,
        "cluster_threshold": 1e-6,
        "optim": "AdamW",
        "lr": 5e-3,
        "coef_lr": 1e-3,
        "epochs": 5,
        "batch_size": 64,
        "world_size": 2,
        "precision": "amp",
        "batch_size_val": 32,
        "n_display": 40,
        "seed": 42,
    }

    found = parse({"name": "found", **published_settings.recipe(script)})

    shipped = parse(config.load().recipe("centerclip_lsmdc_04"))
    assert found.options == shipped.options
    differ = {n for n, value in found.train if value != getattr(shipped.train, n)}
    assert differ == {"batch_size", "batch_scope"}  # 2 x 64 are 128


@pytest.mark.parametrize(("layers", "trained"), [(-1, 4), (0, 3), (1, 2), (2, 1)])
def test_frozen_are_the_parts_below_the_blocks_that_train(layers: int, trained: int) -> None:
    names = ["clip.visual.conv1", "clip.visual.proj", "clip.resblocks.0.a", "clip.resblocks.1.a"]
    rule = published_settings.freeze_rule(layers)

    frozen = [
        n for n in names
        if rule and re.search(rule["match"], n) and not any(re.search(e, n) for e in rule["except"])
    ]  # fmt: skip

    assert len(frozen) == 4 - trained


@pytest.mark.parametrize("method", ["kmedoids", "deep"])
def test_what_stands_in_front_of_a_frozen_block_is_frozen_with_it(method: str) -> None:
    reduce = {"frames": 2, "tokens": 6, "method": method}
    reduce |= {"embedding": True} if method == "kmedoids" else {}
    model = small(reduce={2: reduce})
    in_front = [name for name, _ in model.named_parameters() if name.startswith("reduce.1.")]

    trained = {}
    for layers in (0, 1, 2):
        rule = FreezeOptions.model_validate(published_settings.freeze_rule(layers))
        frozen = set(frozen_names([name for name, _ in model.named_parameters()], rule))
        trained[layers] = [name for name in in_front if name not in frozen]

    assert trained == {0: in_front, 1: in_front, 2: []} and in_front


def test_user_can_set_what_settings_say_wrongly(tmp_path: Path) -> None:
    model = small(reduce={2: MEDOIDS})
    value = centerclip.export_file(model.options, model.state_dict(), {})
    write_archive(tmp_path / "ckpt.pth.tar", value)
    settings = centerclip.settings(model.options, value)
    (tmp_path / "hparams_train.json").write_text(json.dumps(settings | {"max_frames": 7}))
    file = tmp_path / "ckpt.pth.tar"

    with pytest.raises(DataError, match="7 frames do not make 4 equal segments|do not make"):
        import_file(file, Files(), config.load())
    info, _ = import_file(file, Files(), config.load(), overrides=["options.frames=4"])
    named, _ = import_file(
        file, Files(), config.load(), "centerclip_b6_4", overrides=["options.frames=4"]
    )

    assert info.recipe.options.frames == 4
    assert set(named.recipe.options.reduce) == {2}  # of the file, not also of the recipe


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"version https://git-lfs.github.com/spec/v1\nsize 12\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b'{"target_frames_blocks": "x", "cluster_inter": 1}', "not a number of each for every"),
    ],
)
def test_settings_that_are_something_else_are_called_so(
    said: bytes, told: str, tmp_path: Path
) -> None:
    model = small()
    value = centerclip.export_file(model.options, model.state_dict(), {})
    write_archive(tmp_path / "ckpt.pth.tar", value)
    (tmp_path / "hparams_train.json").write_bytes(said)

    with pytest.raises(DataError, match=told):
        import_file(tmp_path / "ckpt.pth.tar", Files(), config.load())


def test_missing_settings_are_those_of_the_published_parser_and_said() -> None:
    settings = {"max_frames": 12, "optim": "AdamW"}

    made = published_settings.recipe(settings)

    assert made["options"]["words"] == 20
    assert made["train"]["optimizer"]["lr"] == 1e-4
    said = published_settings.assumptions(settings)
    assert "max_words 20: not in the settings, so its parser's default" in said
    assert not any(line.startswith("max_frames") for line in said)


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(Mismatch, match="meanQ is a value that is unknown"):
        published_settings.recipe({"sim_header": "meanQ"})


@pytest.mark.parametrize(
    "reduce",
    [
        {3: {"frames": 6, "p": 1.0}, 7: {"frames": 3}},
        {1: {"frames": 12}},
        {2: {"method": "token_shift"}},
    ],
)
def test_reductions_that_the_published_settings_cannot_say_are_refused(reduce: dict) -> None:
    with pytest.raises(Mismatch, match="keep this checkpoint in ours"):
        published_settings.settings_of(Options(reduce=reduce), 12)


def stepped(model: CenterCLIP) -> tuple[list[dict], torch.optim.Optimizer]:
    """An optimizer of ours after a step, and its groups by name."""
    parts = [
        [(n, p) for n, p in model.named_parameters() if ("bias" in n) == still]
        for still in (False, True)
    ]
    groups = [{"names": [n for n, _ in part], "params": [p for _, p in part]} for part in parts]
    made = torch.optim.AdamW([{"params": group["params"]} for group in groups])
    model.train()(batch())["loss"].backward()
    made.step()
    return groups, made


def test_moments_go_to_their_parameters_and_back() -> None:
    model = small(temporal="sequence", temporal_layers=1)
    groups, made = stepped(model)
    state = {
        n: made.state[p]
        for group in groups
        for n, p in zip(group["names"], group["params"], strict=True)
    }

    published = export_optimizer(model.options, model.state_dict(), state, [{}] * 4)
    again = import_optimizer(model.options, model.state_dict(), published)

    assert again == state
    made.load_state_dict(
        as_state_dict(again, [g | made.state_dict()["param_groups"][0] | g for g in groups])
    )


def test_clip4clip_counts_decayed_parameters_first() -> None:
    names = ["clip.a.weight", "clip.a.bias", "transformerClip.b.weight", "transformerClip.b.bias"]

    assert parameter_order(names) == [[n] for n in names]
    assert parameter_order(names, clip4clip=True) == [[names[i]] for i in (0, 2, 1, 3)]


def test_moments_of_another_model_are_refused() -> None:
    model, other = small(), small(temporal="sequence", temporal_layers=1)
    _, made = stepped(other)

    with pytest.raises(Mismatch, match="for a model of"):
        import_optimizer(model.options, model.state_dict(), made.state_dict())
