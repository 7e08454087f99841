"""Which of the 478 points of the MediaPipe face mesh are what (Apache-2.0, face_mesh_connections of mediapipe).

"Right" is the person's right, which an upright picture shows on its left.
"""

from __future__ import annotations

OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150,
    136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
"""The face's outline, clockwise from the top of the forehead (index 0) over the left ear (8) and the chin (18)."""
LIPS_OUTER = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146)
LIPS_INNER = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95)
RIGHT_EYE = (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7)
LEFT_EYE = (263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249)
RIGHT_BROW = (70, 63, 105, 66, 107, 55, 65, 52, 53, 46)
LEFT_BROW = (300, 293, 334, 296, 336, 285, 295, 282, 283, 276)
NOSTRILS = (98, 97, 2, 326, 327)

RIGHT_PUPIL, LEFT_PUPIL = 468, 473
NOSE_TIP, NOSE_ROOT, NOSE_BASE = 1, 168, 2
RIGHT_MOUTH, LEFT_MOUTH = 61, 291
FOREHEAD, CHIN = 10, 152
INNER_LIPS = (13, 14)
"""Middle of the upper and of the lower lip where they meet."""
RIGHT_SIDE, LEFT_SIDE = 234, 454
"""Where the cheek ends in front of the ears."""
RIGHT_EYE_OUTER, RIGHT_EYE_INNER, LEFT_EYE_INNER, LEFT_EYE_OUTER = 33, 133, 362, 263

LANDMARKS = (RIGHT_PUPIL, LEFT_PUPIL, NOSE_TIP, RIGHT_MOUTH, LEFT_MOUTH)
"""The five points of `Face.landmarks`."""
