"""The host's upscalers, on a stand-in of each host: only what is installed, and the host is left as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from easyphoto.engine.webui import WebuiEngine
from easyphoto.errors import Cancelled, JobFailed, ToolMissing
from easyphoto.portrait.enlarge import fitted
from tests.engine.contract import picture
from tests.engine.host_standin import StandIn, Upscaler
from tests.engine.test_webui import HOSTS, write_checkpoint


@pytest.fixture(params=HOSTS, ids=lambda pair: f"{pair[0]}-{pair[1]}")
def host(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    made = StandIn(*request.param, tmp_path, write_checkpoint(tmp_path / "plain.safetensors"))
    for name in ("R-ESRGAN 4x+ Anime6B", "4x_mine", "R-ESRGAN General"):
        (tmp_path / f"{name}.pth").write_bytes(b"")
        made.upscalers.append(Upscaler(name, str(tmp_path / f"{name}.pth")))
    made.install(monkeypatch)
    return made


def test_what_would_be_downloaded_is_not_offered_and_photos_come_first(host: StandIn) -> None:
    assert WebuiEngine().enlargers == ("R-ESRGAN General", "4x_mine", "R-ESRGAN 4x+ Anime6B")


def test_a_picture_becomes_twice_as_large_whatever_its_sides(host: StandIn) -> None:
    engine, image = WebuiEngine(), picture(64)[:50, :61]
    large = fitted(engine.enlarge(image, "4x_mine"), (122, 100))
    assert large.shape == (100, 122, 3)
    assert np.abs(large[::2, ::2].astype(int) - image).mean() < 4
    assert not host.lock.locked()
    assert host.state.job == ""


def test_refusals_are_sentences_and_leave_the_host_free(host: StandIn) -> None:
    engine = WebuiEngine()
    with pytest.raises(ToolMissing, match=r"no upscaler R-ESRGAN 4x\+ installed; choose one of: R-ESRGAN General"):
        engine.enlarge(picture(64), "R-ESRGAN 4x+")
    host.upscalers[-1].fails = RuntimeError("CUDA out of memory")
    with pytest.raises(JobFailed, match="R-ESRGAN General failed: CUDA out of memory"):
        engine.enlarge(picture(64), "R-ESRGAN General")
    assert not host.lock.locked()


def test_a_file_that_the_host_cannot_read_is_told_of(host: StandIn) -> None:
    host.upscalers[-1].is_broken = True
    with pytest.raises(JobFailed, match="could not use its upscaler R-ESRGAN General"):
        WebuiEngine().enlarge(picture(64), "R-ESRGAN General")


def test_interrupt_in_the_host_stops_it(host: StandIn) -> None:
    engine = WebuiEngine()
    with engine.session(), pytest.raises(Cancelled):
        host.state.interrupt()
        engine.enlarge(picture(64), "4x_mine")
