"""A scene by the client, on the project's own server with its own worker: from photos and captions to a deletion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from easyphoto import errors
from easyphoto.client import JobState, TrainKind, TrainSettings
from easyphoto.imaging.io import save_png
from tests.client.live import live_server

FEW: TrainSettings = {
    "lora": {"rank": 2, "alpha": 1.0}, "optim": {"max_steps": 2, "batch_size": 1}, "data": {"size": 64, "crops": 0},
    "validate": {"every": 2, "steps": 2},
}  # fmt: skip


def test_a_scene_is_trained_found_seen_renamed_and_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(2):
        coarse = np.random.default_rng(number).integers(0, 256, (12, 12, 3), dtype=np.uint8)
        save_png(folder / f"{number}.png", np.kron(coarse, np.ones((8, 8, 1), np.uint8)))
    (folder / "0.txt").write_text("two boats", encoding="utf-8")
    with live_server(tmp_path / "live") as live, live.client() as client:
        with pytest.raises(errors.InputError, match=r"1\.png has no caption"):
            client.train_scene("Harbour", folder, settings=FEW)
        job = client.wait(client.train_scene("Harbour", folder, prompt="a harbour", settings=FEW), timeout=300)
        assert (job.state, job.subject, job.person) == (JobState.DONE, TrainKind.SCENE, "Harbour")
        result = client.result(job)
        assert (result.subject, result.score) == (TrainKind.SCENE, None)
        scene = client.find_scene("Harbour")
        assert (scene.kind, scene.prompt, scene.photos, scene.lora) == (TrainKind.SCENE, "two boats", 2, "Harbour")
        assert client.scenes() == (scene,)
        assert client.people() == ()
        assert client.scene_picture(scene).startswith(b"\x89PNG")
        renamed = client.rename_scene(scene, "Quay")
        assert client.scene(renamed.id) == renamed
        assert any(path.endswith("Quay.safetensors") for path in client.delete_scene(renamed, results=True).removed)
        assert client.scenes() == ()
        with pytest.raises(errors.NotFound, match="the server knows none yet"):
            client.find_scene("Quay")
