"""The guided filter without OpenCV's contrib modules gives what they give."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from easyphoto.imaging.guided import guided_filter, guided_filter_plain
from easyphoto.records import Floats


@pytest.fixture()
def guide() -> Floats:
    rng = np.random.default_rng(0)
    rough = rng.uniform(0, 1, (12, 16, 3)).astype(np.float32)
    smooth = cv2.resize(rough, (160, 120), interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth + rng.normal(0, 0.02, smooth.shape), 0, 1).astype(np.float32)


@pytest.mark.skipif(not hasattr(cv2, "ximgproc"), reason="this OpenCV has no contrib modules to compare with")
@pytest.mark.parametrize(("radius", "smoothness"), [(3, 1e-3), (8, 0.04), (2, 0.2)])
def test_agrees_with_opencv(guide: Floats, radius: int, smoothness: float) -> None:
    mask = (guide[..., 0] > 0.5).astype(np.float32)
    for source in (mask, guide):
        wanted = cv2.ximgproc.guidedFilter(guide, source, radius, smoothness)
        assert guided_filter_plain(guide, source, radius, smoothness) == pytest.approx(wanted, abs=2e-3)


def test_runs_where_opencv_has_no_contrib_modules(guide: Floats, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = guided_filter(guide, guide, 4, 0.04)
    monkeypatch.delattr(cv2, "ximgproc", raising=False)
    assert guided_filter(guide, guide, 4, 0.04) == pytest.approx(wanted, abs=2e-3)


def test_an_edge_of_the_guide_stays_and_noise_goes() -> None:
    guide = np.zeros((40, 40, 3), np.float32)
    guide[:, 20:] = 1
    noise = np.random.default_rng(1).normal(0, 0.05, (40, 40)).astype(np.float32)
    filtered = guided_filter_plain(guide, guide[..., 0] + noise, 4, 0.02)
    assert np.abs(filtered[:, 18:22] - guide[:, 18:22, 0]).max() < 0.1
    assert filtered[5:35, 5:15].std() < noise.std() / 3
