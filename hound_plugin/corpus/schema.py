"""Every released file of LLaVA-Hound's corpora: id, location on the hub, rows, size, purpose, and local folder.

Names are those of the data sets' pages and of ``setup/*.sh`` in github.com/RifleZhang/LLaVA-Hound-DPO. Row counts are
rounded, as the authors state them, and sizes are those on the hub's pages (decimal, three digits); unstated numbers are
None. The download asks the hub for exact sizes in any case.

One folder contains everything, ``data/`` by default::

    data/video_instruction/...      the records, in the hub's layout
    data/archives/...               frames and images, packed
    data/frames/<clip>/             frames of train_300k and train_600k: `media_dir: data/frames`
    data/frames/test/<set>/<clip>/  frames of the test sets, as in their records
    data/frames/allava_laion/images, data/frames/allava_vflan/images
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from hound_plugin.errors import SettingsError

Kind = Literal["records", "pairs", "test", "archives"]

TRAIN = "ShareGPTVideo/train_video_and_instruction"
TEST = "ShareGPTVideo/test_video_and_instruction"
ALLAVA = "FreedomIntelligence/ALLaVA-4V"
VISION_FLAN = "Vision-Flan/vision-flan_191-task_1k"
FRAMES = "frames"
TEST_SETS = ("msrvtt", "msvd", "tgif", "ssv2", "actnet", "vidal", "webvid")
OFFICIAL = ("msrvtt", "msvd", "tgif")
KB, MB, GB = 10**3, 10**6, 10**9


@dataclass(frozen=True)
class Corpus:
    """One unit of download.

    Attributes:
        id: name on our command line.
        repo: data set on the hub.
        files: paths inside it.
        kind: ``records`` and ``test`` (conversations), ``pairs`` (preferences) or ``archives`` of media.
        rows: about how many rows or clips, as stated by the authors; None if unstated.
        size: total size in bytes, as on the hub's pages; None if unknown.
        purpose: what it is for.
        root: local subfolder that ``files`` are relative to.
        target: for archives, the folder that they are unpacked into.
        flatten: whether the archives' own folders are dropped (as ``unzip -j`` does in the original's setup).
        needs: ids of the archives with the media of these records.
    """

    id: str
    repo: str
    files: tuple[str, ...]
    kind: Kind
    rows: int | None
    size: int | None
    purpose: str
    root: str = ""
    target: str | None = None
    flatten: bool = False
    needs: tuple[str, ...] = ()

    def paths(self) -> list[str]:
        """Local paths of ``files``, relative to the folder for all corpora."""
        return [f"{self.root}/{name}" if self.root else name for name in self.files]


def _records(
    name: str, path: str, rows: int, size: int, purpose: str, needs: tuple[str, ...], kind: Kind = "records"
) -> Corpus:
    return Corpus(name, TRAIN, (f"video_instruction/train/{path}.jsonl",), kind, rows, size, purpose, needs=needs)


def _test(name: str, size: int, official: bool = False) -> Corpus:
    suffix = ".qa.official" if official else ".qa"
    where = "in-domain" if name in ("actnet", "vidal", "webvid") else "out of domain"
    purpose = f"test, {name}, official questions" if official else f"test, {name}, {where}"
    path = f"video_instruction/test/{name}{suffix}.jsonl"
    identity = f"test_{name}_official" if official else f"test_{name}"
    rows = 5_000 if official else None
    return Corpus(identity, TEST, (path,), "test", rows, size, purpose, needs=(f"frames_test_{name}",))


def _chunks(folder: str, count: int, rows: int, purpose: str) -> Corpus:
    files = tuple(f"{folder}/chunk_{index}.tar.gz" for index in range(count))
    name = folder.replace("train", "frames")
    return Corpus(name, TRAIN, files, "archives", rows, None, purpose, root="archives", target=FRAMES)


def _test_frames(name: str, size: int) -> Corpus:
    files = (f"video_data/test/{name}.tar.gz",)
    purpose = f"frames of the test set {name}"
    return Corpus(
        f"frames_test_{name}", TEST, files, "archives", None, size, purpose, root="archives", target=f"{FRAMES}/test"
    )


_VIDEO = ("frames_300k",)
_ALL_VIDEO = ("frames_300k", "frames_600k")
_IMAGES = ("images_allava", "images_vflan")

CORPORA: dict[str, Corpus] = {
    corpus.id: corpus
    for corpus in (
        _records(
            "video_caption_pretrain",
            "pretrain/video_caption_pretrain",
            900_000,
            789 * MB,
            "pre-training, video captions",
            _ALL_VIDEO,
        ),
        _records(
            "image_caption_pretrain",
            "pretrain/image_caption_pretrain",
            650_000,
            838 * MB,
            "pre-training, image captions",
            _IMAGES,
        ),
        _records(
            "video_240k_caption_15k",
            "sft/video_240k_caption_15k",
            255_000,
            91_300 * KB,
            "SFT, 240k questions and 15k captions",
            _VIDEO,
        ),
        _records(
            "video_caption_300k",
            "sft/video_caption_300k",
            300_000,
            266 * MB,
            "SFT of the original's two steps, video captions",
            _VIDEO,
        ),
        _records(
            "image_instruction_600k",
            "sft/image_instruction_600k",
            600_000,
            670 * MB,
            "SFT, image instructions",
            _IMAGES,
        ),
        _records(
            "image_instruction_100k",
            "sft/image_instruction_100k",
            100_000,
            112 * MB,
            "SFT of the original's second step, image instructions",
            _IMAGES,
        ),
        _records("dpo_17k", "dpo/sft_dpo_17k", 17_000, 9_640 * KB, "DPO, preference pairs", _VIDEO, "pairs"),
        _records("qa_240k", "qa/chatgpt_qa_240k", 240_000, 77_900 * KB, "questions about clips of train_300k", _VIDEO),
        _records("qa_900k", "qa/chatgpt_qa_900k", 900_000, 290 * MB, "questions about clips", _ALL_VIDEO),
        *(
            _test(name, size)
            for name, size in zip(
                TEST_SETS,
                (7_290 * KB, 5_130 * KB, 6_260 * KB, 10_400 * KB, 6_380 * KB, 6_250 * KB, 6_040 * KB),
                strict=True,
            )
        ),
        *(_test(name, size, True) for name, size in zip(OFFICIAL, (785 * KB, 848 * KB, 1_070 * KB), strict=True)),
        _chunks("train_300k", 16, 300_000, "frames for SFT and DPO, archives of up to 9.3 GB"),
        _chunks("train_600k", 30, 600_000, "more frames for pre-training, archives of up to 10.4 GB"),
        *(
            _test_frames(name, size)
            for name, size in zip(
                TEST_SETS, (962 * MB, 624 * MB, 1_390 * MB, 404 * MB, 866 * MB, 1_040 * MB, 807 * MB), strict=True
            )
        ),
        Corpus(
            "images_allava",
            ALLAVA,
            tuple(f"allava_laion/image_chunks/images_{index}.zip" for index in range(10)),
            "archives",
            None,
            92_280 * MB,
            "images of ALLaVA (LAION)",
            root="archives",
            target=f"{FRAMES}/allava_laion/images",
            flatten=True,
        ),
        Corpus(
            "images_vflan",
            VISION_FLAN,
            ("image_191-task_1k.zip",),
            "archives",
            None,
            36_300 * MB,
            "images of Vision-FLAN",
            root="archives/vision_flan",
            target=f"{FRAMES}/allava_vflan/images",
        ),
    )
}


def select(ids: Iterable[str] | None, kinds: Iterable[str] | None = None) -> list[Corpus]:
    """The named corpora in the order of the table; all of them for None.

    Args:
        ids: exact ids, or prefixes that end in ``*`` (``test_*``).
        kinds: only these kinds.

    Raises:
        SettingsError: an id is unknown; the message lists the known ones.
    """
    wanted: set[str] = set(CORPORA) if ids is None else set()
    for name in ids or ():
        matches = {known for known in CORPORA if known == name or (name[-1:] == "*" and known.startswith(name[:-1]))}
        if not matches:
            raise SettingsError(f"Expected ids of corpora; got {name!r}. Known ids: {', '.join(CORPORA)}.")
        wanted |= matches
    return [corpus for corpus in CORPORA.values() if corpus.id in wanted and (kinds is None or corpus.kind in kinds)]
