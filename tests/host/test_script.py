"""What the host loads, run as the host runs it: twice, as a fresh module each time, against a strict stand-in."""

from __future__ import annotations

import asyncio
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fastapi import FastAPI

from easyphoto.api import mount as mounting
from easyphoto.api.application import Below
from easyphoto.jobs import host as rooms
from easyphoto.jobs.host_settings import HOST_OPTIONS
from easyphoto.settings import PROJECT_ROOT
from tests.engine.host_standin import StandIn

gr = pytest.importorskip("gradio")
SCRIPT = PROJECT_ROOT / "scripts" / "easyphoto_webui.py"


class OptionInfo:
    """`modules.options.OptionInfo` as far as extensions use it."""

    def __init__(self, default: Any, label: str, component: type, component_args: Any, *, section: tuple[str, str]) -> None:
        assert section == ("easyphoto", "EasyPhoto")
        self.default, self.label = default, label
        component(value=default, label=label, **component_args)  # the host makes it so
        self.notes: list[str] = []

    def info(self, text: str) -> OptionInfo:
        self.notes.append(text)
        return self

    def needs_restart(self) -> OptionInfo:
        self.notes.append("(requires restart)")
        return self


class ParamBinding:
    """`ParamBinding` of the host's module that sends pictures from tab to tab."""

    def __init__(self, *, paste_button: Any, tabname: str, source_text_component: Any, source_image_component: Any) -> None:
        assert isinstance(paste_button, gr.Button)
        assert isinstance(source_text_component, gr.Textbox)
        assert isinstance(source_image_component, gr.Image)
        self.tabname = tabname


class Loaded:
    """The callbacks and what the host got by them."""

    def __init__(self, host: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
        self.app_started: list[Callable[..., Any]] = []
        self.ui_tabs: list[Callable[[], Any]] = []
        self.ui_settings: list[Callable[[], Any]] = []
        self.bound: list[str] = []
        self.added: dict[str, OptionInfo] = {}
        self.logins: list[tuple[str, str]] = []
        self._put(host, monkeypatch)

    def _put(self, host: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
        package = sys.modules["modules"]
        callbacks, starting = ModuleType("modules.script_callbacks"), ModuleType("modules.initialize_util")
        for name in ("app_started", "ui_tabs", "ui_settings"):
            setattr(callbacks, f"on_{name}", getattr(self, name).append)
        starting.get_gradio_auth_creds = lambda: iter(self.logins)
        paste = ModuleType("modules.paste")
        paste.ParamBinding = ParamBinding
        paste.register_paste_params_button = lambda binding: self.bound.append(binding.tabname)
        newer = host.version != "1.6"
        name = "infotext_utils" if newer else "generation_parameters_copypaste"
        for key, part in (("script_callbacks", callbacks), ("initialize_util", starting), (name, paste)):
            setattr(package, key, part)
            monkeypatch.setitem(sys.modules, f"modules.{key}", part)
        shared = sys.modules["modules.shared"]
        shared.OptionInfo = OptionInfo
        object.__setattr__(shared.opts, "add_option", self.added.__setitem__)

    def run(self) -> None:
        runpy.run_path(str(SCRIPT), run_name="easyphoto_webui.py")


@pytest.fixture(params=["1.6", "1.8", "forge"])
def host(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    from tests.engine.test_webui import write_checkpoint

    controlnet = {"1.6": "1.1.441", "1.8": "1.1.455", "forge": "forge"}[request.param]
    made = StandIn(request.param, controlnet, tmp_path, write_checkpoint(tmp_path / "plain.safetensors"))
    made.install(monkeypatch)
    return made


@pytest.fixture
def loaded(host: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loaded]:
    monkeypatch.setenv("EASYPHOTO_HOME", str(tmp_path / "home"))
    yield Loaded(host, monkeypatch)
    for service in mounting._services.values():
        service.close()
    mounting._services.clear()
    rooms.leave()


def built(loaded: Loaded) -> list[tuple[Any, str, str]]:
    """The tabs."""
    return asyncio.run(called(loaded.ui_tabs[0]))


async def called(call: Callable[[], Any]) -> Any:
    """Whatever makes components, called inside a running event loop: outside of one Gradio makes loops that it never closes."""
    return call()


def test_the_script_registers_and_the_host_gets_routes_one_tab_and_a_section(loaded: Loaded) -> None:
    for _ in range(2):  # "Reload UI" clears the callbacks and runs the script anew
        loaded.app_started.clear()
        loaded.ui_tabs.clear()
        loaded.ui_settings.clear()
        loaded.bound.clear()
        loaded.run()
        assert (len(loaded.app_started), len(loaded.ui_tabs), len(loaded.ui_settings)) == (1, 1, 1)
        asyncio.run(called(loaded.ui_settings[0]))
        assert list(loaded.added) == [option.key for option in HOST_OPTIONS]
        ((page, title, identifier),) = built(loaded)
        assert isinstance(page, gr.Blocks)
        assert (title, identifier) == ("EasyPhoto", "easyphoto")
        assert loaded.bound == ["img2img", "inpaint", "extras"]
        app = FastAPI()
        loaded.app_started[0](page, app)
        assert sum(isinstance(route, Below) for route in app.router.routes) == 1
    assert len(mounting._services) == 1


def test_loading_the_script_imports_nothing_heavy() -> None:
    import subprocess

    code = (
        "import sys, types, runpy\n"
        "package = types.ModuleType('modules'); package.__path__ = []; sys.modules['modules'] = package\n"
        "for name in ('script_callbacks', 'shared', 'initialize_util', 'sd_models'):\n"
        "    part = types.ModuleType('modules.' + name); setattr(package, name, part); sys.modules['modules.' + name] = part\n"
        "for name in ('app_started', 'ui_tabs', 'ui_settings'):\n"
        "    setattr(package.script_callbacks, 'on_' + name, lambda call: None)\n"
        f"runpy.run_path({str(SCRIPT)!r})\n"
        "heavy = {'torch', 'numpy', 'gradio', 'fastapi', 'mediapipe', 'dlib', 'cv2', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_home_that_cannot_be_written_gives_a_tab_that_says_so(
    loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("EASYPHOTO_HOME", str(tmp_path / "file" / "home"))
    loaded.run()
    ((page, title, _),) = built(loaded)
    assert title == "EasyPhoto"
    assert "file" in str(page.get_config_file())


def test_the_script_is_short_enough_to_be_seen_at_once() -> None:
    assert len(SCRIPT.read_text(encoding="utf-8").splitlines()) < 60


def offered(host: StandIn) -> None:
    """Our checkpoint lies among the host's."""
    path = host.folder / "models" / "Stable-diffusion" / "zz-easyphoto" / "easyphoto-base-256.safetensors"
    path.parent.mkdir(parents=True)
    path.touch()


def test_a_host_that_may_load_our_checkpoint_first_is_told_of_it_while_scripts_are_loaded(
    loaded: Loaded, host: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Path] = []
    offered(host)
    monkeypatch.setattr("easyphoto.engine.webui_teaching.teach_forge", lambda _model, folder, _name: told.append(folder))
    loaded.run()
    assert told == ([Path(sys.modules["modules.sd_models"].model_path) / "zz-easyphoto"] if host.version == "forge" else [])


def test_a_host_that_cannot_be_told_loads_the_script_all_the_same(
    loaded: Loaded, host: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'huggingface_guess'", name="huggingface_guess")

    offered(host)
    monkeypatch.setattr("easyphoto.engine.webui_teaching.teach_forge", unknown)
    loaded.run()
    assert len(loaded.ui_tabs) == 1
