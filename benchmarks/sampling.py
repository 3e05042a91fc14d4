"""Six sampled answers about a clip: six generations, and all of them in one row; one question, and several.

The language model has the width, depth and vocabulary given, and random weights, which hardly ever end an answer. The
ways take turns, and draw the same answers for the same seeds whether questions stand alone or side by side.

    python benchmarks/sampling.py [--hidden 1024] [--layers 4] [--answers 6] [--tokens 24] [--questions 3] [--repeat 3]
        [--out FILE]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers
from clips import write_clip
from report import Goal, Report, Table, parser, spread
from side_by_side import TOKENIZER, VOCABULARY, configuration

import hound_plugin
from hound_plugin.media.pixel_cache import PixelCache
from hound_plugin.model.answer_sampling import sample_answers, sample_many
from hound_plugin.model.feature_cache import FeatureCache
from hound_plugin.model.inference import HoundModel

GENERATE, SAMPLED, TOGETHER = "model.generate, one answer after the other", "sample_answers", "sample_many"


def build(chosen: argparse.Namespace) -> HoundModel:
    """A model in memory, as ``hound_plugin.load`` gives it."""
    config = configuration(chosen.hidden, chosen.layers, released_towers=False)
    transformers.set_seed(0)
    model = hound_plugin.LlavaHoundForConditionalGeneration(config).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(TOKENIZER)
    processor = hound_plugin.LlavaHoundProcessor.from_config(config, tokenizer)
    processor.pixel_cache, model.model.feature_cache = PixelCache(), FeatureCache()
    return HoundModel(model, processor)


def main() -> None:
    """Print the table."""
    chosen = parser(__doc__, hidden=1024, layers=4, answers=6, tokens=24, questions=3, repeat=3).parse_args()
    seeds = list(range(chosen.answers))
    options: dict[str, Any] = {"max_new_tokens": chosen.tokens, "batch_size": chosen.answers * chosen.questions}
    generation = {"do_sample": True, "temperature": 1.0, "top_p": 0.95, "max_new_tokens": chosen.tokens}
    with tempfile.TemporaryDirectory() as folder:
        hound, clip = build(chosen), str(write_clip(Path(folder, "clip.mp4"), 2, 240))
        asked = [(f"What happens in part {number} of the clip?", clip) for number in range(chosen.questions)]
        prompt = hound.batch([(*asked[0][:1], "", clip)], "left")["input_ids"].shape[1]
        question = asked[0][0]
        ways: dict[str, tuple[int, Callable[[], Any]]] = {
            GENERATE: (1, lambda: [hound.chat(question, video=clip, **generation) for _ in seeds]),
            SAMPLED: (1, lambda: [sample_answers(hound, question, clip, seeds, **options)]),
            TOGETHER: (chosen.questions, lambda: sample_many(hound, asked, [seeds] * chosen.questions, **options)),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        results: dict[str, Any] = {}
        for turn in range(chosen.repeat + 1):  # the first one warms up
            for name, (questions, run) in ways.items():
                start = time.perf_counter()
                results[name] = run()
                if turn:
                    times[name].append((time.perf_counter() - start) / questions)
    size = (
        f"hidden {chosen.hidden}, {chosen.layers} layers, vocabulary {VOCABULARY}, prompt {prompt}; {chosen.answers} "
        f"answers of {chosen.tokens} tokens; decoding and towers are remembered in all ways"
    )
    middle = {name: statistics.median(values) for name, values in times.items()}
    shown = {**{name: name for name in ways}, TOGETHER: f"{TOGETHER}, {chosen.questions} questions side by side"}
    table = Table(
        f"{chosen.answers} sampled answers about a clip",
        ["way", "s a question (median, least to most)", "times faster"],
        [[shown[name], spread(times[name]), f"{middle[GENERATE] / middle[name]:.2f}"] for name in ways],
    )
    goals = [
        Goal(f"{chosen.answers} answers a clip", middle[GENERATE] / middle[SAMPLED], least=3),
        Goal(f"the same, {chosen.questions} questions side by side", middle[GENERATE] / middle[TOGETHER], least=3),
        Goal("answers that are the same for the same seeds, alone and side by side", equal_answers(results), least=1),
    ]
    Report("sampling", size, [table], goals, {"seconds": times}).finish(chosen.out)


def equal_answers(results: dict[str, Any]) -> float:
    """The share of the first question's answers that are equal, alone and side by side."""
    alone, together = results[SAMPLED][0], results[TOGETHER][0]
    return sum(one == other for one, other in zip(alone, together, strict=True)) / len(alone)


if __name__ == "__main__":
    main()
