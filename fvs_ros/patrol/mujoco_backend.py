"""MuJoCo as a drawing board: materials and a lamp, no world; the caller puts convex bodies into the scene.

Nothing is compiled per episode, one board serves all of them, and a frame costs what is near the camera.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np

from fvs_ros.patrol.errors import RenderError
from fvs_ros.patrol.shapes import Primitive
from fvs_ros.patrol.textures import FAMILIES, PERIOD_M, VARIANTS, texture
from fvs_ros.patrol.visibility import FIELD_OF_VIEW, CameraPose

LARGEST_PX = 1024
"""Of a picture's sides; the off-screen buffer is made once, this large."""
_NEAR_M, _FAR_M = 0.05, 80.0
_MOST_BODIES = 400
_EDGES = 14
"""Of round bodies; as many as `shapes.outline_points` takes."""
_PATTERNS = [(family, variant) for family in FAMILIES for variant in range(VARIANTS)]
"""The model's materials, in the order of their ids."""


@dataclass(frozen=True)
class Body:
    """Something to draw.

    Attributes:
        primitive: its form; None for a rectangle in its x-y plane that is seen from +z.
        size: half extents, see `shapes.Primitive`.
        position: metres, float64 [3].
        rotation: its axes in the world as columns, float64 [3, 3].
        rgb: its colour, which a pattern tints.
        pattern: family and variant of `textures`; None for none. Only rectangles have one.
        label: what segmentation shows for it.
    """

    primitive: Primitive | None
    size: tuple[float, float, float]
    position: np.ndarray
    rotation: np.ndarray
    rgb: tuple[float, float, float]
    pattern: tuple[str, int] | None = None
    label: int = -1


def load_mujoco() -> ModuleType:
    """MuJoCo, set to draw off screen: as MUJOCO_GL says, else EGL beside an NVIDIA GPU, else OSMesa.

    Raises:
        RenderError: if the package or the OpenGL library is missing.
    """
    backend = os.environ.setdefault("MUJOCO_GL", "egl" if Path("/dev/nvidia0").exists() else "osmesa")
    try:
        import mujoco
        from mujoco import Renderer  # noqa: F401
    except ModuleNotFoundError as error:
        raise RenderError(
            f"drawing patrols needs MuJoCo ({error}); install it with: pip install 'fvs_ros[train]'"
        ) from error
    except (ImportError, AttributeError, RuntimeError) as error:
        # What PyOpenGL and MuJoCo raise for a library that cannot be loaded and for an unknown MUJOCO_GL.
        raise RenderError(_no_opengl(backend, error)) from error
    return mujoco


def _no_opengl(backend: str, error: Exception) -> str:
    return (
        f"MuJoCo cannot draw off screen with MUJOCO_GL={backend} ({type(error).__name__}: {error}); install OSMesa "
        "(apt-get install libosmesa6) and set MUJOCO_GL=osmesa, or, with an NVIDIA GPU, libegl1 and MUJOCO_GL=egl"
    )


