"""`scenes`: what was learnt from scenes and clothes, under which name, and that all of it goes."""

from __future__ import annotations

import argparse
import threading
from contextlib import closing
from pathlib import Path

from easyphoto.app import App
from easyphoto.cli.commands import print_json, settings_of
from easyphoto.errors import LoraError
from easyphoto.jobs.store import JobStore
from easyphoto.privacy.erase import erase_person
from easyphoto.records import TrainKind
from easyphoto.specs import Person
from easyphoto.store.codec import to_json
from easyphoto.store.lora_file import read_lora
from easyphoto.store.lora_meta import scene_prompts
from easyphoto.store.paths import lora_name

Arguments = argparse.Namespace
KINDS = tuple(kind for kind in TrainKind if kind is not TrainKind.PERSON)


def add_verbs(verb: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    """`scenes list`, `show`, `rename` and `delete`."""
    verbs = verb.add_subparsers(dest="action", required=True)
    listing = verbs.add_parser("list", parents=[common], help="every scene and garment that was trained")
    listing.set_defaults(run=scenes_list)
    show = verbs.add_parser("show", parents=[common], help="one scene's files, and how it is called up")
    rename = verbs.add_parser("rename", parents=[common], help="give a scene another name")
    delete = verbs.add_parser("delete", parents=[common], help="remove a scene with everything derived")
    for one, run in ((show, scenes_show), (rename, scenes_rename), (delete, scenes_delete)):
        one.add_argument("name")
        one.add_argument("--kind", choices=[kind.value for kind in KINDS], default=TrainKind.SCENE.value)
        one.set_defaults(run=run)
    rename.add_argument("new")
    delete.add_argument("--results", action="store_true", help="remove what its trainings left among the results too")


def scenes_list(arguments: Arguments, _cancel: threading.Event) -> int:
    """Print every scene and every garment."""
    app = App(settings_of(arguments))
    found = [scene for kind in KINDS for scene in app.shelf(kind).list()]
    if arguments.json:
        print_json([to_json(scene) for scene in found])
    elif not found:
        print('no scene yet; train one with: easyphoto train PHOTOS --kind scene --name NAME --prompt "what they show"')
    for scene in () if arguments.json else found:
        print(f"{scene.kind.value:<6} {scene.photos:>3} photos  {scene.created}  {scene.name}  ({scene.prompt})")
    return 0


def scenes_show(arguments: Arguments, _cancel: threading.Event) -> int:
    """Print one scene, or what a scene's LoRA file of whatever maker says of itself."""
    file = Path(arguments.name)
    if file.suffix == ".safetensors" and file.is_file():
        return _show_file(arguments, file)
    scene = App(settings_of(arguments)).shelf(TrainKind(arguments.kind)).get(arguments.name)
    print_json(to_json(scene)) if arguments.json else print_scene(scene)
    return 0


def _show_file(arguments: Arguments, path: Path) -> int:
    file = read_lora(path)
    prompts = scene_prompts(file.metadata)
    if prompts is None:
        raise LoraError(f"{path} does not say that it is a scene; name a scene of scenes list, or another file")
    family = file.family.value if file.family else None
    if arguments.json:
        print_json({"lora": str(path), "family": family, "prompts": list(prompts)})
    for prompt in () if arguments.json else prompts:
        print(f"{family or 'unknown family'}  {prompt}, <lora:{path.stem}:0.8>")
    return 0


def scenes_rename(arguments: Arguments, _cancel: threading.Event) -> int:
    """Give one scene another name."""
    scene = App(settings_of(arguments)).shelf(TrainKind(arguments.kind)).rename(arguments.name, arguments.new)
    print_json(to_json(scene)) if arguments.json else print_scene(scene)
    return 0


def scenes_delete(arguments: Arguments, _cancel: threading.Event) -> int:
    """Remove one scene and say what was removed."""
    settings, kind = settings_of(arguments), TrainKind(arguments.kind)
    with closing(JobStore(settings.home)) as store:
        erased = erase_person(App(settings), store, arguments.name, arguments.results, subject=kind)
    if arguments.json:
        print_json(to_json(erased))
        return 0
    print(f"removed {len(erased.removed)} files and rows of the {kind.value} {erased.person}")
    for path in erased.removed:
        print(f"  {path}")
    for path in erased.kept:
        print(f"kept {path}; remove it too with --results")
    return 0


def print_scene(scene: Person) -> None:
    """A scene's files, and the words that call it up."""
    print(f"{scene.name}: {scene.kind.value} of {scene.photos} photos, trained {scene.created}")
    print(f"  LoRA       {scene.lora}\n  picture    {scene.face_id_picture}\n  prompt     {scene.prompt}")
    print(f"  in a portrait's prompt: {tagged(scene)}")


def tagged(scene: Person, weight: float = 0.8) -> str:
    """What a portrait's prompt says to have the scene."""
    return f"{scene.prompt}, <lora:{lora_name(scene.name)}:{weight:g}>"
