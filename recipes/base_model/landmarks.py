"""Step 0, on a CPU: find face mesh and pose in every portrait, and read age, sex and country from its prompt.

    python -m recipes.base_model.landmarks PORTRAITS OUT

Writes OUT/NAME.jpg (square, `--size` px), OUT/landmarks.npz (`NAME.face` 478 x 2 and `NAME.pose` 33 x 4: x, y, z,
visibility, in pixels of the written picture) and OUT/people.json. Later steps need no MediaPipe.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float32]
_PROMPT = re.compile(r"(\d+)-year-old (woman|man)(?: from (.+))?$")


def read_people(metadata: Path) -> dict[str, dict[str, Any]]:
    """Read `{name: {"age", "sex", "country"}}` out of a metadata file that holds each portrait's prompt."""
    people: dict[str, dict[str, Any]] = {}
    if not metadata.exists():
        return people
    for name, entry in json.loads(metadata.read_text()).items():
        found = _PROMPT.search(entry.get("prompt", ""))
        if found:
            people[name] = {"age": int(found[1]), "sex": found[2], "country": found[3] or ""}
    return people


def find_points(rgb: npt.NDArray[np.uint8], tools: tuple[Any, Any]) -> tuple[Points, Points] | None:
    """Return the face mesh (478 x 2) and pose (33 x 4, zeros if none) in pixels, or None without a face."""
    mesh_tool, pose_tool = tools
    height, width = rgb.shape[:2]
    found = mesh_tool.process(rgb).multi_face_landmarks
    if not found:
        return None
    face = np.array([(p.x * width, p.y * height) for p in found[0].landmark], np.float32)
    pose = np.zeros((33, 4), np.float32)
    body = pose_tool.process(rgb).pose_landmarks
    if body:
        pose = np.array([(p.x * width, p.y * height, p.z, p.visibility) for p in body.landmark], np.float32)
    return face, pose


def open_tools() -> tuple[Any, Any]:
    """Load MediaPipe's face mesh (with irises) and pose."""
    import mediapipe as mp  # imported late: it is slow, and the GPU machine need not have it

    mesh = mp.solutions.face_mesh.FaceMesh(
        static_image_mode=True, max_num_faces=1, refine_landmarks=True, min_detection_confidence=0.3
    )
    return mesh, mp.solutions.pose.Pose(static_image_mode=True, model_complexity=1)


def main() -> None:
    """Run the step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("portraits", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", type=int, default=768)
    parser.add_argument("--quality", type=int, default=88)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    people, kept, tools = read_people(args.portraits / "metadata.json"), {}, open_tools()
    points: dict[str, Points] = {}
    for path in sorted(args.portraits.glob("*.jpg")):
        picture = cv2.imread(str(path))
        side = min(picture.shape[:2])
        top, left = (picture.shape[0] - side) // 2, (picture.shape[1] - side) // 2
        square = cv2.resize(picture[top : top + side, left : left + side], (args.size,) * 2, interpolation=cv2.INTER_AREA)
        found = find_points(cv2.cvtColor(square, cv2.COLOR_BGR2RGB), tools)
        if found is None:
            print(f"{path.name}: no face, left out")
            continue
        cv2.imwrite(str(args.out / path.name), square, [cv2.IMWRITE_JPEG_QUALITY, args.quality])
        points[f"{path.stem}.face"], points[f"{path.stem}.pose"] = found
        kept[path.stem] = people.get(path.stem, {"age": 0, "sex": "person", "country": ""})
    np.savez_compressed(args.out / "landmarks.npz", **points)  # type: ignore[arg-type]
    (args.out / "people.json").write_text(json.dumps(kept, indent=1) + "\n")
    print(f"{len(kept)} portraits")


if __name__ == "__main__":
    main()
