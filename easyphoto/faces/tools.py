"""All face tools in one bundle: each is found by name, made when first used, and remembers what it has seen.

A backend of your own is one class that keeps a protocol of `faces.base`, and one call:

    register(Role.RECOGNIZER, Backend(name="arcface", make=ArcFace, is_installed=..., how_to_install="pip install ..."))
    tools = FaceTools(ToolNames(recognizer="arcface"))
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Generic, TypeVar, cast

from easyphoto.errors import SpecError, ToolMissing
from easyphoto.faces import embed, enhance, graphs
from easyphoto.faces.base import BodyFinder, Detector, Enhancer, Fuser, Recognizer, Retoucher, Segmenter
from easyphoto.faces.bodies import MediaPipeBody
from easyphoto.faces.detect import MediaPipeDetector
from easyphoto.faces.fuse import MeshFuser
from easyphoto.faces.retouch import ClassicalRetoucher
from easyphoto.faces.segment import MediaPipeSegmenter
from easyphoto.records import Face, Floats, Photo

K = TypeVar("K")
V = TypeVar("V")

_REMEMBERED = 256
"""Pictures, faces and bodies that are kept, about 6 kB each; the pixels are not."""


class Role(str, Enum):
    """What a tool is for."""

    DETECTOR = "detector"
    BODY = "body"
    RECOGNIZER = "recognizer"
    SEGMENTER = "segmenter"
    RETOUCHER = "retoucher"
    ENHANCER = "enhancer"
    FUSER = "fuser"


@dataclass(frozen=True, kw_only=True)
class Backend:
    """One way to fill a role."""

    name: str
    make: Callable[[], Any]
    """Makes the tool; may raise ToolMissing."""
    is_installed: Callable[[], bool] = lambda: True
    """Whether it could be made, without loading anything heavy."""
    how_to_install: str = ""


@dataclass(frozen=True, kw_only=True)
class ToolNames:
    """Which backend fills which role."""

    detector: str = "mediapipe"
    body: str = "mediapipe"
    recognizer: str = "dlib"
    segmenter: str = "mediapipe"
    retoucher: str = "classical"
    enhancer: str = "classical"
    fuser: str = "mesh"


_BACKENDS: dict[Role, dict[str, Backend]] = {role: {} for role in Role}


def register(role: Role, backend: Backend) -> None:
    """Add a backend; a name that is taken is refused."""
    if backend.name in _BACKENDS[role]:
        raise SpecError(f"there is a {role.value} named {backend.name!r} already; choose another name")
    _BACKENDS[role][backend.name] = backend


def available() -> Mapping[Role, tuple[Backend, ...]]:
    """Every known backend of every role, installed or not."""
    return {role: tuple(backends.values()) for role, backends in _BACKENDS.items()}


_Key = tuple[str, bytes]
"""A picture's digest and a face's landmarks: which face of which picture."""


class FaceTools:
    """The tools of one process.

    Nothing is detected twice: faces are remembered by the picture's digest, embeddings and bodies by the face. One lock
    serialises the models, which are not thread-safe; the picture arithmetic (retouch, enhance, fuse) runs outside it.
    """

    def __init__(self, names: ToolNames | None = None) -> None:
        self._names = names or ToolNames()
        self._tools: dict[tuple[Role, str], Any] = {}
        self._faces: _Memory[str, tuple[Face, ...]] = _Memory()
        self._embeddings: _Memory[_Key, Floats] = _Memory()
        self._bodies: _Memory[_Key, Floats | None] = _Memory()
        self._lock = threading.RLock()
        self.detections = 0
        """How often the detector has run."""

    def faces(self, photo: Photo) -> tuple[Face, ...]:
        """All faces from left to right; () if there are none."""
        with self._lock:
            return self._faces.get(photo.digest, lambda: self._detect(photo))

    def with_embedding(self, photo: Photo, face: Face) -> Face:
        """`face` with its identity vector, computed once."""
        if face.embedding is not None:
            return face
        with self._lock:
            vector = self._embeddings.get(_key(photo, face), lambda: self.recognizer.embed(photo, face))
        return replace(face, embedding=vector)

    def body(self, photo: Photo, face: Face) -> Face:
        """`face` with its body if one is found, looked for once."""
        if face.body is not None:
            return face
        with self._lock:
            points = self._bodies.get(_key(photo, face), lambda: self._body_finder.body(photo, face))
        return replace(face, body=points)

    def remember(self, photo: Photo, faces: tuple[Face, ...]) -> None:
        """Tell what a picture shows, where that follows from another one; it will not be looked at."""
        with self._lock:
            self._faces.put(photo.digest, faces)

    @property
    def detector(self) -> Detector:
        """Finds faces; callers want `faces`, which remembers."""
        return cast(Detector, self._tool(Role.DETECTOR, self._names.detector))

    @property
    def recognizer(self) -> Recognizer:
        """Tells people apart; callers want `with_embedding`, which remembers."""
        return cast(Recognizer, self._tool(Role.RECOGNIZER, self._names.recognizer))

    @property
    def segmenter(self) -> Segmenter:
        """Tells the person from the background; like the other models, one thread at a time."""
        return _OneAtATime(cast(Segmenter, self._tool(Role.SEGMENTER, self._names.segmenter)), self._lock)

    @property
    def retoucher(self) -> Retoucher:
        """Evens skin."""
        return cast(Retoucher, self._tool(Role.RETOUCHER, self._names.retoucher))

    @property
    def enhancer(self) -> Enhancer:
        """Enlarges."""
        return cast(Enhancer, self._tool(Role.ENHANCER, self._names.enhancer))

    def enhancer_named(self, name: str) -> Enhancer:
        """An enlarger other than the usual one; raises ToolMissing where there is none of that name."""
        return cast(Enhancer, self._tool(Role.ENHANCER, name))

    @property
    def fuser(self) -> Fuser:
        """Puts one face onto another."""
        return cast(Fuser, self._tool(Role.FUSER, self._names.fuser))

    def close(self) -> None:
        """Free the models and forget the pictures; the bundle can be used again."""
        with self._lock:
            for tool in self._tools.values():
                if hasattr(tool, "close"):
                    tool.close()
            for memory in (self._tools, self._faces, self._embeddings, self._bodies):
                memory.clear()

    @property
    def _body_finder(self) -> BodyFinder:
        return cast(BodyFinder, self._tool(Role.BODY, self._names.body))

    def _tool(self, role: Role, name: str) -> Any:  # noqa: ANN401  the properties above give it its protocol
        with self._lock:
            if (role, name) not in self._tools:
                self._tools[role, name] = _make(role, name)
            return self._tools[role, name]

    def _detect(self, photo: Photo) -> tuple[Face, ...]:
        self.detections += 1
        return self.detector.detect(photo)


class _OneAtATime:
    """A segmenter behind the lock of its bundle."""

    def __init__(self, segmenter: Segmenter, lock: threading.RLock) -> None:
        self._segmenter = segmenter
        self._lock = lock
        self.name = segmenter.name

    def person_mask(self, photo: Photo) -> Floats:
        """As the segmenter's own."""
        with self._lock:
            return self._segmenter.person_mask(photo)


