"""OpenGL renderer without a window (EGL: a GPU where there is one, Mesa's llvmpipe otherwise).

Without `smooth`, one draw of scenery and people gives colour, depth along z and instance numbers. With it, colour
is drawn with four samples per pixel and labels in a second, cheap draw with one sample at the pixel centre: labels
are never blended. Framebuffer rows are image rows, so nothing is flipped on read-back.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.synthetic import textures
from human_scene_ros.synthetic.shapes import MATERIAL_TEXELS, VERTEX_FLOATS, Drawing, Mesh

NEAR_M = 0.05
FAR_M = 400.0
_MAX_SHADOWS = 12

_VERTEX_SHADER = """
#version 330
uniform mat4 clip_from_camera;
uniform mat4 camera_from_world;
in vec3 in_position;
in vec3 in_normal;
in vec3 in_surface;
in vec2 in_ids;
out vec3 position;
out vec3 normal;
out vec3 surface;
out float depth;
flat out ivec2 ids;
void main() {
    vec4 camera = camera_from_world * vec4(in_position, 1.0);
    position = in_position;
    normal = in_normal;
    surface = in_surface;
    depth = camera.z;
    ids = ivec2(in_ids + 0.5);
    gl_Position = clip_from_camera * camera;
}
"""

# The numpy renderer (render_numpy.py) evaluates the same formulas; change both together.
_FRAGMENT_SHADER = """
#version 330
uniform sampler2DArray patterns;
uniform sampler2D materials;
uniform vec3 eye;
uniform vec3 sun_direction;
uniform vec3 sun;
uniform vec3 sky;
uniform vec3 ground;
uniform vec3 lamp_position[2];
uniform vec3 lamp_color[2];
uniform vec4 fog;
uniform vec2 shade;
uniform int shadow_count;
uniform vec4 shadow_segment[12];
uniform float shadow_radius[12];
in vec3 position;
in vec3 normal;
in vec3 surface;
in float depth;
flat in ivec2 ids;
layout(location = 0) out vec4 out_color;
layout(location = 1) out vec2 out_label;

vec4 row(int texel) { return texelFetch(materials, ivec2(texel, ids.x), 0); }

vec4 pattern(vec2 uv, float layer) { return texture(patterns, vec3(uv, layer)); }

vec2 turned(vec2 uv, float angle) {
    float c = cos(angle), s = sin(angle);
    return vec2(c * uv.x - s * uv.y, s * uv.x + c * uv.y);
}

vec3 painted(vec4 t, vec3 c0, vec3 c1, vec3 c2, float contrast) {
    return mix(mix(c0, c1, t.r), c2, t.g) * (1.0 + contrast * (2.0 * t.b - 1.0));
}

vec3 person(out float gloss) {
    vec3 r = surface;
    float ax = abs(r.x);
    vec4 skin = row(0), hair = row(1), limits = row(8), back = row(9), head = row(14);
    vec2 cloth = vec2(r.x + 0.6 * r.z, r.y + 0.15 * r.z);
    gloss = 0.05;
    if (r.y > limits.w && ax < head.y) {
        if (r.y > hair.w || (r.z < back.y && r.y > back.x)) {
            float strand = pattern(vec2(r.x * 6.0, r.y * 1.5 + r.z), head.w).b;
            gloss = 0.15;
            return hair.rgb * (0.7 + 0.6 * strand);
        }
        vec4 eye_at = row(11), face = row(12);
        vec3 c = skin.rgb;
        if (r.z > eye_at.z) {
            float dx = ax - eye_at.x, dy = r.y - eye_at.y;
            float eyes = 1.0 - smoothstep(0.6, 1.2, length(vec2(dx / 0.014, dy / 0.008)));
            float brows = 1.0 - smoothstep(0.7, 1.2, length(vec2(dx / 0.022, (dy - 0.022) / 0.005)));
            float mouth = 1.0 - smoothstep(0.7, 1.3, length(vec2(r.x / 0.024, (r.y - face.x) / 0.007)));
            float beard = smoothstep(0.012, -0.008, r.y - face.x - 0.018) * face.y;
            float frame = (1.0 - smoothstep(0.003, 0.006, abs(length(vec2(dx, dy * 1.2)) - 0.024))) * face.w;
            c = mix(c, c * vec3(0.8, 0.45, 0.42), mouth * eye_at.w);
            c = mix(c, hair.rgb, clamp(beard, 0.0, 1.0));
            c = mix(c, hair.rgb * 0.6, brows * face.z);
            c = mix(c, vec3(0.06, 0.05, 0.05), eyes * eye_at.w);
            c = mix(c, vec3(0.04), frame);
        }
        return c;
    }
    if (ax > limits.x) {
        if (back.w > 0.5 && ax > back.z) return row(15).rgb;
        return skin.rgb;
    }
    if (r.y > limits.z) {
        vec4 a = row(2), b = row(3), c = row(4);
        return painted(pattern(turned(cloth, c.w) * b.w, a.w), a.rgb, b.rgb, c.rgb, 0.5);
    }
    if (r.y > limits.y) {
        vec4 a = row(5), b = row(6), c = row(13);
        return painted(pattern(cloth * b.w, a.w), a.rgb, b.rgb, c.rgb, c.w);
    }
    vec4 shoes = row(7), socks = row(10);
    if (r.y < shoes.w) { gloss = 0.2; return shoes.rgb; }
    return r.y < socks.w ? socks.rgb : skin.rgb;
}

