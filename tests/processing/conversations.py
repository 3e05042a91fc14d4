"""Conversations as messages, each of which must give the same tokens wherever it is encoded."""

from __future__ import annotations

from typing import Any

from tests.goldens import ROOT

CLIP, LONG = str(ROOT / "media" / "clip_short.mp4"), str(ROOT / "media" / "clip_long.mp4")
FOLDER = str(ROOT / "frames" / "clip_long")
FRAMES = sorted(str(path) for path in (ROOT / "frames" / "clip_long").iterdir())[:3]
IMAGE = str(ROOT / "media" / "img_wide.jpg")


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts) if len(parts) != 1 or not isinstance(parts[0], str) else parts[0]}


def text(value: str) -> dict[str, str]:
    return {"type": "text", "text": value}


def answer(value: str, in_parts: bool = False) -> dict[str, Any]:
    return {"role": "assistant", "content": [text(value)] if in_parts else value}


def system(value: Any) -> dict[str, Any]:
    return {"role": "system", "content": value}


CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "text alone": [user("What is 2 + 2?"), answer("Four.")],
    "a clip": [user({"type": "video", "video": CLIP}, text("What moves?")), answer("A disc.")],
    "a folder of frames": [user({"type": "video", "path": FOLDER}, text("What moves?")), answer("A disc.", True)],
    "frames": [user({"type": "video", "video": FRAMES}, text("In which order?")), answer("Left to right.")],
    "an image": [user({"type": "image", "image": IMAGE}, text("What is it?")), answer("A photo,\nI think. ")],
    "a part of a clip": [user({"type": "video", "video": LONG + "#t=1,2"}, text("When?")), answer("Now.")],
    "the media last": [user(text(" Look at this. "), {"type": "video", "video": CLIP}), answer("Yes?")],
    "the media in the middle": [
        user(text("Before"), {"type": "image", "image": IMAGE}, text(" after ")), answer("Right."),
    ],
    "spaces around the question": [user({"type": "video", "video": CLIP}, text("  What?\n ")), answer(" Two spaces.")],
    "spaces without media": [user("  What?  "), answer("Nothing.")],
    "several turns": [
        user({"type": "video", "video": CLIP}, text("What moves?")), answer("A disc."),
        user("Which colour?"), answer("Red."), user([text("Sure?")][0]), answer("Yes, quite sure."),
    ],
    "several clips in one question": [
        user({"type": "video", "video": CLIP}, {"type": "video", "video": LONG}, text("Same?")), answer("No."),
    ],
    "clips in several questions": [
        user({"type": "video", "video": CLIP}, text("What?")), answer("A disc."),
        user({"type": "video", "video": LONG}, text("And here?")), answer("Another."),
    ],
    "a clip and an image": [
        user({"type": "image", "image": IMAGE}, {"type": "video", "video": CLIP}, text("Same?")), answer("No."),
    ],
    "a clip without a question": [user({"type": "video", "video": CLIP}), answer("A disc moves.")],
    "a system prompt": [system("Be brief."), user({"type": "video", "video": CLIP}, text("What?")), answer("A disc.")],
    "a system prompt in parts": [system([text("Be brief.")]), user("What?"), answer("Hm.")],
    "several texts": [user(text("One."), {"type": "video", "video": CLIP}, text("Two.")), answer("Both.")],
    "control tokens": [
        user({"type": "video", "video": CLIP}, text("What does </s> mean, <image> or <s>?")),
        answer("</s> ends it; <video> and <image> are words here."), user("<unk>?"), answer("<s>"),
    ],
    "a placeholder named twice": [
        user({"type": "video", "video": CLIP}, text("What does <video> show?")), answer("It."),
    ],
    "other scripts": [
        system("Répondez 中文 😀."),
        user({"type": "image", "image": IMAGE}, text("¿Qué es? 😀\t日本")), answer("花 \u200b!"),
    ],
    "braces": [user("{{ 1 }} {% if %} {# #}"), answer("{{ bos_token }} %}")],
}  # fmt: skip
