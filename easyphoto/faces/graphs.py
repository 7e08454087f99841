"""The MediaPipe graphs we run (mediapipe 0.10.9, 0.10.14 and 0.10.21 bring their models; newer releases bring none).

Each class wraps one graph: pixels in, plain arrays out, in the pixels' own coordinates. None is thread-safe by itself;
`FaceTools` holds a lock. MediaPipe's own error texts are of no use to a person, so what is missing is said as
`ToolMissing`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from easyphoto.errors import ToolMissing
from easyphoto.faces.quiet import quiet_stderr
from easyphoto.records import Floats, Pixels

HOW_TO_INSTALL = (
    'pip install --no-deps "mediapipe==0.10.21" (beside protobuf 3, as the WebUI has it, "mediapipe==0.10.9"; '
    "newer releases ship no models)"
)
MESH_SIDE = 192
"""Side in px of what the mesh model is shown."""

# The landmark model alone, without the face detector that MediaPipe's own FaceMesh puts before it: we find faces
# ourselves and hand each over upright and enlarged. That is what makes small, turned and half faces work.
_MESH_GRAPH = """
input_stream: "image"
input_stream: "roi"
output_stream: "landmarks"
node {
  calculator: "ConstantSidePacketCalculator"
  output_side_packet: "PACKET:with_attention"
  node_options: {
    [type.googleapis.com/mediapipe.ConstantSidePacketCalculatorOptions]: { packet { bool_value: true } }
  }
}
node {
  calculator: "FaceLandmarkCpu"
  input_stream: "IMAGE:image"
  input_stream: "ROI:roi"
  input_side_packet: "WITH_ATTENTION:with_attention"
  output_stream: "LANDMARKS:landmarks"
}
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Spotted:
    """One answer of the detector."""

    box: Floats
    """(4,) left, top, right, bottom px."""
    points: Floats
    """(6, 2) px: right eye, left eye, nose tip, middle of the mouth, right and left ear."""
    score: float


class SpotGraph:
    """BlazeFace (arXiv 1907.05047): finds faces."""

    def __init__(self, full_range: bool, threshold: float) -> None:
        solutions = _solutions()
        with quiet_stderr():
            self._graph = solutions.face_detection.FaceDetection(
                model_selection=int(full_range), min_detection_confidence=threshold
            )
            self._graph.process(np.zeros((64, 64, 3), np.uint8))

    def run(self, pixels: Pixels) -> list[Spotted]:
        """Every face of a (height, width, 3) RGB picture, in no order."""
        height, width = pixels.shape[:2]
        size = np.array([width, height], np.float32)
        found = []
        for detection in self._graph.process(np.ascontiguousarray(pixels)).detections or ():
            place = detection.location_data
            box = place.relative_bounding_box
            corner = np.array([box.xmin, box.ymin], np.float32)
            extent = np.array([box.width, box.height], np.float32)
            points = np.array([(point.x, point.y) for point in place.relative_keypoints], np.float32)
            if min(extent) > 0:
                edges = np.concatenate([corner * size, (corner + extent) * size]).astype(np.float32)
                found.append(Spotted(box=edges, points=points * size, score=float(detection.score[0])))
        return found

    def close(self) -> None:
        """Free the model."""
        self._graph.close()


class MeshGraph:
    """Attention mesh (arXiv 2006.10962): 478 points of a face that fills its picture."""

    def __init__(self) -> None:
        _solutions()
        # Registers the options' type, which the graph's text names.
        from mediapipe.calculators.core import constant_side_packet_calculator_pb2  # noqa: F401
        from mediapipe.framework.formats import rect_pb2
        from mediapipe.python import solution_base

        self._whole = rect_pb2.NormalizedRect(x_center=0.5, y_center=0.5, width=1.0, height=1.0, rotation=0.0)
        with quiet_stderr():
            self._graph = solution_base.SolutionBase(graph_config=_MESH_GRAPH, outputs=["landmarks"])
            self.run(np.zeros((MESH_SIDE, MESH_SIDE, 3), np.uint8))

    def run(self, pixels: Pixels) -> Floats | None:
        """(478, 3) px of an upright face in a square picture, depth third; None where the model sees no face."""
        answer = self._graph.process({"image": np.ascontiguousarray(pixels), "roi": self._whole})
        return None if answer.landmarks is None else _points(answer.landmarks.landmark, pixels)

    def close(self) -> None:
        """Free the model."""
        self._graph.close()


class PoseGraph:
    """BlazePose full (arXiv 2006.10204): 33 points of one body."""

    def __init__(self) -> None:
        solutions = _solutions()
        with quiet_stderr():
            self._graph = solutions.pose.Pose(static_image_mode=True, model_complexity=1)
            self._graph.process(np.zeros((64, 64, 3), np.uint8))

    def run(self, pixels: Pixels) -> Floats | None:
        """(33, 3) px, px, visibility of the most visible body; None where there is none."""
        landmarks = self._graph.process(np.ascontiguousarray(pixels)).pose_landmarks
        if landmarks is None:
            return None
        points = _points(landmarks.landmark, pixels)
        points[:, 2] = [mark.visibility for mark in landmarks.landmark]
        return points

    def close(self) -> None:
        """Free the model."""
        self._graph.close()


class SelfieGraph:
    """MediaPipe selfie segmentation: the person in front."""

    def __init__(self) -> None:
        solutions = _solutions()
        with quiet_stderr():
            self._graph = solutions.selfie_segmentation.SelfieSegmentation(model_selection=0)
            self._graph.process(np.zeros((64, 64, 3), np.uint8))

    def run(self, pixels: Pixels) -> Floats:
        """(height, width) float32 0-1: how much of each pixel is the person."""
        return np.array(self._graph.process(np.ascontiguousarray(pixels)).segmentation_mask, np.float32)

    def close(self) -> None:
        """Free the model."""
        self._graph.close()


def is_installed() -> bool:
    """Whether MediaPipe and its models are here; imports nothing."""
    import importlib.util
    from pathlib import Path

    spec = importlib.util.find_spec("mediapipe")
    if spec is None or not spec.submodule_search_locations:
        return False
    root = Path(spec.submodule_search_locations[0])
    return (root / "modules" / "face_landmark" / "face_landmark_with_attention.tflite").is_file()


def _solutions() -> Any:  # noqa: ANN401  MediaPipe has no types
    if not is_installed():
        raise ToolMissing(f"faces are found with MediaPipe and its models, which are not here: {HOW_TO_INSTALL}")
    os.environ.setdefault("GLOG_minloglevel", "2")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with quiet_stderr():
        import mediapipe
    _refuse_old_protobuf(mediapipe)
    return mediapipe.solutions


def _refuse_old_protobuf(mediapipe: Any) -> None:  # noqa: ANN401  MediaPipe has no types
    """Say at once what MediaPipe itself says only at the first face: its newer releases cannot read theirs by protobuf 3."""
    from mediapipe.framework.formats import detection_pb2

    try:
        mediapipe.packet_getter.get_proto(mediapipe.packet_creator.create_proto(detection_pb2.Detection()))
    except AttributeError as error:
        raise ToolMissing(f"this MediaPipe does not work with the protobuf that is here: {HOW_TO_INSTALL}") from error


def _points(landmarks: Any, pixels: Pixels) -> Floats:  # noqa: ANN401  a protobuf list
    """(n, 3) px; depth is in px of the width, as MediaPipe scales it."""
    height, width = pixels.shape[:2]
    scale = np.array([width, height, width], np.float32)
    return np.array([(mark.x, mark.y, mark.z) for mark in landmarks], np.float32) * scale