class DrawingBoard:
    """An off-screen OpenGL context; use it in the thread that made it, and close it.

    Args:
        size: pixels along each side of the pictures, at most `LARGEST_PX`.

    Raises:
        RenderError: if MuJoCo or its OpenGL library cannot be used here.
    """

    def __init__(self, size: int) -> None:
        self._mujoco = mujoco = load_mujoco()
        pictures = {"{}_{}.png".format(*key): cv2.imencode(".png", texture(*key))[1].tobytes() for key in _PATTERNS}
        self._model = mujoco.MjModel.from_xml_string(_model_xml(size), pictures)
        try:
            self._renderer = mujoco.Renderer(self._model, size, size, max_geom=_MOST_BODIES)
        except Exception as error:
            # Context creation fails in as many ways as there are drivers (PyOpenGL's GLError, RuntimeError, ...).
            raise RenderError(_no_opengl(os.environ["MUJOCO_GL"], error)) from error
        # MuJoCo turns a mesh into its own inertial frame; this takes a vertex back.
        turn = np.empty(9)
        mujoco.mju_quat2Mat(turn, self._model.mesh_quat[0])
        self._cone_turn, self._cone_shift = turn.reshape(3, 3), self._model.mesh_pos[0].copy()
        kinds = mujoco.mjtGeom
        self._types = {
            None: kinds.mjGEOM_PLANE,
            Primitive.BOX: kinds.mjGEOM_BOX,
            Primitive.ELLIPSOID: kinds.mjGEOM_ELLIPSOID,
            Primitive.CYLINDER: kinds.mjGEOM_CYLINDER,
            Primitive.CONE: kinds.mjGEOM_MESH,
        }
        self._light_the_scene()

    def _light_the_scene(self) -> None:
        data = self._mujoco.MjData(self._model)
        self._mujoco.mj_forward(self._model, data)
        self._renderer.update_scene(data)
        flags, names = self._renderer.scene.flags, self._mujoco.mjtRndFlag
        for flag in (names.mjRND_SHADOW, names.mjRND_REFLECTION, names.mjRND_FOG, names.mjRND_SKYBOX, names.mjRND_HAZE):
            flags[flag] = 0

    def draw(self, camera: CameraPose, bodies: Iterable[Body]) -> np.ndarray:
        """A picture of `bodies`, uint8 [size, size, 3], RGB."""
        self._compose(camera, bodies)
        picture: np.ndarray = self._renderer.render()
        return picture

    def segment(self, camera: CameraPose, bodies: Iterable[Body]) -> np.ndarray:
        """The label of the body that each pixel shows, -1 for none, int32 [size, size]."""
        self._renderer.enable_segmentation_rendering()
        try:
            self._compose(camera, bodies)
            labels: np.ndarray = self._renderer.render()[..., 0]
        finally:
            self._renderer.disable_segmentation_rendering()
        return labels

    def close(self) -> None:
        """Frees the context; harmless to repeat."""
        self._renderer.close()

    def _compose(self, camera: CameraPose, bodies: Iterable[Body]) -> None:
        scene = self._renderer.scene
        for eye in scene.camera:
            eye.pos, eye.forward, eye.up = camera.position, camera.rotation[:, 2], -camera.rotation[:, 1]
            eye.frustum_near, eye.frustum_far = _NEAR_M, _FAR_M
            eye.frustum_top = _NEAR_M * np.tan(FIELD_OF_VIEW / 2)
            eye.frustum_bottom = -eye.frustum_top
            eye.frustum_center = eye.frustum_width = 0.0
        scene.ngeom = 0
        for body in bodies:
            self._add(scene, body)

    def _add(self, scene: Any, body: Body) -> None:
        position, rotation = body.position, body.rotation
        is_cone = body.primitive is Primitive.CONE
        if is_cone:
            stretched = rotation * np.array(body.size)
            position, rotation = position + stretched @ self._cone_shift, stretched @ self._cone_turn
        geom = scene.geoms[scene.ngeom]
        # A cylinder's size is its radius and half its height.
        size = (body.size[0], body.size[2], 0.0) if body.primitive is Primitive.CYLINDER else body.size
        self._mujoco.mjv_initGeom(
            geom,
            self._types[body.primitive],
            np.array(size, np.float64),
            np.array(position, np.float64),
            np.ascontiguousarray(rotation, np.float64).ravel(),
            np.array([*body.rgb, 1.0], np.float32),
        )
        if is_cone:
            geom.dataid = 0
        if body.pattern is not None:
            geom.matid = _PATTERNS.index(body.pattern)
        geom.objid, geom.segid = body.label, scene.ngeom
        scene.ngeom += 1


def _model_xml(size: int) -> str:
    materials = "".join(
        f'<texture name="{name}" type="2d" file="{name}.png"/>'
        f'<material name="{name}" texture="{name}" texuniform="true" texrepeat="{1 / PERIOD_M} {1 / PERIOD_M}"/>'
        for name in (f"{family}_{variant}" for family, variant in _PATTERNS)
    )
    turn = np.arange(_EDGES) * (2 * np.pi / _EDGES)
    ring = "  ".join(f"{x:.6f} {y:.6f} -1" for x, y in zip(np.cos(turn), np.sin(turn), strict=True))
    return f"""<mujoco>
      <visual>
        <global offwidth="{size}" offheight="{size}"/>
        <quality shadowsize="0" offsamples="0" numslices="{_EDGES}" numstacks="8" numquads="2"/>
        <headlight ambient="0.6 0.6 0.6" diffuse="0 0 0" specular="0 0 0"/>
      </visual>
      <asset>{materials}<mesh name="cone" vertex="{ring}  0 0 1"/></asset>
      <worldbody>
        <light directional="true" dir="0.35 0.5 -0.8" castshadow="false" diffuse="0.4 0.4 0.4" specular="0 0 0"/>
        <light directional="true" dir="-0.5 -0.3 -0.4" castshadow="false" diffuse="0.2 0.2 0.2" specular="0 0 0"/>
        <geom type="mesh" mesh="cone"/>
      </worldbody>
    </mujoco>"""