class _Memory(Generic[K, V]):
    """A dictionary that forgets what was not asked for longest."""

    def __init__(self) -> None:
        self._entries: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K, make: Callable[[], V]) -> V:
        if key not in self._entries:
            self.put(key, make())
        self._entries.move_to_end(key)
        return self._entries[key]

    def put(self, key: K, value: V) -> None:
        self._entries[key] = value
        while len(self._entries) > _REMEMBERED:
            self._entries.popitem(last=False)

    def clear(self) -> None:
        self._entries.clear()


def _key(photo: Photo, face: Face) -> _Key:
    return photo.digest, face.landmarks.tobytes()


def _make(role: Role, name: str) -> Any:  # noqa: ANN401  see `FaceTools._tool`
    backend = _BACKENDS[role].get(name)
    if backend is None:
        known = ", ".join(_BACKENDS[role])
        raise ToolMissing(f"there is no {role.value} named {name!r}; there are: {known}")
    if not backend.is_installed():
        raise ToolMissing(f"the {role.value} {name!r} is not installed: {backend.how_to_install}")
    return backend.make()


def _register_own() -> None:
    mediapipe = {"name": "mediapipe", "is_installed": graphs.is_installed, "how_to_install": graphs.HOW_TO_INSTALL}
    register(Role.DETECTOR, Backend(make=MediaPipeDetector, **mediapipe))  # type: ignore[arg-type]
    register(Role.BODY, Backend(make=MediaPipeBody, **mediapipe))  # type: ignore[arg-type]
    register(Role.SEGMENTER, Backend(make=MediaPipeSegmenter, **mediapipe))  # type: ignore[arg-type]
    register(
        Role.RECOGNIZER,
        Backend(name="dlib", make=embed.DlibRecognizer, is_installed=embed.is_installed, how_to_install=embed.HOW_TO_INSTALL),
    )
    register(Role.RETOUCHER, Backend(name="classical", make=ClassicalRetoucher))
    register(Role.ENHANCER, Backend(name="classical", make=enhance.ClassicalEnhancer))
    register(
        Role.ENHANCER,
        Backend(
            name="real-esrgan", make=enhance.RealEsrgan, is_installed=enhance.is_installed,
            how_to_install=enhance.HOW_TO_INSTALL,
        ),
    )  # fmt: skip
    register(Role.FUSER, Backend(name="mesh", make=MeshFuser))


_register_own()
