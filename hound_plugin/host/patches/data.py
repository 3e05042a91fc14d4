"""Data sets: reading, aligning, tokenising, collating."""

from __future__ import annotations

from hound_plugin.host.patches.entry import EVERY_RUN, Entry, Patch, Setup


def _loader(target: str, takes: str, body: str, why: str, without: str, **more: object) -> Patch:
    removable = "the host reads rows without guessing column types, and checks media, placeholders and `cutoff_len`"
    entry: dict[str, object] = {"removable": removable, **more}
    return Patch("llamafactory.data.loader", target, takes, body, why, without=without, **entry)  # type: ignore[arg-type]


DATA: tuple[Entry, ...] = (
    Patch(
        module="llamafactory.data.converter",
        target="DatasetConverter._find_medias",
        takes="medias",
        body="converter:find_frame_folders",
        why="The host finds files under `media_dir`, but no folders of frames.",
        upstream="https://github.com/hiyouga/LLaMA-Factory/issues/8244",
        removable="`DatasetConverter._find_medias` accepts folders",
        without="in formats other than `hound`, folders of frames are not found under `media_dir`",
    ),
    _loader(
        "_load_single_dataset",
        "dataset_attr, model_args, data_args, ...",
        "row_loading:load_single_dataset",
        needs=("llamafactory.data.loader:FILEEXT2TYPE",),
        why="The functions that it calls do not know which data set they read.",
        without="JSON files of the format `hound` are not read as text",
        essential_for=EVERY_RUN,
    ),
    _loader(
        "load_dataset",
        "path=, data_files=, split=, ...",
        "row_loading:load_dataset",
        why="`datasets` gives each column one type, taken from the first rows.",
        without="JSON files whose columns change their types cannot be read",
        essential_for=EVERY_RUN,
    ),
    _loader(
        "read_cloud_json",
        "cloud_path",
        "row_loading:read_cloud_json",
        why="As `load_dataset`, for files in cloud storage.",
        without="cloud files whose columns change their types cannot be read",
    ),
    _loader(
        "_get_merged_dataset",
        "dataset_names, model_args, data_args, training_args, stage, ...",
        "dataset_entries:check_stage",
        needs=("llamafactory.data.parser:get_dataset_list(dataset_names, dataset_dir)",),
        why='The host calls a data set for another stage only "not applicable", takes the text "false" as true, and '
        "mixes data sets for evaluation as those for training.",
        without="mistakes in `dataset_info.json` and data sets for another stage are not explained",
    ),
    _loader(
        "merge_dataset",
        "all_datasets, ...",
        "column_types:merge_with_types",
        why="Arrow cannot join a column of paths with one of lists of frames.",
        without="data sets of the format `hound` cannot be mixed with others",
        removable="`Dataset.map` is given the features of its columns",
    ),
    _loader(
        "align_dataset",
        "dataset, dataset_attr, data_args, training_args",
        "alignment:align",
        why="The host stops at the first bad row, or drops it.",
        without="bad rows are not collected",
        essential_for=EVERY_RUN,
    ),
    _loader(
        "split_dataset",
        "dataset, eval_dataset, data_args, seed",
        "alignment:settle_and_split",
        why="Bad rows of all data sets are settled together, before any is tokenised. From the second epoch of a "
        "stream on, rows that `val_size` held out are trained on.",
        without="bad rows are not reported",
        essential_for=EVERY_RUN,
    ),
    _loader(
        "_get_preprocessed_dataset",
        "dataset, data_args, training_args, stage, template, ...",
        "sequence_length:tokenise_and_report",
        why="The host does not count the answers that `cutoff_len` cuts, and lets Arrow guess column types.",
        without="cut answers are not reported",
        essential_for=EVERY_RUN,
    ),
    _loader(
        "get_dataset",
        "template, model_args, data_args, training_args, processor=, ...",
        "dataset_checks:check_datasets",
        why="The host opens media for the first time in the middle of training.",
        without="media are not checked before training",
        essential_for=EVERY_RUN,
    ),
)

_PROCESSORS = {
    "supervised": "SupervisedDatasetProcessor",
    "pairwise": "PairwiseDatasetProcessor",
    "feedback": "FeedbackDatasetProcessor",
    "unsupervised": "UnsupervisedDatasetProcessor",
}


def _tokenisation(module: str, owner: str) -> tuple[Patch, ...]:
    module = f"llamafactory.data.processor.{module}"
    removable = "the host checks what `cutoff_len` cuts off"
    upstream = (
        "https://github.com/hiyouga/LLaMA-Factory/issues/9146, https://github.com/hiyouga/LLaMA-Factory/issues/7696"
    )
    return (
        Patch(
            module=module,
            target=f"{owner}._encode_data_example",
            takes="prompt=, images=, videos=, ...",
            body="dataset_checks:check_encoding",
            why="`cutoff_len` silently cuts visual tokens, or the whole answer.",
            upstream=upstream,
            removable=removable,
            without="rows whose clips `cutoff_len` cuts are not refused",
            essential_for=EVERY_RUN,
        ),
        Patch(
            module=module,
            target="infer_seqlen",
            takes="source_len, target_len, cutoff_len",
            body="sequence_length:keep_prompt",
            ours_only=True,
            why="The host cuts the prompt, with its clip, before the answer.",
            upstream=upstream,
            removable=removable,
            without="a long row loses its prompt instead of its answer",
        ),
        _counting(module, owner),
    )


def _counting(module: str, owner: str) -> Patch:
    return Patch(
        module=module,
        target=f"{owner}.preprocess_dataset",
        takes="examples",
        body="sequence_length:count_cut_answers",
        ours_only=True,
        why="The host does not count the answers that `cutoff_len` cuts.",
        removable="the host reports what `cutoff_len` cuts off",
        without="cut answers are not counted",
        essential_for=EVERY_RUN,
    )


TOKENISATION: tuple[Entry, ...] = (
    *(patch for module, owner in _PROCESSORS.items() for patch in _tokenisation(module, owner)),
    _counting("llamafactory.data.processor.supervised", "PackedSupervisedDatasetProcessor"),
    Setup(
        module="llamafactory.data.processor.feedback",
        body="label_warning:hide_label_warning",
        needs=("llamafactory.data.processor.feedback:logger",),
        without="KTO warns of one kind of label for batches of rows that happen to have one",
    ),
)


def _collator(owner: str, body: str) -> Patch:
    return Patch(
        module="llamafactory.data.collator",
        target=f"{owner}.__call__",
        takes="features",
        body=body,
        why="`on_bad_media: skip` needs the labels of a row whose media cannot be read.",
        removable="the host's collator offers a hook before `get_mm_inputs`",
        without="`hound.on_bad_media: skip` does not skip media that turn out to be bad during training",
    )


COLLATORS: tuple[Entry, ...] = (
    _collator("SFTDataCollatorWith4DAttentionMask", "bad_media:collate_supervised"),
    _collator("PairwiseDataCollatorWithPadding", "bad_media:collate_preferences"),
    _collator("KTODataCollatorWithPadding", "bad_media:collate_preferences"),
)
