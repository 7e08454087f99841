"""The OpenPose map of a scene: the template's body with a person's face laid over the template's."""

from __future__ import annotations

from easyphoto.imaging import conditions
from easyphoto.imaging.geometry import Crop
from easyphoto.records import Face, Floats, Pixels


def pose_map(crop: Crop, face: Face, side: int) -> Pixels:
    """Draw body and face as ControlNet's OpenPose annotator does.

    Args:
        crop: Gives the body.
        face: Gives the 70 face points, in the crop's coordinates; none are drawn where it has no mesh.
        side: Of the map in px.

    Returns:
        (side, side, 3) uint8 RGB.
    """
    scale = side / crop.photo.width
    body: Floats | None = None
    if crop.face.body is not None:
        body = conditions.body18_from_pose33(crop.face.body)
        body[:, :2] *= scale
    return conditions.openpose_map(side, side, None if face.mesh is None else face.mesh * scale, body)
