"""What training reads besides captions: word vectors, features, the device."""

import numpy as np
import pytest
import torch

from pipeline.errors import ConfigError, DataError
from pipeline.feeding.inputs import choose_device, load_vectors, open_store
from tests.stages.store_runs import big_file, frames, tensors, videos


def test_vectors_are_read_from_the_folder_of_a_step(tmp_path):
    vectors = np.arange(6, dtype=np.float32).reshape(3, 2)
    np.save(tmp_path / "pretrained_weight.npy", vectors)

    assert np.array_equal(load_vectors(tmp_path), vectors)


@pytest.mark.parametrize(
    "value", [np.ones((2, 2)), np.ones(3, np.float32), np.array([{}], dtype=object)]
)
def test_vectors_of_another_shape_or_type_are_refused(tmp_path, value):
    np.save(tmp_path / "v.npy", value, allow_pickle=True)

    with pytest.raises(DataError, match="expected float32|cannot be read") as caught:
        load_vectors(tmp_path / "v.npy")
    assert caught.value.fix


def test_features_are_the_same_from_both_stores(tmp_path):
    rows = {
        f"v{n}": np.random.default_rng(n).normal(size=(n + 1, 4)).astype(np.float32)
        for n in range(3)
    }
    features = big_file(tmp_path / "features", rows)
    tensors({"bigfile": features}, tmp_path / "tensors", features={})

    for store in (open_store(tmp_path / "tensors"), open_store(None, features.path)):
        assert store.dim == 4
        assert store.holds("v1") and not store.holds("v9")
        assert np.array_equal(store.read("v2"), rows["v2"])


def test_cache_of_frames_is_no_store_of_features(tmp_path):
    tensors(
        {"store": frames(videos(tmp_path / "in", 1), tmp_path / "frames")},
        tmp_path / "tensors",
        frames={"size": 32},
    )

    with pytest.raises(DataError, match="holds frames, not features"):
        open_store(tmp_path / "tensors")


def test_device_is_the_processor_where_there_is_no_gpu():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")

    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match="no GPU"):
        choose_device("cuda:1")
    if torch.backends.mps.is_available():
        pytest.skip("this machine has an Apple GPU")
    with pytest.raises(ConfigError, match="torch cannot use an Apple GPU here"):
        choose_device("mps")