void main() {
    vec4 r0 = row(0);
    float kind = r0.w, gloss = 0.0, glow = 0.0, floor_flag = 0.0;
    vec3 color;
    if (kind > 0.5 && kind < 1.5) {
        color = person(gloss);
    } else {
        vec4 r1 = row(1), r2 = row(2), r3 = row(3), r4 = row(4);
        vec2 uv = turned(surface.xy, r3.z);
        color = painted(pattern(uv * r3.xy, r1.w), r0.rgb, r1.rgb, r2.rgb, r2.w);
        color *= 1.0 + r3.w * (2.0 * pattern(uv * 0.17 + 0.3, r4.z).b - 1.0);
        gloss = r4.x; glow = r4.y; floor_flag = r4.w;
    }
    if (kind > 1.5) {
        out_color = vec4(color, 1.0);
        out_label = vec2(0.0);
        return;
    }
    vec3 n = normalize(normal);
    vec3 to_eye = normalize(eye - position);
    vec3 light = mix(ground, sky, 0.5 + 0.5 * n.z) + sun * max(dot(n, sun_direction), 0.0);
    float highlight = pow(max(dot(n, normalize(sun_direction + to_eye)), 0.0), 24.0) * dot(sun, vec3(0.333));
    for (int k = 0; k < 2; ++k) {
        vec3 d = lamp_position[k] - position;
        float r2 = dot(d, d) + 0.05;
        light += lamp_color[k] * (0.15 + 0.85 * max(dot(n, d) * inversesqrt(r2), 0.0)) / (1.0 + r2);
    }
    float dark = shade.x * exp(-3.0 * max(position.z, 0.0)) * (1.0 - floor_flag);
    if (floor_flag > 0.5) {
        float clear = 1.0;
        for (int k = 0; k < shadow_count; ++k) {
            vec2 a = shadow_segment[k].xy, b = shadow_segment[k].zw - a, p = position.xy - a;
            float t = clamp(dot(p, b) / (dot(b, b) + 1e-6), 0.0, 1.0);
            float q = length(p - t * b) / shadow_radius[k];
            clear *= 1.0 - (1.0 - 0.6 * t) * exp(-1.5 * q * q);
        }
        dark = shade.y * (1.0 - clear);
    }
    color *= light * (1.0 - dark) + glow;
    color += gloss * highlight;
    color = mix(fog.rgb, color, exp(-fog.w * depth));
    out_color = vec4(color, 1.0);
    out_label = vec2(depth, float(ids.y));
}
"""


_LABEL_SHADER = """
#version 330
uniform sampler2D materials;
in float depth;
flat in ivec2 ids;
layout(location = 0) out vec2 out_label;
void main() {
    float kind = texelFetch(materials, ivec2(0, ids.x), 0).w;
    out_label = kind > 1.5 ? vec2(0.0) : vec2(depth, float(ids.y));
}
"""


def clip_from_camera(camera: PinholeCamera) -> NDArray[np.float32]:
    """(4, 4) OpenGL projection: centre of framebuffer pixel (u, v) = pixel (u, v) of the camera."""
    matrix = np.zeros((4, 4), np.float64)
    matrix[0, 0], matrix[0, 2] = 2 * camera.fx / camera.width, 2 * (camera.cx + 0.5) / camera.width - 1
    matrix[1, 1], matrix[1, 2] = 2 * camera.fy / camera.height, 2 * (camera.cy + 0.5) / camera.height - 1
    matrix[2, 2], matrix[2, 3] = (FAR_M + NEAR_M) / (FAR_M - NEAR_M), -2 * FAR_M * NEAR_M / (FAR_M - NEAR_M)
    matrix[3, 2] = 1.0
    return matrix.astype(np.float32)


class GlRenderer:
    """Draws `Drawing`s at one image size. Owns an OpenGL context; any thread may call it, one at a time.

    Raises:
        Exception: Whatever moderngl raises when no context can be made (see `renderer.make_renderer`).
    """

    name = "gl"

    def __init__(self, width: int, height: int, smooth: bool = True) -> None:
        import moderngl

        self._lock = threading.Lock()
        self._context = context = moderngl.create_context(standalone=True, backend="egl", require=330)
        self.device = str(context.info["GL_RENDERER"])
        size = (width, height)
        self._color = context.renderbuffer(size, 4)
        self._label = context.renderbuffer(size, 2, dtype="f4")
        depth = context.depth_renderbuffer(size)
        self._labels = context.framebuffer([self._label], depth)
        self._program: Any = context.program(vertex_shader=_VERTEX_SHADER, fragment_shader=_FRAGMENT_SHADER)
        self._label_program: Any = None
        samples = min(4, context.max_samples) if smooth else 0
        if samples:
            self._picture = context.framebuffer(
                [context.renderbuffer(size, 4, samples=samples)],
                context.depth_renderbuffer(size, samples=samples),
            )
            self._resolved = context.framebuffer([self._color])
            self._label_program = context.program(vertex_shader=_VERTEX_SHADER, fragment_shader=_LABEL_SHADER)
            self._label_program["materials"].value = 1
        else:
            self._picture = self._resolved = context.framebuffer([self._color, self._label], depth)
        layers = textures.library()[0]
        self._patterns = context.texture_array(
            (textures.SIZE, textures.SIZE, len(layers)), 4, layers.tobytes()
        )
        self._patterns.build_mipmaps()
        self._patterns.filter = (moderngl.LINEAR_MIPMAP_LINEAR, moderngl.LINEAR)
        self._patterns.use(0)
        self._program["patterns"].value = 0
        self._program["materials"].value = 1
        context.enable(moderngl.DEPTH_TEST | moderngl.CULL_FACE)
        # Rows are not flipped, which mirrors the picture and with it the winding.
        context.front_face = "cw"
        self._static_source: Mesh | None = None
        self._static: _Buffers | None = None
        self._people = self._buffers()
        self._people_faces: list[NDArray[np.int32]] = []
        self._material_source: Any = None
        self._material_texture: Any = None

    def render(
        self, drawing: Drawing, camera: PinholeCamera
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8]]:
        """RGB (H, W, 3) uint8, depth (H, W) float32 metres along z (0 = sky), instance (H, W) uint8."""
        # Contexts of other sizes may have been used since, or another thread is calling: make this one current.
        with self._lock, self._context:
            return self._render(drawing, camera)

    def _render(
        self, drawing: Drawing, camera: PinholeCamera
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8]]:
        self._upload(drawing)
        self._set_lights(drawing)
        R, t = drawing.T_camera_world[:3, :3], drawing.T_camera_world[:3, 3]
        self._program["eye"].value = tuple(-R.T @ t)
        for program in filter(None, (self._program, self._label_program)):
            program["clip_from_camera"].write(clip_from_camera(camera).T.tobytes())
            if "camera_from_world" in program:
                program["camera_from_world"].write(drawing.T_camera_world.astype(np.float32).T.tobytes())
        self._picture.use()
        self._picture.clear(*drawing.lighting.fog, 0.0)
        if self._label_program is None:
            self._labels.clear()  # clear() gives all attachments one colour; labels start at 0
            self._picture.use()
        self._draw(self._program)
        if self._label_program is not None:
            self._context.copy_framebuffer(self._resolved, self._picture)
            self._labels.use()
            self._labels.clear()
            self._draw(self._label_program)
        height, width = camera.height, camera.width
        color = np.frombuffer(self._resolved.read(components=3, attachment=0, alignment=1), np.uint8)
        label = np.frombuffer(self._labels.read(components=2, dtype="f4"), np.float32).reshape(
            height, width, 2
        )
        return (
            color.reshape(height, width, 3),
            np.ascontiguousarray(label[..., 0]),
            label[..., 1].astype(np.uint8),
        )

    def _draw(self, program: Any) -> None:
        self._people.draw(program)
        if self._static is not None:
            self._static.draw(program)

    def _buffers(self) -> _Buffers:
        return _Buffers(self._context, [p for p in (self._program, self._label_program) if p is not None])

    def release(self) -> None:
        """Free the context."""
        self._context.release()

    def _upload(self, drawing: Drawing) -> None:
        if drawing.static is not self._static_source:
            if self._static is None:
                self._static = self._buffers()
            self._static.write(drawing.static.vertices, drawing.static.faces)
            self._static_source = drawing.static
        if drawing.materials is not self._material_source:
            if self._material_texture is not None:
                self._material_texture.release()
            self._material_texture = self._context.texture(
                (MATERIAL_TEXELS, len(drawing.materials)), 4, drawing.materials.tobytes(), dtype="f4"
            )
            self._material_texture.filter = (0x2600, 0x2600)  # GL_NEAREST
            self._material_source = drawing.materials
        self._material_texture.use(1)
        if not drawing.people:
            self._people.write(None, None)
            self._people_faces = []
            return
        vertices = np.concatenate([mesh.vertices for mesh in drawing.people])
        faces = [mesh.faces for mesh in drawing.people]
        same = len(faces) == len(self._people_faces) and all(
            a is b for a, b in zip(faces, self._people_faces, strict=True)
        )
        if same:
            self._people.write(vertices, None)
            return
        firsts = np.cumsum([0] + [len(mesh.vertices) for mesh in drawing.people[:-1]])
        self._people.write(vertices, np.concatenate([f + k for f, k in zip(faces, firsts, strict=True)]))
        self._people_faces = faces

    def _set_lights(self, drawing: Drawing) -> None:
        light, program = drawing.lighting, self._program
        for name in ("sun_direction", "sun", "sky", "ground"):
            program[name].value = tuple(map(float, getattr(light, name)))
        program["lamp_position"].write(np.ascontiguousarray(light.lamps[:, :3], np.float32).tobytes())
        program["lamp_color"].write(np.ascontiguousarray(light.lamps[:, 3:], np.float32).tobytes())
        program["fog"].value = (*map(float, light.fog), float(light.fog_per_m))
        program["shade"].value = (float(light.corner_shade), float(light.shadow))
        count = min(len(drawing.shadows), _MAX_SHADOWS)
        table = np.ones((_MAX_SHADOWS, 5), np.float32)
        table[:count] = drawing.shadows[:count]
        program["shadow_count"].value = count
        program["shadow_segment"].write(np.ascontiguousarray(table[:, :4]).tobytes())
        program["shadow_radius"].write(np.ascontiguousarray(table[:, 4]).tobytes())


_LAYOUT = {"in_position": "3f", "in_normal": "3f", "in_surface": "3f", "in_ids": "2f"}


class _Buffers:
    """Vertex and index buffers that grow as needed, drawable by several programs."""

    def __init__(self, context: Any, programs: list[Any]) -> None:
        self._context, self._programs = context, programs
        self._vertices: Any = None
        self._indices: Any = None
        self._arrays: dict[int, Any] = {}
        self._count = 0

    def write(self, vertices: NDArray[np.float32] | None, faces: NDArray[np.int32] | None) -> None:
        """Replace the content; `faces` None keeps the triangles, `vertices` None draws nothing."""
        if vertices is None or not len(vertices):
            self._count = 0
            return
        data = np.ascontiguousarray(vertices, np.float32)
        grown = self._fit("_vertices", data.nbytes)
        self._vertices.write(data)
        if faces is not None:
            index = np.ascontiguousarray(faces, np.int32)
            grown |= self._fit("_indices", index.nbytes)
            self._indices.write(index)
            self._count = index.size
        if grown:
            for array in self._arrays.values():
                array.release()
            self._arrays = {id(p): self._array(p) for p in self._programs}

    def _array(self, program: Any) -> Any:
        # Attributes that a program does not read are skipped as padding.
        used = [name for name in _LAYOUT if name in program]
        layout = " ".join(
            kind if name in program else f"{4 * int(kind[0])}x" for name, kind in _LAYOUT.items()
        )
        return self._context.vertex_array(
            program, [(self._vertices, layout, *used)], index_buffer=self._indices
        )

    def _fit(self, name: str, size: int) -> bool:
        buffer = getattr(self, name)
        if buffer is not None and buffer.size >= size:
            return False
        if buffer is not None:
            buffer.release()
        setattr(self, name, self._context.buffer(reserve=int(size * 1.25), dynamic=True))
        return True

    def draw(self, program: Any) -> None:
        """Draw the triangles."""
        if self._count:
            self._arrays[id(program)].render(vertices=self._count)


assert VERTEX_FLOATS == 11  # the attribute layout above
