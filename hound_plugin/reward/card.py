"""The dataset card that lies beside pairs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from hound_plugin.reward.settings import RewardSettings
from hound_plugin.reward.run_folder import Row


def dataset_card(
    settings: RewardSettings, rows: Sequence[Row], judge: Mapping[str, Any], provenance: Mapping[str, Any]
) -> str:
    """Markdown with the hub's header: what is in the set, how it was made, how to train on it."""
    pairs, name = settings.pairs, settings.pairs.name
    smoke = (
        f"\n> **{provenance['smoke_test']}.** Do not publish or train on it.\n" if "smoke_test" in provenance else ""
    )
    lengths = [(len(row["chosen"].split()), len(row["rejected"].split())) for row in rows]
    longer = sum(one > two for one, two in lengths)
    means = [statistics.fmean(side) for side in zip(*lengths, strict=True)] if lengths else [0.0, 0.0]
    given = pairs.model_dump(exclude={"name"})
    policy = ", ".join(f"{key} {value}" for key, value in given.items())
    return f"""---
tags: [preference, video, dpo, llava-hound]
size_categories: [{_size(len(rows))}]
---
# {name}
{smoke}
{len(rows)} preference pairs on {len({row["question_id"] for row in rows})} questions about videos.

| how it was made | |
|---|---|
| answers | {settings.sample.n} per question from `{provenance.get("sampler", "")}`, T {settings.sample.temperature}, \
top_p {settings.sample.top_p} |
| judge | `{judge.get("model", "")}` ({judge.get("backend", "")}), protocol `{judge.get("protocol", "")}` |
| judgements per answer | {settings.judge.k} |
| pairs | {policy} |
| seed | {settings.seed} |
| words, chosen / rejected (mean) | {means[0]:.1f} / {means[1]:.1f}; chosen is longer in {longer} of {len(rows)} |

Fields: `id`, `video` or `image`, `prompt`, `chosen`, `rejected`, `chosen_score`, `rejected_score` (1 to 5, or on the
scale of the protocol; null for a reference answer, which nobody judged), `question_id`, `chosen_candidate`,
`rejected_candidate`, `source`, `judge`, `protocol`, `sampler`. Scores are a language model's opinion.

To train on it with LLaMA-Factory: `dataset: {name}`, `dataset_dir:` this folder, `media_dir:` the folder that the
clips' paths begin in, `stage: dpo`.
"""


def _size(number: int) -> str:
    for limit, text in ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K")):
        if number < limit:
            return text
    return "100K<n<1M"
