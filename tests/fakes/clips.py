"""Clips that really play, made with ffmpeg.

Belongs here: making them, once a session. Must not know: who plays them.
"""

import os
import subprocess
from pathlib import Path

from tests.fixtures.programs import require_program


class RealClips:
    """Playable mp4s (H.264, AAC, a key frame a second) in one folder, made when asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(
        self, seconds: int = 4, *, moov_at_end: bool = False, width: int = 320, kbps: int = 400
    ) -> Path:
        """Return the file of such a clip; skips the test where ffmpeg is missing.

        The index is at the start (`+faststart`) unless `moov_at_end`. The picture is noisy, so
        that the size follows `kbps`.
        """
        where = "end" if moov_at_end else "start"
        path = self._folder / f"{seconds}s-{width}-{kbps}k-{where}.mp4"
        if not path.exists():
            self._make(path, seconds, moov_at_end=moov_at_end, width=width, kbps=kbps)
        return path

    def _make(self, path: Path, seconds: int, *, moov_at_end: bool, width: int, kbps: int) -> None:
        # Test workers may make the same clip at once; the last one replaces an equal file.
        draft = path.with_suffix(f".{os.getpid()}.tmp")
        size = f"{width}x{width * 9 // 16 // 2 * 2}"
        video = f"testsrc2=size={size}:rate=24:duration={seconds},noise=alls=20:allf=t"
        command: list[str | Path] = [require_program("ffmpeg"), "-v", "error", "-y"]
        command += ["-f", "lavfi", "-i", video]
        command += ["-f", "lavfi", "-i", f"sine=frequency=440:duration={seconds}"]
        command += ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "24"]
        command += ["-b:v", f"{kbps}k", "-maxrate", f"{kbps}k", "-bufsize", f"{kbps}k"]
        command += ["-c:a", "aac", "-b:a", "64k", "-shortest"]
        command += [] if moov_at_end else ["-movflags", "+faststart"]
        subprocess.run([*command, "-f", "mp4", draft], check=True, timeout=120)
        draft.replace(path)
