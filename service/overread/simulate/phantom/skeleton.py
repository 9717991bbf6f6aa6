"""Bone: spine, ribs, sternum, shoulder girdle, with cortex and marrow."""

from __future__ import annotations

import numpy as np

from overread.simulate.phantom.body import LEFT, RIGHT, Build
from overread.simulate.phantom.canvas import WHOLE, Box, Canvas, Floats, Mask, Point

BONE = 3


class Skeleton:
    """Paints the bones of one patient; densities are drawn once, so that the bones of one patient match."""

    def __init__(self, canvas: Canvas, build: Build) -> None:
        rng = canvas.rng
        self.canvas, self.build, self.rng = canvas, build, rng
        self.cortex_hu = float(rng.uniform(350, 1000))
        self.marrow_hu = float(rng.uniform(90, 300))

    def paint(self, cage: Floats) -> None:
        """All bones; ``cage`` is the normalised radius of the pleural cavity."""
        self._ribs(cage)
        self._scapulae(cage)
        self._spine()
        self._sternum()
        self._girdle()

    def _bone(self, box: Box, inside: Mask, core: Mask) -> None:
        marrow = self.marrow_hu + self.canvas.noise(6, self.marrow_hu * 0.15, box)
        self.canvas.paint(box, inside, self.cortex_hu * float(self.rng.uniform(0.7, 1.1)), BONE)
        self.canvas.paint(box, inside & core, marrow, BONE)

    def _ribs(self, cage: Floats) -> None:
        c, b, rng = self.canvas, self.build, self.rng
        angle = np.arctan2(np.abs(c.x) / b.half_width, c.y / b.half_depth) / np.pi
        depth = np.sqrt(c.x**2 + c.y**2) * (1 - 1 / np.maximum(cage, 0.2))
        pitch, drop = float(rng.uniform(21, 29)), float(rng.uniform(45, 90))
        turn = (c.z + drop * angle ** rng.uniform(1.0, 1.4) + rng.uniform(0, pitch) + 3 * np.sign(c.x)) / pitch
        height = np.abs(turn - np.floor(turn) - 0.5) * pitch
        r = np.sqrt((height / rng.uniform(5, 7.5)) ** 2 + ((depth - rng.uniform(4, 6)) / rng.uniform(3.2, 4.8)) ** 2)
        shell = (r < 1) & (cage > 1) & (c.z < b.apex_z + 12) & (angle > 0.05)
        bony = angle < rng.uniform(0.76, 0.88)
        self._bone(WHOLE, shell & bony, r < rng.uniform(0.4, 0.65))
        c.paint(WHOLE, shell & ~bony & (angle < 0.97), float(rng.uniform(50, 140)))

    def _scapulae(self, cage: Floats) -> None:
        c, b, rng = self.canvas, self.build, self.rng
        angle = np.arctan2(np.abs(c.x) / b.half_width, c.y / b.half_depth) / np.pi
        depth = np.sqrt(c.x**2 + c.y**2) * (1 - 1 / np.maximum(cage, 0.2))
        low, high = float(rng.uniform(-10, 30)), float(rng.uniform(85, 120))
        sheet = float(rng.uniform(13, 18)) + c.noise(40, 1.5)
        wide = 0.5 * np.clip((c.z - low) / (high - low), 0.2, 1)
        blade = (np.abs(depth - sheet) < rng.uniform(1.6, 3.0)) & (angle > 0.18) & (angle < 0.18 + wide * 0.75)
        ridge_z = high - 18 - 40 * (0.45 - angle)
        ridge = (np.abs(c.z - ridge_z) < 4) & (depth > sheet) & (depth < sheet + 18) & (angle > 0.2) & (angle < 0.48)
        self._bone(WHOLE, (blade & (c.z > low) & (c.z < high)) | ridge, np.abs(depth - sheet) < 0.7)

    def _spine(self) -> None:
        c, b, rng = self.canvas, self.build, self.rng
        y = c.y - b.spine_y - rng.uniform(-6e-4, 9e-4) * c.z**2
        x = c.x - rng.uniform(-2, 4)
        pitch = float(rng.uniform(19, 29))
        level = (c.z + rng.uniform(0, pitch)) / pitch
        level = (level - np.floor(level) - 0.5) * pitch
        rx, ry, disc = rng.uniform(13, 20), rng.uniform(11, 16), rng.uniform(2, 4)
        body = np.sqrt((x / rx) ** 2 + (y / ry) ** 2)
        near = np.abs(level) / (pitch / 2 - disc)
        c.paint(WHOLE, body < 1, float(rng.uniform(50, 110)))
        self._bone(WHOLE, (body < 1) & (near < 1), (body < 0.88) & (near < 0.85))
        canal_y = y - ry - 8
        canal = np.sqrt((x / 9) ** 2 + (canal_y / 8) ** 2)
        ring = (canal >= 1) & (canal < rng.uniform(1.45, 1.7)) & (np.abs(level) < pitch * 0.36)
        thorn_y = canal_y - 12 - 12
        thorn = (np.abs(x) < rng.uniform(2.5, 4)) & (np.abs(thorn_y) < 13) & (np.abs(level + thorn_y * 0.4) < 6)
        wing = (np.abs(canal_y - 2) < 5) & (np.abs(x) > 8) & (np.abs(x) < rng.uniform(24, 34)) & (np.abs(level) < 6)
        self._bone(WHOLE, ring | thorn | wing, np.abs(level) < 2)
        c.paint(WHOLE, canal < 1, float(rng.uniform(15, 40)), 0)

    def _sternum(self) -> None:
        c, b, rng = self.canvas, self.build, self.rng
        front = -b.half_depth * 1.02 - 5
        lean = front + 0.0022 * np.clip(c.z - b.widest_z, 0, None) ** 2
        low, high = b.widest_z - rng.uniform(40, 70), b.apex_z - rng.uniform(15, 30)
        wide = rng.uniform(12, 19) + 9 * np.clip((c.z - high + 40) / 40, 0, 1)
        r = np.maximum(np.abs(c.y - lean) / rng.uniform(4.5, 7), np.abs(c.x) / wide)
        inside = (r < 1) & (c.z > low) & (c.z < high)
        self._bone(WHOLE, inside, r < 0.7)

    def _girdle(self) -> None:
        b, rng = self.build, self.rng
        for side in (LEFT, RIGHT):
            shoulder = (b.apex_z + rng.uniform(-5, 15), rng.uniform(-15, 25), side * (b.half_width + 15))
            breast = (b.apex_z - rng.uniform(8, 20), -b.half_depth * 0.55, side * 16.0)
            self._long_bone(breast, shoulder, float(rng.uniform(4.5, 7)))
            if b.arms_down:
                x = side * (b.half_width + b.wall_mm + b.fat_mm + 28)
                self._long_bone((100.0, 5.0, x), (96.0, 5.0, x), float(rng.uniform(18, 24)))
                self._long_bone((90.0, 5.0, x), (-200.0, 5.0, x * 1.05), float(rng.uniform(9, 13)))

    def _long_bone(self, start: Point, end: Point, radius_mm: float) -> None:
        box, r = self.canvas.capsule(start, end, radius_mm)
        self._bone(box, (r < 1) & (self.canvas.hu[box] > -300), r < 0.65)
